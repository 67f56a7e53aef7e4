package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"updraft/testnet"
)

type testnetOptions struct {
	devices     int
	uplink, lan string
	old, fresh  string
	bases       int
	gateway     bool
	netns       bool
	killAt      float64
	keep        bool
	dir         string
	timeout     time.Duration
}

func newTestnet(u *ui) *cobra.Command {
	o := testnetOptions{}
	c := &cobra.Command{
		Use:   "testnet --new PATH [--old PATH]",
		Short: "Rehearse a rollout with your own releases",
		Long: `Play a site with your own releases, files or directories, and print what the rollout
costs: bytes on the uplink against the patch and the release, time to the first and the
last device against what the uplink alone allows, bytes by source, CPU, memory and
bytes written for each device.

Without --old the site has nothing. With --old all devices hold OLD, or with --bases K
only K of them do and the others hold nothing.

On loopback, the default, the origin's answers are shaped and counted with their HTTP
headers. With --netns (root, iproute2) each device is in a network namespace with a
shaped link of its own, and what is counted are the Ethernet frames on the uplink, of
which TCP alone adds 4.6 %.

The exit code is 0 when every device has NEW in service.`,
		Example: `  updraft testnet --devices 8 --uplink 20mbit --lan 100mbit --old app-1.0 --new app-1.1 --gateway
  sudo updraft testnet --netns --devices 24 --uplink 5mbit --new rootfs.img --kill-at 0.5 --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return rehearse(cmd.Context(), u, o) },
	}
	f := c.Flags()
	f.IntVar(&o.devices, "devices", 8, "devices besides the gateway")
	f.StringVar(&o.uplink, "uplink", "20mbit", "rate of the uplink towards the site; 0: no limit")
	f.StringVar(&o.lan, "lan", "100mbit", "rate of each device's link; 0: no limit")
	f.StringVar(&o.old, "old", "", "release that the devices hold")
	f.StringVar(&o.fresh, "new", "", "release to roll out (required)")
	f.IntVar(&o.bases, "bases", -1, "how many devices hold the old release (default: all)")
	f.BoolVar(&o.gateway, "gateway", false, "with a gateway")
	f.BoolVar(&o.netns, "netns", false, "in network namespaces, as root")
	f.Float64Var(&o.killAt, "kill-at", 0, "kill the device that downloads when this share has come, and start it 2 s later")
	f.DurationVar(&o.timeout, "timeout", testnet.DefaultTimeout, "give up after so long")
	f.StringVar(&o.dir, "dir", "", "where the site's temporary directory is made (default: the system's)")
	f.BoolVar(&o.keep, "keep", false, "leave the directory, with all logs, for a look")
	required(c, "new")
	return c
}

func (o *testnetOptions) check() error {
	switch {
	case o.devices < 1 || o.devices > 200:
		return usagef("--devices %d is not between 1 and 200", o.devices)
	case o.killAt < 0 || o.killAt >= 1:
		return usagef("--kill-at %v is not between 0 and 1", o.killAt)
	case o.bases > o.devices:
		return usagef("--bases %d is more than the %d devices", o.bases, o.devices)
	case o.bases >= 0 && o.old == "":
		return usagef("--bases needs --old")
	}
	for _, p := range []string{o.old, o.fresh} {
		if p == "" {
			continue
		}
		if _, err := os.Stat(p); err != nil {
			return err
		}
	}
	return nil
}

func rehearse(ctx context.Context, u *ui, o testnetOptions) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	cfg := testnet.Config{Devices: o.devices, Gateway: o.gateway, Netns: o.netns, Dir: o.dir, Keep: o.keep}
	if cfg.Uplink, err = parseRate(o.uplink); err != nil {
		return usageError{err}
	}
	if cfg.LAN, err = parseRate(o.lan); err != nil {
		return usageError{err}
	}
	if cfg.Program, err = program(); err != nil {
		return err
	}
	site, err := testnet.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, site.Close())
		if o.keep {
			u.note("The site's files are in %s", site.Dir())
		}
	}()
	if o.old != "" {
		if err := settle(ctx, u, site, o); err != nil {
			return err
		}
	}
	u.note("Publishing %s.", o.fresh)
	r, err := site.Publish(ctx, "2.0.0", o.fresh)
	if err != nil {
		return err
	}
	u.note("Starting %d agents; they look for each other.", len(site.Nodes()))
	if err := site.Boot(ctx, site.Nodes()...); err != nil {
		return err
	}
	out, err := showRollout(ctx, u, site, r, testnet.RolloutOptions{KillAt: o.killAt, Timeout: o.timeout})
	var rollouts []testnet.Rollout
	if out != nil {
		rollouts = append(rollouts, *out)
	}
	if err != nil {
		return giveUp(u, site.Ground(), cfg.Uplink, rollouts, err)
	}
	return conclude(u, testnet.Sum(site.Ground(), cfg.Uplink, rollouts))
}

// settle gives devices the old release.
func settle(ctx context.Context, u *ui, site *testnet.Site, o testnetOptions) error {
	u.note("Publishing %s.", o.old)
	if _, err := site.Publish(ctx, "1.0.0", o.old); err != nil {
		return err
	}
	names := site.Nodes()
	if o.bases >= 0 {
		// The gateway comes first in the list and holds nothing, as a new one does.
		names = names[len(names)-o.devices:]
		names = names[:min(o.bases, len(names))]
	}
	u.note("Installing it on %d devices.", len(names))
	return site.Settle(ctx, names...)
}
