package main

import (
	"log/slog"

	"github.com/spf13/cobra"
)

const rootLong = `updraft brings releases to the devices of a site that share one scarce uplink.
The site downloads a release once, as the smallest delta from anything that some
device there already holds; the devices exchange the rest over the LAN, and each
verifies for itself, installs atomically and reports.`

const rootExample = `  updraft demo                                     see it work on this machine
  updraft init fleet                               a root of trust and an empty origin
  updraft publish --fleet fleet --channel stable --version 1.0.0 ./app
  updraft serve fleet/origin --listen :8080        or any static web server
  updraft enroll --fleet fleet --name till-7 --type rpi4 --site store-12 \
      --origin http://updates.example:8080 -o till-7.updraft
  updraft agent --enrollment till-7.updraft --data /var/lib/updraft`

// Groups of commands in the help.
const (
	groupPublish = "publish"
	groupDevice  = "device"
	groupTry     = "try"
)

func newRoot(u *ui) *cobra.Command {
	root := &cobra.Command{
		Use:           "updraft",
		Short:         "One download for a whole site",
		Long:          rootLong,
		Example:       rootExample,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddGroup(
		&cobra.Group{ID: groupTry, Title: "Try it:"},
		&cobra.Group{ID: groupPublish, Title: "Publish:"},
		&cobra.Group{ID: groupDevice, Title: "On a device:"},
	)
	f := root.PersistentFlags()
	f.BoolVar(&u.json, "json", false, "print one JSON value to standard output, and no progress")
	f.BoolVarP(&u.quiet, "quiet", "q", false, "no progress and no remarks")
	f.StringVar(&u.level, "log-level", "info", "least level of log records: debug, info, warn or error")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		var l slog.Level
		if err := l.UnmarshalText([]byte(u.level)); err != nil {
			return usagef("--log-level %q is none of debug, info, warn, error", u.level)
		}
		return nil
	}
	add(root, groupTry, newDemo(u), newTestnet(u))
	add(root, groupPublish, newInit(u), newPublish(u), newRefresh(u), newRootKeys(u), newServe(u), newEnroll(u), newToken(u), newRenew(u), newRevoke(u))
	add(root, groupDevice, newAgent(u), newCheck(u), newStatus(u), newPlan(u), newPeers(u), newSite(u), newFetch(u), newVerify(u))
	root.AddCommand(newDelta(u), newVersion(u), newExitCodes())
	return root
}

func add(root *cobra.Command, group string, cmds ...*cobra.Command) {
	for _, c := range cmds {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// usageArgs makes what a positional argument check refuses an error of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// newExitCodes is a help topic: it has no run function.
func newExitCodes() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitHelp}
}
