package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"updraft/node/fleet"
)

func newRenew(u *ui) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "renew --fleet DIR [NAME...]",
		Short: "Sign new certificates for devices whose own near their end",
		Long: `Sign a new certificate, for the key it has, for each device of whose certificate a third
of its validity is left or less, and put it at the origin. Run it regularly, for example
once a week from a timer: nobody has to visit a device to renew its certificate. Devices
find their own with their next look, and bring it to neighbours that reach no origin.

With names it does so for these devices, however much is left. Devices that are revoked
are left out. The files at the origin have names that only devices of the site can tell.`,
		Example: "  updraft renew --fleet fleet\n  updraft renew --fleet fleet till-7",
		RunE: func(_ *cobra.Command, names []string) error {
			f, err := fleet.Open(dir, fleet.Options{Keys: u.keys()})
			if err != nil {
				return err
			}
			list, err := f.Renew(names...)
			if err != nil {
				return err
			}
			return renewed(u, list)
		},
	}
	c.Flags().StringVar(&dir, "fleet", "", "directory of the fleet (required)")
	required(c, "fleet")
	return c
}

func renewed(u *ui, list []fleet.Device) error {
	type row struct {
		Name     string    `json:"name"`
		Site     string    `json:"site"`
		NotAfter time.Time `json:"not_after"`
	}
	rows := []row{}
	text := [][]string{{"DEVICE", "SITE", "VALID UNTIL"}}
	for _, d := range list {
		until := time.Unix(d.NotAfter, 0).UTC()
		rows = append(rows, row{d.Name, d.Site, until})
		text = append(text, []string{d.Name, d.Site, until.Format(time.DateOnly)})
	}
	return u.result(map[string]any{"renewed": rows}, func(w io.Writer) {
		if len(rows) == 0 {
			fmt.Fprintln(w, "No certificate nears its end.")
			return
		}
		table(w, text)
	})
}
