package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"updraft/node/fleet"
)

// What init seals.
const (
	sealOffline = "offline"
	sealAll     = "all"
)

func newInit(u *ui) *cobra.Command {
	var o fleet.Options
	var seal string
	c := &cobra.Command{
		Use:   "init DIR",
		Short: "Make a fleet: root of trust, keys and an empty origin",
		Long: `Make a fleet in DIR, which must be empty or not exist: the root of trust, the
signing keys, the authority for device certificates, and an empty origin. The keys
stay in DIR/keys; DIR/origin is what a web server serves.

With --root-keys and --root-threshold, root has several keys, and so many of them must
sign: keep each with somebody else. A thief of fewer gets nowhere, and when one is lost
the others replace it (updraft refresh --rotate root). The same goes for targets.

With --seal the files of these keys are sealed with a passphrase (age's format), which
is asked for when they are needed, or taken from UPDRAFT_PASSPHRASE, or from the file
that UPDRAFT_PASSPHRASE_FILE names. With --seal=all so are all others: those that sign
releases and revocations, certificates, and the site secret. Whoever publishes, enrolls
or refreshes needs the passphrase then, a timer too.`,
		Example: "  updraft init fleet --name shops\n  updraft init fleet --root-keys 3 --root-threshold 2",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			o.Keys = u.keys()
			switch seal {
			case "":
			case sealOffline:
				o.Seal = true
			case sealAll:
				o.SealAll = true
			default:
				return usagef("--seal=%s is none of %s, %s", seal, sealOffline, sealAll)
			}
			f, err := fleet.Init(args[0], o)
			if err != nil {
				return err
			}
			dir := args[0]
			if abs, err := filepath.Abs(dir); err == nil {
				dir = abs
			}
			v := map[string]any{"fleet": dir, "name": f.Name(), "origin": f.Origin(), "keep_offline": f.Offline()}
			return u.result(v, func(w io.Writer) {
				fmt.Fprintf(w, "Fleet %s is in %s.\n\n", f.Name(), dir)
				fmt.Fprintf(w, "After the first release of each channel, keep these keys offline (they are needed to\nopen a channel, to rotate keys, and once a year):\n")
				for _, k := range f.Offline() {
					fmt.Fprintf(w, "  %s\n", k)
				}
				fmt.Fprintf(w, "Back up all of %s; who has it can sign for the fleet.\n\n", filepath.Join(dir, "keys"))
				fmt.Fprintf(w, "Next:\n  updraft publish --fleet %s --channel stable --version 1.0.0 PATH\n", args[0])
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.Name, "name", "", "name of the fleet (default: the directory's)")
	f.StringVar(&seal, "seal", "", "seal keys with a passphrase: offline, those of root and targets (the default), or all")
	f.Lookup("seal").NoOptDefVal = sealOffline
	f.IntVar(&o.Root.Keys, "root-keys", 1, "keys of the root, at most 16")
	f.IntVar(&o.Root.Threshold, "root-threshold", 1, "root keys that must sign")
	f.IntVar(&o.Targets.Keys, "targets-keys", 1, "keys that open channels, at most 16")
	f.IntVar(&o.Targets.Threshold, "targets-threshold", 1, "targets keys that must sign")
	return c
}
