package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"updraft/node"
	"updraft/node/identity"
	"updraft/node/report"
)

type fetchOptions struct {
	enrollment string
	out        string
	origins    []string
	peers      []string
	noMDNS     bool
	listen     []string
}

func newFetch(u *ui) *cobra.Command {
	var o fetchOptions
	c := &cobra.Command{
		Use:   "fetch CHANNEL --enrollment FILE [-o PATH]",
		Short: "Get the newest release of a channel, without installing it",
		Long: `Get the newest release of a channel as a device of the site would: from its
neighbours, and from the origin what they do not have. PATH is written when all of it
has been verified; with one artifact PATH is that file or directory, with several a
directory that holds them. It must not exist.

Use an enrollment that no agent runs with: two programs with one identity get in each
other's way.`,
		Example: "  updraft fetch stable --enrollment laptop.updraft -o app",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return fetch(cmd.Context(), u, args[0], o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.enrollment, "enrollment", "", "file that enroll made (required)")
	f.StringVarP(&o.out, "output", "o", "", "where to (default: the artifact's name, or CHANNEL-VERSION)")
	f.StringSliceVar(&o.origins, "origin", nil, "URL or directory of the origin, in place of the enrollment's")
	f.StringSliceVar(&o.peers, "peer", nil, "multiaddr with /p2p/ID of a device to connect to; may be repeated")
	f.StringSliceVar(&o.listen, "listen", nil, "multiaddrs to listen on")
	f.BoolVar(&o.noMDNS, "no-mdns", false, "do not use multicast")
	required(c, "enrollment")
	return c
}

func fetch(ctx context.Context, u *ui, channel string, o fetchOptions) (err error) {
	e, err := identity.ReadEnrollment(o.enrollment)
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := vacant(o.out); err != nil {
			return err
		}
	}
	e.Channel = channel
	// The work happens beside the target, so that the last step is a rename.
	temp, err := os.MkdirTemp(filepath.Dir(o.out), ".updraft-fetch-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	cfg := node.DefaultConfig()
	cfg.Enrollment, cfg.Data = filepath.Join(temp, "enrollment"), filepath.Join(temp, "data")
	cfg.Once, cfg.Keep, cfg.Peers, cfg.Origins, cfg.MDNS, cfg.Log = true, 1, o.peers, o.origins, !o.noMDNS, u.quietLog()
	if len(o.listen) > 0 {
		cfg.Listen = o.listen
	}
	if err := e.Write(cfg.Enrollment); err != nil {
		return err
	}
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	show, stop := context.WithCancel(ctx)
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		showFetch(show, u, u.meter(channel), report.Dial(cfg.Data))
	}()
	start := time.Now()
	err = n.Run(ctx)
	stop()
	<-shown
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return deliver(u, channel, filepath.Join(cfg.Data, "current"), o.out, n.Status().Bytes, time.Since(start))
}

// showFetch follows the progress of a node until ctx ends, and says once of each
// problem what it is: a fetch waits for the origin, or a neighbour, for ever.
func showFetch(ctx context.Context, u *ui, m *meter, c *report.Client) {
	defer m.end("")
	told := make(map[[2]string]bool)
	for {
		s, err := c.Status(ctx)
		for _, p := range s.Problems {
			if key := [2]string{p.Code, p.Subject}; !told[key] {
				told[key] = true
				u.note("still trying: %s", problemLine(p))
				if p.Hint != "" {
					u.note("  what to do: %s", p.Hint)
				}
			}
		}
		if err == nil && s.Progress != nil {
			m.set(s.Progress.Have, s.Progress.Total, s.State)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// deliver renames what current links to.
func deliver(u *ui, channel, current, out string, b report.Bytes, took time.Duration) error {
	dir, err := filepath.EvalSymlinks(current)
	if err != nil {
		return err
	}
	version := filepath.Base(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	from, name := dir, strings.ReplaceAll(channel, "/", "-")+"-"+version
	if len(entries) == 1 {
		name = entries[0].Name()
		from = filepath.Join(dir, name)
	}
	if out == "" {
		out = name
		if err := vacant(out); err != nil {
			return err
		}
	}
	if err := os.Rename(from, out); err != nil {
		return err
	}
	v := map[string]any{"channel": channel, "version": version, "path": out, "bytes": b, "seconds": took.Seconds()}
	return u.result(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s %s: %s from the origin, %s from the site, in %.1f s.\n", out, channel, version, size(b.Uplink), size(b.LANIn), took.Seconds())
	})
}

// vacant reports a path that exists.
func vacant(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return hinted{fmt.Errorf("%s exists", path), "name another path, or remove it first"}
	}
	return nil
}
