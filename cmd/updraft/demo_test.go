package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/testnet"
)

// quietTemp makes the temporary directory one that must be empty at the end.
func quietTemp(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}

// TestDemo runs the demonstration with few devices: real processes, multicast and
// a shaped origin, counted in bytes.
func TestDemo(t *testing.T) {
	if underRace {
		t.Skip("nine processes under the race detector are too slow to be measured; runs without it")
	}
	if testing.Short() {
		t.Skip("runs many processes")
	}
	quietTemp(t)
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"demo", "--json", "--devices", "3"}, strings.NewReader(""), &out, &errs)
	if code != exitOK {
		t.Fatalf("exit code %d\n%s\n%s", code, out.String(), errs.String())
	}
	if errs.Len() > 0 {
		t.Errorf("--json and words on standard error: %s", errs.String())
	}
	var r testnet.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Devices != 4 || r.Converged != 4 || len(r.List) != 4 || len(r.Rollouts) != 2 {
		t.Errorf("%d of %d devices, %d listed, %d rollouts", r.Converged, r.Devices, len(r.List), len(r.Rollouts))
	}
	for _, o := range r.Rollouts {
		if limit := o.NeededBytes * 105 / 100; o.UplinkBytes > limit || o.UplinkBytes == 0 {
			t.Errorf("%s: uplink carried %d, needed %d", o.Version, o.UplinkBytes, o.NeededBytes)
		}
		holders := 0
		for _, d := range o.List {
			if d.Digest != o.Digest {
				t.Errorf("%s on %s: digest %s, published %s", o.Version, d.Name, d.Digest, o.Digest)
			}
			if d.Uplink > 0 {
				holders++
			}
		}
		if holders != 1 {
			t.Errorf("%s: %d devices downloaded from the origin", o.Version, holders)
		}
	}
	if up := r.Rollouts[1]; up.NeededBytes > r.Rollouts[0].NeededBytes/2 {
		t.Errorf("the update needs %d bytes, the first release %d: no patch", up.NeededBytes, r.Rollouts[0].NeededBytes)
	}
	if bytes.ContainsRune(out.Bytes(), '\x1b') {
		t.Error("control codes where there is no terminal")
	}
}

// TestDemoInterrupted ends a demonstration in the middle: nothing may be left.
func TestDemoInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many processes")
	}
	quietTemp(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs buffer
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"demo", "--devices", "2"}, strings.NewReader(""), &out, &errs) }()
	for !strings.Contains(errs.String(), "Rolling out 1.0.0") {
		select {
		case code := <-ended:
			t.Fatalf("ended with %d: %s", code, errs.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	pids := children(t)
	cancel()
	if code := <-ended; code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	for _, pid := range pids {
		if _, err := os.Stat(filepath.Join("/proc", pid)); err == nil {
			t.Errorf("process %s is left", pid)
		}
	}
	if len(pids) == 0 {
		t.Error("no agents were running")
	}
	if strings.Contains(errs.String(), "\x1b") {
		t.Error("control codes where there is no terminal")
	}
}

// children lists the agents that this process has started.
func children(t *testing.T) []string {
	t.Helper()
	var out []string
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for _, pid := range strings.Fields(string(b)) {
			if args, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline")); err == nil && bytes.Contains(args, []byte("agent")) {
				out = append(out, pid)
			}
		}
	}
	return out
}

// TestTestnet rehearses with a tree, of which one device of three holds the old
// version, and a holder that is killed.
func TestTestnet(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many processes")
	}
	s := &session{t: t, work: t.TempDir(), where: "TestTestnet"}
	s.do("tree t1 5")
	s.do("tree t2 5 2")
	quietTemp(t)
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"testnet", "--json", "--devices", "3", "--old", s.path("t1"), "--new", s.path("t2"), "--bases", "1",
		"--uplink", "1mbit", "--kill-at", "0.5"}, strings.NewReader(""), &out, &errs)
	if code != exitOK {
		t.Fatalf("exit code %d\n%s\n%s", code, out.String(), errs.String())
	}
	var r testnet.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Devices != 3 || r.Converged != 3 {
		t.Errorf("%d of %d devices converged", r.Converged, r.Devices)
	}
	if r.UplinkBytes > r.NeededBytes*2 {
		t.Errorf("uplink carried %d, needed %d", r.UplinkBytes, r.NeededBytes)
	}
}
