package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"updraft/testnet"
)

// program returns how to run this program again.
func program() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return []string{self}, nil
}

// rolloutView shows a rollout as it goes: a bar for the uplink and each device on a
// terminal, else a line now and then.
type rolloutView struct {
	u       *ui
	uplink  *meter
	devices map[string]*meter
}

func newRolloutView(u *ui) *rolloutView {
	return &rolloutView{u: u, uplink: u.meter("uplink"), devices: map[string]*meter{}}
}

func (v *rolloutView) show(s testnet.Snapshot) {
	done := 0
	for _, d := range s.Devices {
		if d.Done {
			done++
		}
	}
	v.uplink.set(min(s.Uplink, max(s.Needed, 1)), s.Needed, fmt.Sprintf("%.1f s, %d of %d devices done", s.Elapsed.Seconds(), done, len(s.Devices)))
	if !v.u.tty || v.u.json || v.u.quiet {
		return
	}
	for _, d := range s.Devices {
		m := v.devices[d.Name]
		if m == nil {
			m = v.u.meter(d.Name)
			v.devices[d.Name] = m
		}
		text := d.State
		if d.Holder && !d.Done {
			text += ", downloads for the site"
		}
		m.set(d.Have, max(d.Total, 1), text)
	}
}

// end takes the bars away or leaves them as they are.
func (v *rolloutView) end() {
	v.uplink.end("")
	for _, m := range v.devices {
		m.end("")
	}
	v.u.finish()
}

// printResult prints what a demo or a testnet measured.
func printResult(w io.Writer, r *testnet.Result) {
	for _, o := range r.Rollouts {
		fmt.Fprintf(w, "\nRelease %s", o.Version)
		if len(o.Killed) > 0 {
			fmt.Fprintf(w, " (killed on the way and started again: %s)", strings.Join(o.Killed, ", "))
		}
		fmt.Fprintln(w)
		rows := [][]string{{"DEVICE", "AFTER", "FROM ORIGIN", "FROM SITE", "REUSED", "SENT", "WRITTEN", "CPU", "PEAK RSS", "SHA-256 IN SERVICE"}}
		for _, d := range o.List {
			state := short(d.Digest)
			if !d.Converged {
				state = orNone(d.Version) + " in service"
			}
			rows = append(rows, []string{d.Name, fmt.Sprintf("%.2f s", d.Seconds), size(d.Uplink), size(d.LAN), size(d.Reused), size(d.LANOut),
				size(d.Written), fmt.Sprintf("%.2f s", d.CPU), size(d.PeakRSS), state})
		}
		table(w, rows)
		for _, d := range o.List {
			for _, p := range d.Problems {
				fmt.Fprintf(w, "! %s: %s\n", d.Name, p)
			}
		}
	}
	fmt.Fprintln(w)
	rows := [][]string{{"RELEASE", "DEVICES", "UPLINK CARRIED", "NEEDED", "RATIO", "WITHOUT UPDRAFT", "SAVED", "FIRST", "LAST", "BOUND", "PUBLISHED SHA-256"}}
	for _, o := range r.Rollouts {
		rows = append(rows, []string{o.Version, fmt.Sprintf("%d of %d", o.Converged, o.Devices), size(o.UplinkBytes), size(o.NeededBytes),
			fmt.Sprintf("%.3f", o.UplinkRatio), size(o.WithoutBytes), saved(o.UplinkBytes, o.WithoutBytes), fmt.Sprintf("%.2f s", o.FirstS),
			fmt.Sprintf("%.2f s", o.LastS), fmt.Sprintf("%.2f s", o.BoundS), short(o.Digest)})
	}
	table(w, rows)
	fmt.Fprintf(w, "\nUplink carried: bytes counted at the origin's link (%s), towards the site. Needed: packs, patches and metadata\n"+
		"that had to come. Without updraft: every device downloads every release, compressed. Bound: needed / uplink rate.\n", r.Ground)
	if r.Converged == r.Devices {
		fmt.Fprintf(w, "\nAll %d devices have the release in service: the digests were taken from their files by this program.\n", r.Devices)
	}
}

func short(digest string) string {
	if len(digest) > 16 {
		return digest[:16] + "…"
	}
	return digest
}

func saved(carried, without int64) string {
	if without <= 0 || carried > without {
		return "-"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", 100-100*float64(carried)/float64(without)), ".0") + " %"
}
