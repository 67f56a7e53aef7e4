package node_test

import (
	"fmt"
	"testing"
	"time"

	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/report"
	"updraft/swarm"
)

// closedNow is a window that opens in half an hour.
func closedNow() []string {
	return []string{fmt.Sprintf("%d * * * *", time.Now().Add(30*time.Minute).Minute())}
}

// TestLooksKeepToTheWindow: outside of it nothing crosses the uplink unasked, a look
// that a person asks for does, and the release waits; what a neighbour brings comes.
func TestLooksKeepToTheWindow(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 300<<10)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(func(c *node.Config) { c.UplinkWindows, c.Poll = closedNow(), time.Second }))
	time.Sleep(3500 * time.Millisecond) // the first look would come after 1.5 s
	if out := s.link.Out.Load(); out > 0 {
		t.Errorf("%d bytes crossed the uplink outside of the window", out)
	}
	if err := check(a); err != nil {
		t.Fatal(err)
	}
	a.await("aware of 1.0.0", func(st report.Status) bool { return st.Target == "1.0.0" })
	time.Sleep(time.Second)
	if out := s.link.Out.Load(); out == 0 || out > 50<<10 {
		t.Errorf("%d bytes for a look", out)
	}
	b := s.start(s.enroll(nil))
	b.awaitPeers(1)
	if err := check(b); err != nil {
		t.Fatal(err)
	}
	a.awaitVersion("1.0.0")
	a.sees(v1)
}

// TestLooksAnyTime: with leave a device looks outside of the window, and fetches
// nothing more.
func TestLooksAnyTime(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 300<<10)))
	a := s.start(s.enroll(func(c *node.Config) { c.UplinkWindows, c.Poll, c.LooksAnyTime = closedNow(), time.Second, true }))
	a.await("aware of 1.0.0", func(st report.Status) bool { return st.Target == "1.0.0" })
	time.Sleep(time.Second)
	if out := s.link.Out.Load(); out > 50<<10 || a.node.Status().Current != "" {
		t.Errorf("%d bytes for looks; in service: %q", out, a.node.Status().Current)
	}
}

// closing is an agent whose window the test opens and closes, at first closed, which
// knows of the newest release, and a member of its site that holds the uplink.
func (s *site) closing() (a *agent, window *node.Switch, by *swarm.Swarm, held *swarm.Tenure) {
	s.t.Helper()
	window = new(node.Switch)
	a = s.start(s.enroll(nil), func(n *node.Node) { n.SetWindows(window) })
	by = join(s.t, enrollment(s.t, s.fleet, fleet.EnrollOptions{Name: "holder", Site: "lab"}), a)
	held, err := by.Acquire(s.t.Context(), swarm.AcquireOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := check(a); err != nil {
		s.t.Fatal(err)
	}
	a.await("aware of the release", func(st report.Status) bool { return st.Target != "" && st.Progress != nil })
	return a, window, by, held
}

// TestWindowClosesBeforeTheLease: a device that had to wait for the lease until its
// window was over brings nothing.
func TestWindowClosesBeforeTheLease(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 300<<10)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a, window, _, held := s.closing()
	window.Store(true)
	a.await("waiting for the lease", func(report.Status) bool { return held.Wanted() })
	window.Store(false)
	before := s.link.Out.Load()
	held.Release()
	time.Sleep(1500 * time.Millisecond)
	if out := s.link.Out.Load() - before; out > 0 {
		t.Errorf("%d bytes crossed the uplink outside of the window", out)
	}
	window.Store(true)
	a.awaitVersion("1.0.0")
	a.sees(v1)
}
