// Package testnet plays a site: a fleet, an origin behind a shaped uplink, a gateway
// and devices, all of them the real program in processes of their own. It is what
// "updraft demo" and "updraft testnet" run on, so that a rollout can be rehearsed
// with anybody's own files, and what the end-to-end tests are written in.
//
//	site, err := testnet.New(ctx, testnet.Config{Program: argv, Devices: 8, Gateway: true, Uplink: 2_500_000})
//	defer site.Close()
//	first, err := site.Publish(ctx, "1.0.0", "app")
//	err = site.Boot(ctx, site.Nodes()...)
//	rollout, err := site.Rollout(ctx, first, testnet.RolloutOptions{})
//
// A site stands on one of two grounds. On loopback, without root, the origin is
// served from this process through a limit.Listener, which shapes and counts what
// the origin's connections carry: HTTP with its headers. In network namespaces (see
// testnet/netns) every link is shaped and counted as Ethernet frames.
//
// Nothing survives a site: Close ends every process, and removes every namespace
// and file. If this process dies instead, its agents are killed by the kernel.
package testnet
