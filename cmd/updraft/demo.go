package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"updraft/testnet"
	"updraft/testnet/fixture"
)

// The generated releases: an application of this size, of which this share of the
// functions changes.
const (
	demoSize   = 20_000_000
	demoShare  = 0.01
	demoSeed   = 20_26
	demoUplink = "20mbit"
)

type demoOptions struct {
	devices int
	uplink  string
	keep    bool
	timeout time.Duration
}

func newDemo(u *ui) *cobra.Command {
	o := demoOptions{}
	c := &cobra.Command{
		Use:   "demo [OLD NEW]",
		Short: "See it work on this machine",
		Long: `Play a site on this machine, without root: a fleet, an origin behind an uplink of
20 Mbit/s, a gateway and 8 devices. Each is this program in a process and a directory
of its own; they find each other by multicast DNS and talk over libp2p. Release 1.0.0
comes to a site that has nothing, then 1.1.0 comes as a patch. With OLD and NEW, files
or directories, those are the releases; otherwise an application is made up.

Everything is removed at the end, also after an interrupt.`,
		Example: "  updraft demo\n  updraft demo --json\n  updraft demo app-1.0 app-1.1",
		Args: usageArgs(func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return fmt.Errorf("demo takes no paths, or two: OLD NEW")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			return demo(cmd.Context(), u, o, args)
		},
	}
	f := c.Flags()
	f.IntVar(&o.devices, "devices", 8, "devices besides the gateway")
	f.StringVar(&o.uplink, "uplink", demoUplink, "rate of the uplink")
	f.BoolVar(&o.keep, "keep", false, "leave the directory, with all logs, for a look")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "give up on a release after so long")
	return c
}

func demo(ctx context.Context, u *ui, o demoOptions, paths []string) (err error) {
	rate, err := parseRate(o.uplink)
	if err != nil {
		return usageError{err}
	}
	if o.devices < 1 || o.devices > 60 {
		return usagef("--devices %d is not between 1 and 60", o.devices)
	}
	argv, err := program()
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "updraft-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if paths, err = demoReleases(u, temp, paths); err != nil {
		return err
	}
	u.note("Making a fleet, an origin behind %s, a gateway and %d devices.", o.uplink, o.devices)
	site, err := testnet.New(ctx, testnet.Config{Program: argv, Devices: o.devices, Gateway: true, Uplink: rate, Keep: o.keep})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, site.Close())
		if o.keep {
			u.note("The site's files are in %s", site.Dir())
		}
	}()
	var rollouts []testnet.Rollout
	for i, version := range []string{"1.0.0", "1.1.0"} {
		u.note("Publishing %s.", version)
		r, err := site.Publish(ctx, version, paths[i])
		if err != nil {
			return err
		}
		if i == 0 {
			u.note("Starting the agents; they look for each other.")
			if err := site.Boot(ctx, site.Nodes()...); err != nil {
				return err
			}
		}
		u.note("Rolling out %s.", version)
		out, err := showRollout(ctx, u, site, r, testnet.RolloutOptions{Timeout: o.timeout})
		if out != nil {
			rollouts = append(rollouts, *out)
		}
		if err != nil {
			return giveUp(u, site.Ground(), rate, rollouts, err)
		}
	}
	return conclude(u, testnet.Sum(site.Ground(), rate, rollouts))
}

// demoReleases returns the paths of the two releases.
func demoReleases(u *ui, dir string, paths []string) ([]string, error) {
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return nil, err
		}
	}
	if len(paths) == 2 {
		return paths, nil
	}
	u.note("Making up an application of %s and its next release.", size(demoSize))
	p := fixture.New(demoSeed, demoSize)
	for i, b := range [][]byte{p.Bytes(), p.Edit(demoSeed, "1.1.0", demoShare).Bytes()} {
		path := filepath.Join(dir, fmt.Sprintf("app-%d", i))
		if err := os.WriteFile(path, b, 0o755); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// showRollout rolls a release out and shows it.
func showRollout(ctx context.Context, u *ui, site *testnet.Site, r *testnet.Release, o testnet.RolloutOptions) (*testnet.Rollout, error) {
	view := newRolloutView(u)
	o.Progress = view.show
	out, err := site.Rollout(ctx, r, o)
	view.end()
	return out, err
}

// giveUp prints what was measured before a rollout failed.
func giveUp(u *ui, ground string, rate int64, rollouts []testnet.Rollout, cause error) error {
	if errors.Is(cause, context.Canceled) || len(rollouts) == 0 {
		return cause
	}
	r := testnet.Sum(ground, rate, rollouts)
	return errors.Join(cause, u.result(r, func(w io.Writer) { printResult(w, r) }))
}

// conclude prints the result; devices without the release make it an error.
func conclude(u *ui, r *testnet.Result) error {
	if err := u.result(r, func(w io.Writer) { printResult(w, r) }); err != nil {
		return err
	}
	if r.Converged != r.Devices {
		return fmt.Errorf("%w: %d of %d", errNotConverged, r.Converged, r.Devices)
	}
	return nil
}
