package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"updraft/node/fleet"
)

func newRefresh(u *ui) *cobra.Command {
	var dir, rotate string
	c := &cobra.Command{
		Use:   "refresh --fleet DIR",
		Short: "Sign anew what would expire",
		Long: `Sign a new timestamp, and everything else of which less than half of its life is left
and whose key is at hand. Run it regularly, for example once a week from a timer:
devices refuse metadata that has expired, so that nobody can freeze them.

With --rotate the key of a role (root, targets, snapshot or timestamp) is replaced;
that needs the root key. Devices follow by themselves. Rotating timestamp also takes back
a time that was signed while this machine's clock was ahead, for enrollments as well:
devices go by it until then.`,
		Example: "  updraft refresh --fleet fleet\n  updraft refresh --fleet fleet --rotate timestamp",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			f, err := fleet.Open(dir, fleet.Options{Keys: u.keys()})
			if err != nil {
				return err
			}
			signed := []string{}
			if rotate != "" {
				if err := f.Rotate(rotate); err != nil {
					return err
				}
			} else if signed, err = f.Refresh(); err != nil {
				return err
			}
			return refreshed(u, f, signed, rotate)
		},
	}
	c.Flags().StringVar(&dir, "fleet", "", "directory of the fleet (required)")
	c.Flags().StringVar(&rotate, "rotate", "", "replace the key of this role")
	required(c, "fleet")
	return c
}

// refreshed prints what was signed and what expires when.
func refreshed(u *ui, f *fleet.Fleet, signed []string, rotated string) error {
	repo, err := f.Repo()
	if err != nil {
		return err
	}
	type expiry struct {
		Role    string    `json:"role"`
		Version int64     `json:"version"`
		Expires time.Time `json:"expires"`
		Key     bool      `json:"key_at_hand"`
	}
	list := []expiry{}
	for _, e := range repo.Expiries() {
		list = append(list, expiry{e.Role, e.Version, e.Expires.UTC(), e.Key})
	}
	return u.result(map[string]any{"signed": signed, "rotated": rotated, "roles": list}, func(w io.Writer) {
		if rotated != "" {
			fmt.Fprintf(w, "The key of %s is a new one.\n", rotated)
		} else {
			fmt.Fprintf(w, "Signed: %s.\n", strings.Join(signed, ", "))
		}
		rows := [][]string{{"ROLE", "VERSION", "EXPIRES", "KEY"}}
		for _, e := range list {
			key := "at hand"
			if !e.Key {
				key = "elsewhere"
			}
			rows = append(rows, []string{e.Role, fmt.Sprint(e.Version), e.Expires.Format(time.DateOnly), key})
		}
		table(w, rows)
	})
}
