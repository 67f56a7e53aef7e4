package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"updraft/delta/release"
	"updraft/node/fleet"
)

// maxRootFile bounds what is read as a root or a public key, in bytes.
const maxRootFile = 64 << 10

func newRootKeys(u *ui) *cobra.Command {
	c := &cobra.Command{
		Use:   "root",
		Short: "Sign the root of trust on other machines",
		Long: `The keys of the root need not come near the machine that publishes. Each of their
holders makes one where it shall stay; the publisher exports a root with them, the
holders of the old keys and of the new ones sign it, and the publisher imports it.
Later roots, which replace keys or are due once a year, go the same way.`,
		Example: `  each holder       updraft root key -o anna.key              (and brings anna.key.pub)
  at the fleet      updraft root export --fleet fleet --key anna.key.pub --key ben.key.pub \
                        --key carl.key.pub --threshold 2 -o next.json
                    updraft root sign --key fleet/keys/root.key next.json
  two holders       updraft root sign --key anna.key next.json
  at the fleet      updraft root import --fleet fleet next.json
                    shred -u fleet/keys/root.key`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newRootKey(u), newRootExport(u), newRootSign(u), newRootImport(u))
	return c
}

func newRootKey(u *ui) *cobra.Command {
	var out string
	var seal bool
	c := &cobra.Command{
		Use:     "key -o FILE",
		Short:   "Make a key; its public half goes to FILE.pub",
		Example: "  updraft root key -o anna.key",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			create := release.NewKey
			if seal {
				create = u.keys().Make
			}
			key, err := create(out)
			if err != nil {
				return err
			}
			pub, err := release.MarshalPublic(key)
			if err != nil {
				return err
			}
			if err := os.WriteFile(out+".pub", pub, 0o644); err != nil {
				return err
			}
			return u.result(map[string]any{"key": out, "public": out + ".pub"}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is the key: it stays with you. Bring %s.pub to the fleet.\n", out, out)
			})
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "file to write, mode 0600; must not exist (required)")
	c.Flags().BoolVar(&seal, "seal", false, "seal it with a passphrase, asked for or from UPDRAFT_PASSPHRASE or UPDRAFT_PASSPHRASE_FILE")
	required(c, "output")
	return c
}

func newRootExport(u *ui) *cobra.Command {
	var dir, out string
	var public []string
	var change release.RootChange
	c := &cobra.Command{
		Use:     "export --fleet DIR -o FILE",
		Short:   "Write the next root, to be signed",
		Example: "  updraft root export --fleet fleet --rotate timestamp -o next.json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			for _, path := range public {
				text, err := readLimited(path, maxRootFile)
				if err != nil {
					return err
				}
				key, err := release.ParsePublic(text)
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				change.Keys = append(change.Keys, key)
			}
			f, err := fleet.Open(dir, fleet.Options{Keys: u.keys()})
			if err != nil {
				return err
			}
			if err := outdated(out, f); err != nil {
				return err
			}
			root, err := f.NextRoot(change)
			if err != nil {
				return err
			}
			return writeRoot(u, out, root)
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "fleet", "", "directory of the fleet (required)")
	f.StringVarP(&out, "output", "o", "", "file to write (required)")
	f.StringArrayVar(&public, "key", nil, "public key of the root from now on; may be repeated (default: the keys stay)")
	f.IntVar(&change.Threshold, "threshold", 0, "with --key: how many of them must sign (default 1)")
	f.StringArrayVar(&change.Rotate, "rotate", nil, "replace the keys of this role: targets, snapshot or timestamp; may be repeated")
	required(c, "fleet", "output")
	return c
}

// outdated fails if out is there and is not a root that f has had: holders may have signed it.
func outdated(out string, f *fleet.Fleet) error {
	b, err := readLimited(out, maxRootFile)
	if err != nil {
		return vacant(out)
	}
	repo, err := f.Repo()
	if err != nil {
		return err
	}
	root, err := repo.Root()
	if err != nil {
		return err
	}
	had, err := release.InspectRoot(b)
	if now, nerr := release.InspectRoot(root); err == nil && nerr == nil && had.Version <= now.Version {
		return nil
	}
	return vacant(out)
}

func newRootSign(u *ui) *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "sign --key FILE ROOT",
		Short: "Add a signature to an exported root",
		Long: `Add the key's signature to ROOT, in place, and print what ROOT says: look whether that
is what you were told before you hand it on.`,
		Example: "  updraft root sign --key anna.key next.json",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := u.keys().Read(keyFile)
			if err != nil {
				return err
			}
			root, err := readLimited(args[0], maxRootFile)
			if err != nil {
				return err
			}
			if root, err = release.SignRoot(root, key); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return writeRoot(u, args[0], root)
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "file of the key (required)")
	required(c, "key")
	return c
}

func newRootImport(u *ui) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:     "import --fleet DIR ROOT",
		Short:   "Publish a root that was signed",
		Example: "  updraft root import --fleet fleet next.json",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			root, err := readLimited(args[0], maxRootFile)
			if err != nil {
				return err
			}
			f, err := fleet.Open(dir, fleet.Options{Keys: u.keys()})
			if err != nil {
				return err
			}
			if err := f.ImportRoot(root); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return tellRoot(u, args[0], root)
		},
	}
	c.Flags().StringVar(&dir, "fleet", "", "directory of the fleet (required)")
	required(c, "fleet")
	return c
}

func writeRoot(u *ui, path string, root []byte) error {
	if err := renameio.WriteFile(path, root, 0o644); err != nil {
		return err
	}
	return tellRoot(u, path, root)
}

// tellRoot prints what a root says.
func tellRoot(u *ui, path string, root []byte) error {
	info, err := release.InspectRoot(root)
	if err != nil {
		return err
	}
	type role struct {
		Keys      []string `json:"keys"`
		Threshold int      `json:"threshold"`
	}
	roles := map[string]role{}
	rows := [][]string{{"ROLE", "THRESHOLD", "KEY", ""}}
	for _, name := range []string{"root", "targets", "snapshot", "timestamp"} {
		roles[name] = role{info.Keys[name], info.Threshold[name]}
		for _, id := range info.Keys[name] {
			mark := ""
			if slices.Contains(info.Signatures, id) {
				mark = "signed"
			}
			rows = append(rows, []string{name, fmt.Sprint(info.Threshold[name]), id[:min(len(id), 16)], mark})
		}
	}
	v := map[string]any{"file": path, "version": info.Version, "expires": info.Expires.UTC(), "roles": roles, "signatures": info.Signatures}
	return u.result(v, func(w io.Writer) {
		fmt.Fprintf(w, "Root %d, valid until %s, %d signatures.\n", info.Version, info.Expires.UTC().Format(time.DateOnly), len(info.Signatures))
		table(w, rows)
	})
}
