package node_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/report"
)

// TestFlappingInterfaceEndsNoTransfer: an interface comes and goes while a device brings a release over its uplink. It has
// no neighbours, or one that has nothing to say but is there. What is under way goes on.
func TestFlappingInterfaceEndsNoTransfer(t *testing.T) {
	t.Parallel()
	for _, neighbours := range []int{0, 1} {
		t.Run(fmt.Sprint(neighbours, " neighbours"), func(t *testing.T) {
			t.Parallel()
			for attempt := 1; ; attempt++ { // a neighbour on a busy machine may answer too late
				before, after, got := flap(t, neighbours)
				if before == after && got >= 128<<10 {
					return
				}
				t.Logf("the plan of epoch %d gave way to that of %d; %d bytes have come", before, after, got)
				if attempt == 3 {
					t.Fatal("a transfer ends because of an interface")
				}
			}
		})
	}
}

// flap returns the epoch of the plan before and after an interface came and went, and how many bytes have come.
func flap(t *testing.T, neighbours int) (before, after uint64, got int64) {
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 4<<20)))
	a := s.start(s.enroll(func(c *node.Config) { c.UplinkRate = 64 << 10 }))
	for range neighbours {
		join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "quiet", Site: "lab"}), a)
	}
	go func() { _, _ = a.node.Check(context.Background()) }()
	a.await("planned", func(report.Status) bool { _, epoch := a.node.Planned(); return epoch != 0 })
	_, before = a.node.Planned()
	time.Sleep(2100 * time.Millisecond) // nobody has said anything for longer than what counts as cut off
	for range 4 {
		a.node.NetChanged()
		time.Sleep(500 * time.Millisecond)
	}
	_, after = a.node.Planned()
	return before, after, a.node.Status().Bytes.Uplink
}

// TestUplinkIsLeftAloneAtFirst: the time in which a device that has started looks for neighbours first begins when it can
// find them, however long that took.
func TestUplinkIsLeftAloneAtFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	var made time.Time
	a := s.start(s.enroll(nil), func(*node.Node) { made = time.Now() }) // before it runs
	a.await("settling", func(report.Status) bool { return !a.node.Settled().IsZero() })
	if d := a.node.Settled().Sub(made); d < time.Second {
		t.Errorf("the uplink is left alone for %v", d)
	}
}

// TestUplinkIsLeftAloneSeldom: where the network changes all the time the uplink is left alone a few times, then each 10
// minutes; where it does so now and then, each time.
func TestUplinkIsLeftAloneSeldom(t *testing.T) {
	for _, x := range []struct {
		every, long time.Duration
		least, most int
	}{
		{time.Second, time.Hour, 5, 10},
		{time.Second, 25 * time.Hour, 130, 160},
		{10 * time.Second, time.Hour, 5, 10},
		{30 * time.Minute, 25 * time.Hour, 50, 50},
	} {
		if n := node.Waits(x.every, x.long); n < x.least || n > x.most {
			t.Errorf("%d times in %v, at changes each %v", n, x.long, x.every)
		}
	}
}
