package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"updraft/node"
	"updraft/node/report"
)

// TestPrintSite: what devices say cannot steer the terminal of who asks.
func TestPrintSite(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	printSite(plainWriter{&b}, []node.Answer{
		{Name: "till-1", Status: &report.Status{Name: "till-1", Type: "rpi4", Role: "device", State: "fetching", Current: "1.0.0\x1b[2J", Target: "1.1.0",
			Progress: &report.Progress{Have: 50, Total: 100}, Problems: []report.Problem{{Code: "origin", Subject: "the origin", Text: "gone\u202e\r\u009b"}}}},
		{Name: "till-2", Error: "timeout"},
	})
	out := b.String()
	for _, want := range []string{"fetching, 50 %", "1.0.0?[2J", "! till-1: origin (the origin", "gone???", "no answer", "! till-2: timeout"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	b.Reset()
	printSite(plainWriter{&b}, nil)
	if !strings.Contains(b.String(), "No device") {
		t.Error(b.String())
	}
}

// TestPrintWhy: reasons come with the version that they are for, and what it cost.
func TestPrintWhy(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]report.Status{
		"why:\n  nothing was decided yet\n": {WhyFor: "1.1.0"},
		"why, for 1.1.0:\n  app: a patch\n  app: chunks, by the plan of till-7\n  12.0 kB of it came over the uplink of this device\n": {WhyFor: "1.1.0",
			Why: []string{"app: a patch", "app: chunks, by the plan of till-7"}, Brought: 12_000},
	} {
		var b bytes.Buffer
		if printWhy(&b, s); b.String() != want {
			t.Errorf("got\n%swant\n%s", b.String(), want)
		}
	}
}

// TestPlain: nor can what they say steer it by way of anything else that is printed.
func TestPlain(t *testing.T) {
	t.Parallel()
	var out, err bytes.Buffer
	u := &ui{out: &out, err: &err}
	u.note("still trying: %s", "\x1b[2J")
	if err := u.result(nil, func(w io.Writer) { table(w, [][]string{{"STATE", "\x1b[2J"}}) }); err != nil {
		t.Fatal(err)
	}
	u.exit(t.Context(), errors.New("swarm: peer answered: \x1b[2J"))
	if s := out.String() + err.String(); strings.Contains(s, "\x1b") || strings.Count(s, "?[2J") != 3 {
		t.Errorf("%q", s)
	}
}
