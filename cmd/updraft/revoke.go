package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"updraft/node/fleet"
	"updraft/node/identity"
)

func newRevoke(u *ui) *cobra.Command {
	var dir, reason string
	var undo bool
	c := &cobra.Command{
		Use:   "revoke --fleet DIR [NAME...]",
		Short: "Take devices out of the fleet",
		Long: `Take back the certificates of devices and publish the signed list of all that are
revoked. The list travels like the rest of the metadata: each device that learns of it,
from the origin or from a neighbour, closes its connections with those on it and admits
them no more. A device that is enrolled anew (updraft enroll --replace) is admitted again;
it stays on the list, which keeps out its certificates from before, and that is not undone.
The order counts: revoked after it was enrolled anew, it loses the new certificate, too.

Without names it prints the list. No key that is kept offline is needed.

Whoever reaches the origin can read there which devices are revoked, by name, and since
when, also after it was undone. The reason is kept in the fleet's directory and is not
published; earlier versions of this program did publish it.`,
		Example: `  updraft revoke --fleet fleet till-7 --reason stolen
  updraft revoke --fleet fleet till-7 --undo
  updraft revoke --fleet fleet`,
		RunE: func(_ *cobra.Command, names []string) error {
			if len(names) == 0 && (undo || reason != "") {
				return usagef("no device is named")
			}
			f, err := fleet.Open(dir, fleet.Options{Keys: u.keys()})
			if err != nil {
				return err
			}
			var list identity.Revocations
			switch {
			case len(names) == 0:
				list, err = f.Revocations()
			case undo:
				list, err = f.Restore(names...)
			default:
				list, err = f.Revoke(reason, names...)
			}
			if err != nil {
				return err
			}
			return revoked(u, list)
		},
	}
	c.Flags().StringVar(&dir, "fleet", "", "directory of the fleet (required)")
	c.Flags().StringVar(&reason, "reason", "", "why, for those who read this list; at most 256 bytes, not published")
	c.Flags().BoolVar(&undo, "undo", false, "take the devices back in with the certificates they have")
	required(c, "fleet")
	return c
}

func revoked(u *ui, list identity.Revocations) error {
	type row struct {
		Name   string    `json:"name"`
		At     time.Time `json:"at"`
		Reason string    `json:"reason,omitempty"`
	}
	rows := []row{}
	text := [][]string{{"DEVICE", "REVOKED", "REASON"}}
	for _, r := range list {
		at := time.Unix(r.At, 0).UTC()
		rows = append(rows, row{r.Name, at, r.Reason})
		text = append(text, []string{r.Name, at.Format(time.RFC3339), r.Reason})
	}
	return u.result(map[string]any{"revoked": rows}, func(w io.Writer) {
		if len(rows) == 0 {
			fmt.Fprintln(w, "No device is revoked.")
			return
		}
		table(w, text)
	})
}
