package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"updraft/node/report"
)

func newPlan(u *ui) *cobra.Command {
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show what the site would bring for the newest release, and what it costs",
		Long: `Show what the site would bring over the uplink for the newest release that the agent
knows of (updraft check looks for it): for each artifact the way that is the cheapest
with what the devices of the site hold now, and the others. Nothing is decided by it;
the device that holds the uplink plans anew when it begins. What patches cost is exact;
chunks are counted as if each were packed as the release is on average, and all of them
as long as no index here tells which ones the site lacks.`,
		Example: "  updraft plan --data /var/lib/updraft\n  updraft plan --json",
		Args:    usageArgs(cobra.NoArgs),
	}
	data := dataFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
		defer cancel()
		p, err := report.Dial(*data).Plan(ctx)
		if err != nil {
			return err
		}
		return u.result(p, func(w io.Writer) { printPlan(w, p) })
	}
	return c
}

func printPlan(w io.Writer, p report.Plan) {
	state := ""
	if p.InService {
		state = ", which is in service here"
	}
	about := ""
	if p.Estimate {
		about = "about "
	}
	fmt.Fprintf(w, "For %s%s the site would bring %s%s over the uplink.\n", p.Version, state, about, size(p.Bytes))
	for _, a := range p.Artifacts {
		for i, way := range a.Ways {
			mark := "  not: "
			if i == 0 {
				mark = "* "
			}
			fmt.Fprintf(w, "%s%s\n", mark, way.Why)
			if len(way.Holders) > 0 {
				fmt.Fprintf(w, "       its base is on %s\n", strings.Join(way.Holders, ", "))
			}
		}
	}
}
