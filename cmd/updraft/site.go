package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"updraft/node"
	"updraft/node/report"
)

type siteOptions struct {
	enrollment string
	quiet      time.Duration
	peers      []string
	listen     []string
	interfaces []string
	noMDNS     bool
}

func newSite(u *ui) *cobra.Command {
	var o siteOptions
	c := &cobra.Command{
		Use:   "site --enrollment FILE",
		Short: "Ask all devices of a site how they are",
		Long: `Join the site for some seconds and ask each device for its status: what is in service,
what it does, what is wrong. That takes an enrollment with the role of an operator
(updraft enroll --role operator), for this site, that no agent runs with. Devices answer
nobody else. Nothing is downloaded or installed here.`,
		Example: `  updraft enroll --fleet fleet --name anna --site store-12 --role operator -o anna.updraft
  updraft site --enrollment anna.updraft`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return site(cmd.Context(), u, o) },
	}
	f := c.Flags()
	f.StringVar(&o.enrollment, "enrollment", "", "file that enroll made (required)")
	f.DurationVar(&o.quiet, "wait", 5*time.Second, "go on until no further device has come for so long")
	f.StringSliceVar(&o.peers, "peer", nil, "multiaddr with /p2p/ID of a device to connect to; may be repeated")
	f.StringSliceVar(&o.listen, "listen", nil, "multiaddrs to listen on")
	f.StringSliceVar(&o.interfaces, "interface", nil, "network interface for multicast; may be repeated (default: all that can)")
	f.BoolVar(&o.noMDNS, "no-mdns", false, "do not use multicast")
	required(c, "enrollment")
	return c
}

func site(ctx context.Context, u *ui, o siteOptions) (err error) {
	temp, err := os.MkdirTemp("", "updraft-site-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	cfg := node.DefaultConfig()
	cfg.Enrollment, cfg.Data = o.enrollment, filepath.Join(temp, "data")
	cfg.Peers, cfg.Interfaces, cfg.MDNS, cfg.Log = o.peers, o.interfaces, !o.noMDNS, u.quietLog()
	if len(o.listen) > 0 {
		cfg.Listen = o.listen
	}
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	list, err := n.Survey(ctx, o.quiet)
	if err != nil {
		return err
	}
	if list == nil {
		list = []node.Answer{}
	}
	return u.result(list, func(w io.Writer) { printSite(w, list) })
}

func printSite(w io.Writer, list []node.Answer) {
	if len(list) == 0 {
		fmt.Fprintln(w, "No device of the site was found.")
		return
	}
	rows := [][]string{{"NAME", "TYPE", "ROLE", "IN SERVICE", "NEWEST", "STATE", "PEERS", "PROBLEMS"}}
	for _, a := range list {
		s := a.Status
		if s == nil {
			rows = append(rows, []string{a.Name, "", "", "", "", "no answer"})
			continue
		}
		state := s.State
		if p := s.Progress; p != nil && p.Total > 0 {
			state += fmt.Sprintf(", %d %%", 100*p.Have/p.Total)
		}
		rows = append(rows, []string{a.Name, s.Type, s.Role, orNone(s.Current), orNone(s.Target), state, fmt.Sprint(s.Peers), fmt.Sprint(len(s.Problems))})
	}
	table(w, rows)
	for _, a := range list {
		if a.Status == nil {
			fmt.Fprintf(w, "! %s: %s\n", a.Name, a.Error)
			continue
		}
		for _, p := range a.Status.Problems {
			fmt.Fprintf(w, "! %s: %s\n", a.Name, problemLine(p))
		}
	}
}

func problemLine(p report.Problem) string {
	return fmt.Sprintf("%s (%s, %d times, last %s): %s", p.Code, p.Subject, p.Count, ago(p.Last), p.Text)
}

// plainWriter keeps what other devices and the origin say from steering a terminal.
type plainWriter struct{ w io.Writer }

func (p plainWriter) Write(b []byte) (int, error) {
	plain := bytes.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return '?'
		}
		return r
	}, b)
	if _, err := p.w.Write(plain); err != nil {
		return 0, err
	}
	return len(b), nil
}
