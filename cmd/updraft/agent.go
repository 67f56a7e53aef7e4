package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"updraft/node"
	"updraft/node/report"
)

//go:embed updraft.service
var unit string

const agentLong = `Run the device: discover the others, obtain the channel's newest release, verify and
install it, seed it, report. The release in service is what DATA/current links to:
DATA/current/NAME is the artifact. SIGTERM and SIGINT stop it cleanly.

Configuration file (--config FILE, YAML; unknown keys are refused; flags win):

  enrollment: ""            file that enroll made (required here or as a flag)
  data: ""                  directory of all state (required here or as a flag)
  poll: 15m                 time between looks for a release, for the whole site; 0s: only on "check"
  gateway: false            always on: prefer to hold the uplink, accept more peers; its
                            certificate must allow it (updraft enroll --role)
  listen: [/ip4/0.0.0.0/tcp/0, /ip6/::/tcp/0]   multiaddrs
  peers: []                 multiaddrs with /p2p/ID to connect to without discovery
  origins: []               replace those of the enrollment
  link: normal              class of the uplink: normal, metered, backup; better ones are preferred
  uplink_rate: 0            bytes per second from the origin; 0: unlimited
  lan_rate: 0               bytes per second to peers; 0: unlimited
  uplink_windows: []        cron expressions of the minutes in which the origin may be used
  looks_any_time: false     look for a release outside of these as well (some hundred bytes each)
  keep: 2                   releases on the device, with the one in service
  links: true               equal files of two releases are one file with two names, if only the agent's
                            user and root can write to it; false where an application that runs as
                            one of them writes to files of its own release
  mdns: true                find the site's devices by multicast
  interfaces: []            for multicast; empty: all that can
  dht: false                find devices of other segments through bootstrap nodes
  bootstrap: []             multiaddrs with /p2p/ID
  memory: 33554432          bytes of heap for a patch decoder
  metrics: ""               host:port for Prometheus; empty: off
  metrics_token: ""         bearer token that requests for metrics must carry; a must beyond loopback
  hooks:                    programs at the steps of an install; empty: none
    stage: ""               after the release is complete, before it is in service
    commit: ""              after it has been put in service
    health: ""              must exit 0 for the release to stay, else it is rolled back
    rollback: ""            after the old release is back
    user: ""                run them as this user, who must be able to enter DATA
    timeout: 5m             of each

A file DATA/hold postpones installs while it exists. The agent runs on one processor
while that is enough, and lets its heap grow by half before it collects garbage; who sets
GOMAXPROCS or GOGC in its environment decides that instead.

The unit that --unit prints runs as root, which can do little more than give files their
owners and run hooks as another user. With --user NAME it runs as NAME, which can do none of
that: the enrollment must belong to NAME, with mode 0600; hooks run as NAME, so hooks.user
stays empty; and all files of a release belong to NAME, whoever owned them when they were
published.`

type agentOptions struct {
	config string
	unit   bool
	user   string
	flags  node.Config
	noMDNS bool
	rate   string
	lan    string
}

func newAgent(u *ui) *cobra.Command {
	o := agentOptions{flags: node.DefaultConfig()}
	c := &cobra.Command{
		Use:   "agent --enrollment FILE --data DIR",
		Short: "Run a device or a gateway",
		Long:  agentLong,
		Example: `  updraft agent --enrollment till-7.updraft --data /var/lib/updraft
  updraft agent --enrollment gw.updraft --data /var/lib/updraft --gateway
  updraft agent --enrollment till-7.updraft --data data --once      # update, then exit
  updraft agent --unit > /etc/systemd/system/updraft.service
  updraft agent --unit --user updraft > /etc/systemd/system/updraft.service`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.unit:
				text, err := unitOf(o.user)
				if err == nil {
					_, err = io.WriteString(u.out, text)
				}
				return err
			case o.user != "":
				return usagef("--user goes with --unit")
			}
			cfg, err := o.load(cmd)
			if err != nil {
				return err
			}
			cfg.Log = u.log()
			return runAgent(cmd.Context(), u, cfg)
		},
	}
	f, d := c.Flags(), &o.flags
	f.StringVar(&d.Enrollment, "enrollment", "", "file that enroll made (required here or in FILE)")
	f.StringVar(&d.Data, "data", "", "directory of all state (required here or in FILE)")
	f.StringVar(&o.config, "config", "", "YAML file, see above")
	f.BoolVar(&d.Gateway, "gateway", false, "prefer to hold the uplink, accept more peers")
	f.BoolVar(&d.Once, "once", false, "exit when the channel's newest release is in service")
	f.DurationVar(&d.Poll, "poll", d.Poll, "time between looks for a release; 0: only when told by check")
	f.StringSliceVar(&d.Listen, "listen", d.Listen, "multiaddrs to listen on")
	f.StringSliceVar(&d.Peers, "peer", nil, "multiaddr with /p2p/ID of a device to connect to; may be repeated")
	f.StringSliceVar(&d.Origins, "origin", nil, "URL or directory of the origin, in place of the enrollment's; may be repeated")
	f.StringSliceVar(&d.Interfaces, "interface", nil, "network interface for multicast; may be repeated (default: all that can)")
	f.StringVar(&d.Link, "link", d.Link, "class of the uplink: normal, metered or backup")
	f.StringVar(&o.rate, "uplink-rate", "0", "limit of downloads from the origin, such as 2mbit; 0: none")
	f.StringVar(&o.lan, "lan-rate", "0", "limit of what is sent to peers; 0: none")
	f.BoolVar(&o.noMDNS, "no-mdns", false, "do not use multicast")
	f.BoolVar(&o.unit, "unit", false, "print the systemd unit and exit")
	f.StringVar(&o.user, "user", "", "with --unit: run as this user, not as root; see above")
	return c
}

