package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"updraft/node/report"
)

// askTimeout bounds a question to an agent on the same machine.
const askTimeout = 10 * time.Second

// dataFlag adds --data, with which a command finds the agent.
func dataFlag(c *cobra.Command) *string {
	return c.Flags().String("data", "/var/lib/updraft", "data directory of the agent")
}

func newCheck(u *ui) *cobra.Command {
	c := &cobra.Command{
		Use:     "check",
		Short:   "Have the agent look for a new release now",
		Long:    "Have the agent look for a new release now. It returns when the answer is known;\nthe update itself goes on in the agent.\nA release that failed here is not tried again by itself; --retry does so.",
		Example: "  updraft check --data /var/lib/updraft\n  updraft check --retry",
		Args:    usageArgs(cobra.NoArgs),
	}
	data := dataFlag(c)
	timeout := c.Flags().Duration("timeout", 2*time.Minute, "give up after so long")
	retry := c.Flags().Bool("retry", false, "also try a release again that failed here")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		if *retry {
			if err := report.Dial(*data).Retry(ctx); err != nil {
				return err
			}
		}
		r, err := report.Dial(*data).Check(ctx)
		if err != nil {
			return err
		}
		return u.result(r, func(w io.Writer) {
			switch {
			case r.New:
				fmt.Fprintf(w, "%s is new; %s is in service.\n", r.Target, orNone(r.Current))
			case r.Target == "":
				fmt.Fprintf(w, "The channel offers nothing; %s is in service.\n", orNone(r.Current))
			default:
				fmt.Fprintf(w, "%s is the newest and in service.\n", r.Current)
			}
		})
	}
	return c
}

func newStatus(u *ui) *cobra.Command {
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show what the agent does, and what is wrong",
		Example: "  updraft status --data /var/lib/updraft\n  updraft status --why\n  updraft status --json",
		Args:    usageArgs(cobra.NoArgs),
	}
	data := dataFlag(c)
	why := c.Flags().Bool("why", false, "with the reasons for what was decided")
	metrics := c.Flags().Bool("metrics", false, "print Prometheus text instead")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *metrics && (u.json || *why) {
			return usagef("--metrics is a text of its own: without --json and --why")
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
		defer cancel()
		agent := report.Dial(*data)
		if *metrics {
			text, err := agent.Metrics(ctx)
			if err == nil {
				_, err = io.WriteString(u.out, text)
			}
			return err
		}
		s, err := agent.Status(ctx)
		if err != nil {
			return err
		}
		return u.result(s, func(w io.Writer) { printStatus(w, s, *why) })
	}
	return c
}

func printStatus(w io.Writer, s report.Status, why bool) {
	state := s.State
	if p := s.Progress; p != nil && p.Total > 0 {
		state += fmt.Sprintf(", %d %% of %s", 100*p.Have/p.Total, size(p.Total))
	}
	holder := "nobody"
	switch {
	case s.IsHolder:
		holder = "this device"
	case s.Holder != "":
		holder = s.Holder
	}
	b := s.Bytes
	rows := [][]string{
		{s.Role, fmt.Sprintf("%s (%s) at site %s", s.Name, s.Type, s.Site)},
		{"in service", orNone(s.Current)},
		{"channel", fmt.Sprintf("%s, newest known: %s", s.Channel, orNone(s.Target))},
		{"state", state},
		{"uplink", "held by " + holder},
		{"peers", fmt.Sprint(s.Peers)},
		{"received", fmt.Sprintf("%s from the origin, %s from peers; %s reused", size(b.Uplink), size(b.LANIn), size(b.Reused))},
		{"sent", size(b.LANOut) + " to peers"},
		{"written", size(b.Written)},
		{"last look", ago(s.LastCheck)},
		{"running", "since " + s.Since.Format(time.DateTime)},
		{"certificate", "until " + s.NotAfter.Format(time.DateOnly)},
	}
	table(w, rows)
	for _, r := range s.Releases {
		mark := " "
		if r.InService {
			mark = "*"
		}
		fmt.Fprintf(w, "%s %s\n", mark, r.Version)
		for _, a := range r.Artifacts {
			fmt.Fprintf(w, "    %s  %s  %s  %s\n", a.Name, a.Kind, size(a.Size), a.CID)
		}
	}
	if why {
		printWhy(w, s)
	}
	for _, r := range s.Refused {
		fmt.Fprintf(w, "refused: %s, %s (again with updraft check --retry): %s\n", r.Version, ago(r.Time), r.Reason)
	}
	for _, p := range s.Problems {
		fmt.Fprintf(w, "! %s\n", problemLine(p))
		if p.Hint != "" {
			fmt.Fprintf(w, "  what to do: %s\n", p.Hint)
		}
	}
}

func printWhy(w io.Writer, s report.Status) {
	if s.WhyFor == "" || len(s.Why) == 0 {
		fmt.Fprintln(w, "why:\n  nothing was decided yet")
		return
	}
	fmt.Fprintf(w, "why, for %s:\n", s.WhyFor)
	for _, r := range s.Why {
		fmt.Fprintf(w, "  %s\n", r)
	}
	fmt.Fprintf(w, "  %s of it came over the uplink of this device\n", size(s.Brought))
}

func newPeers(u *ui) *cobra.Command {
	c := &cobra.Command{
		Use:     "peers",
		Short:   "List the devices of the site that the agent is connected to",
		Example: "  updraft peers --data /var/lib/updraft",
		Args:    usageArgs(cobra.NoArgs),
	}
	data := dataFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
		defer cancel()
		ps, err := report.Dial(*data).Peers(ctx)
		if err != nil {
			return err
		}
		return u.result(ps, func(w io.Writer) {
			rows := [][]string{{"NAME", "TYPE", "ROLES", "IN SERVICE", "STATE", "DONE", "FROM IT", "TO IT", "ADDRESS"}}
			for _, p := range ps {
				done := ""
				if p.Progress > 0 && p.Progress < 1000 {
					done = fmt.Sprintf("%d %%", p.Progress/10)
				}
				rows = append(rows, []string{p.Name, p.Type, strings.Join(p.Roles, ","), orNone(p.Version), p.State, done, size(p.BytesIn), size(p.BytesOut), p.Addr})
			}
			if len(ps) == 0 {
				fmt.Fprintln(w, "No other device of the site is connected.")
				return
			}
			table(w, rows)
		})
	}
	return c
}
