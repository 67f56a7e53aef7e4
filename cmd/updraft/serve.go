package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"updraft/node/fleet"
	"updraft/swarm/limit"
	"updraft/swarm/origin"
)

func newServe(u *ui) *cobra.Command {
	var listen, rate string
	var access bool
	c := &cobra.Command{
		Use:   "serve DIR",
		Short: "Serve an origin over HTTP",
		Long: `Serve an origin (the directory "origin" of a fleet) over HTTP until SIGINT or
SIGTERM. It is plain files with ranges and strong ETags: nginx, Apache, Caddy, a
bucket or a USB stick with the same files serves devices just as well.`,
		Example: `  updraft serve fleet/origin --listen :8080
  updraft serve fleet/origin --listen 127.0.0.1:0 --rate 20mbit     # play a slow uplink`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			bps, err := parseRate(rate)
			if err != nil {
				return usageError{err}
			}
			return serve(cmd.Context(), u, args[0], listen, bps, access)
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "address and port; port 0 takes a free one")
	c.Flags().StringVar(&rate, "rate", "0", "limit of all answers together, such as 20mbit; 0: none")
	c.Flags().BoolVar(&access, "access-log", false, "log each request")
	return c
}

func serve(ctx context.Context, u *ui, dir, listen string, rate int64, access bool) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return usagef("%s is not a directory", dir)
	}
	if err := fleet.CheckPublic(dir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "metadata")); errors.Is(err, os.ErrNotExist) {
		u.note("%s holds no metadata yet: devices find nothing until something is published", dir)
	}
	if _, _, err := net.SplitHostPort(listen); err != nil {
		return usagef("--listen %q: write ADDRESS:PORT, or :PORT for all addresses", listen)
	}
	l, err := net.Listen("tcp", listen)
	var wrong *net.AddrError
	var name *net.DNSError
	if errors.As(err, &wrong) || errors.As(err, &name) {
		return usagef("--listen %q: %w", listen, err)
	}
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	log := u.log()
	var count limit.Counters
	o := origin.ServerOptions{Log: log}
	if access {
		o.Access = func(a origin.Access) {
			log.Info("request", "remote", a.Remote, "name", a.Name, "status", a.Status, "bytes", a.Bytes, "range", a.Range)
		}
	}
	log.Info("serving", "dir", dir, "url", "http://"+l.Addr().String())
	err = origin.Serve(ctx, limit.Listener(l, rate, &count), dir, o)
	log.Info("stopped", "bytes_out", count.Out.Load(), "bytes_in", count.In.Load(), "connections", count.Conns.Load())
	return err
}