// unitOf returns the systemd unit of an agent that runs as a user; empty: root. Its group is
// that user's own.
func unitOf(user string) (string, error) {
	if user == "" {
		return unit, nil
	}
	if user == "root" || user == "0" || strings.Trim(strings.ToLower(user), "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
		return "", usagef("--user: %q names no user without the rights of root", user)
	}
	text, rest, _ := strings.Cut(unit, "# Owners and modes")
	_, rest, _ = strings.Cut(rest, "CAP_KILL\n")
	return strings.Replace(text, "DynamicUser=no", "User="+user+"\nDynamicUser=no", 1) + "CapabilityBoundingSet=\n" + rest, nil
}

// load joins defaults, the configuration file and the flags that were given.
func (o *agentOptions) load(cmd *cobra.Command) (node.Config, error) {
	cfg := node.DefaultConfig()
	var err error
	if o.config != "" {
		if cfg, err = node.LoadConfig(o.config, cfg); err != nil {
			return cfg, err
		}
	}
	for _, r := range []struct {
		flag, value string
		to          *int64
	}{{"uplink-rate", o.rate, &o.flags.UplinkRate}, {"lan-rate", o.lan, &o.flags.LANRate}} {
		if *r.to, err = parseRate(r.value); err != nil {
			return cfg, usagef("--%s: %w", r.flag, err)
		}
	}
	given := cmd.Flags().Changed
	d := &o.flags
	cfg.Once = d.Once
	take(given("enrollment"), &cfg.Enrollment, d.Enrollment)
	take(given("data"), &cfg.Data, d.Data)
	take(given("gateway"), &cfg.Gateway, d.Gateway)
	take(given("poll"), &cfg.Poll, d.Poll)
	take(given("listen"), &cfg.Listen, d.Listen)
	take(given("peer"), &cfg.Peers, d.Peers)
	take(given("origin"), &cfg.Origins, d.Origins)
	take(given("interface"), &cfg.Interfaces, d.Interfaces)
	take(given("link"), &cfg.Link, d.Link)
	take(given("uplink-rate"), &cfg.UplinkRate, d.UplinkRate)
	take(given("lan-rate"), &cfg.LANRate, d.LANRate)
	take(given("no-mdns"), &cfg.MDNS, !o.noMDNS)
	switch {
	case cfg.Enrollment == "":
		return cfg, usagef("--enrollment is missing")
	case cfg.Data == "":
		return cfg, usagef("--data is missing")
	}
	return cfg, nil
}

func take[T any](given bool, to *T, from T) {
	if given {
		*to = from
	}
}

// runAgent runs a node until ctx ends, or with Once until its work is done, of which it
// prints the outcome. It tells systemd how the node is.
func runAgent(ctx context.Context, u *ui, cfg node.Config) error {
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	defer lean()()
	watch, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { tellSystemd(watch, report.Dial(cfg.Data)) })
	beside.Go(func() { matchProcs(watch) })
	err = n.Run(ctx)
	stop()
	beside.Wait()
	switch {
	case ctx.Err() != nil && !cfg.Once && errors.Is(err, context.Canceled):
		return nil
	case ctx.Err() != nil && cfg.Once && err == nil:
		return ctx.Err() // the release may not be in service
	case err == nil && cfg.Once:
		return done(u, n.Status())
	}
	return err
}

// done prints what an agent that ran once has come to.
func done(u *ui, s report.Status) error {
	s.Format = report.StatusFormat
	return u.result(s, func(w io.Writer) {
		fmt.Fprintf(w, "%s is the newest and in service; %s came over the uplink, %s over the LAN.\n", s.Current, size(s.Bytes.Uplink), size(s.Bytes.LANIn))
	})
}

// leanPercent is how far the heap of an agent grows beyond what lives before the collector runs, unless GOGC says
// otherwise: half as far as usual. What lives is at most buffers, which cost the collector next to nothing to look at,
// and what is garbage among them when most members are written to at once would stay for the rest of a release.
const leanPercent = 50

// lean keeps the garbage of an agent small. It returns what ends it.
func lean() func() {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	return collectAt(leanPercent)
}

// readyPoll is how often a starting agent is asked whether it answers.
const readyPoll = 100 * time.Millisecond

// tellSystemd says READY when the agent answers on its control socket, feeds the
// watchdog while it does, and says STOPPING when ctx ends. Without systemd it only
// waits.
func tellSystemd(ctx context.Context, agent *report.Client) {
	if ok, err := daemon.SdNotify(false, "STATUS=starting"); !ok || err != nil {
		return
	}
	for {
		if _, err := agent.Status(ctx); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(readyPoll):
		}
	}
	notify("READY=1")
	every := 10 * time.Second
	if dog, err := daemon.SdWatchdogEnabled(false); err == nil && dog > 0 {
		every = dog / 3
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if s, err := agent.Status(ctx); err == nil {
			notify(fmt.Sprintf("WATCHDOG=1\nSTATUS=%s, %s in service, %d peers, %d problems", s.State, orNone(s.Current), s.Peers, len(s.Problems)))
		}
		select {
		case <-ctx.Done():
			notify("STOPPING=1")
			return
		case <-tick.C:
		}
	}
}

// notify tells systemd; there is nobody to tell of a failure.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

func orNone(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
