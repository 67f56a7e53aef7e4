//go:build netns

package testnet_test

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"updraft/testnet"
)

// TestNetnsRevoked takes a device out of the fleet while it and seven others download: within 10 s of the list's
// arrival at one of them all have closed their connections with it, and it gets nothing more from any.
func TestNetnsRevoked(t *testing.T) {
	t.Parallel()
	const messenger, closing = "dev1", 10 * time.Second
	in := prepare(t)
	s := site(t, in, testnet.Config{Devices: 8, Whole: true})
	r := publish(t, s, "1.0.0", in.large)
	boot(t, s)
	updraft := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(in.program[0], args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	peers := func(name string) (n int, received int64) {
		t.Helper()
		st, err := s.Status(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return st.Peers, st.Bytes.LANIn
	}
	// The thief is whoever has something from the others by then: the one that downloads from the origin has not.
	victim := func() string {
		for _, name := range s.Nodes() {
			if _, received := peers(name); name != messenger && received > 0 {
				return name
			}
		}
		t.Fatal("no device but the one that looks has anything from the others")
		return ""
	}
	var thief string
	var arrived, closed time.Time
	var got int64                                  // what the thief had from the others when it was alone
	ctx, enough := context.WithCancel(t.Context()) // when all but the thief have the release
	defer enough()
	out, err := s.Rollout(ctx, r, testnet.RolloutOptions{Timeout: 2 * time.Minute, Progress: func(p testnet.Snapshot) {
		if arrived.IsZero() && p.Uplink > p.Needed/4 {
			thief = victim()
			if n, _ := peers(thief); n != 7 {
				t.Errorf("%d peers of the thief", n)
			}
			updraft("revoke", "--fleet", filepath.Join(s.Dir(), "fleet"), thief, "--reason", "stolen")
			arrived = time.Now() // not before
			updraft("check", "--data", s.Data(messenger))
		}
		if !slices.ContainsFunc(p.Devices, func(d testnet.State) bool { return d.Name != thief && d.State != "done" }) {
			enough()
		}
		if arrived.IsZero() || !closed.IsZero() {
			return
		}
		for _, name := range s.Nodes() {
			if n, _ := peers(name); name != thief && n != 6 || name == thief && n != 0 {
				return
			}
		}
		closed = time.Now()
		_, got = peers(thief)
	}})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, d := range out.List {
		if d.Name != thief && d.Version != "1.0.0" {
			t.Errorf("%s has %q in service", d.Name, d.Version)
		}
	}
	if closed.IsZero() || closed.Sub(arrived) > closing {
		t.Fatalf("arrived at %v, closed everywhere at %v", arrived, closed)
	}
	t.Logf("closed everywhere %.2f s after the look that brought the list had begun", closed.Sub(arrived).Seconds())
	if n, received := peers(thief); n != 0 || received != got || received >= 64<<20 {
		t.Errorf("the thief has %d peers and %d bytes from them, %d when it was closed out", n, received, got)
	}
}
