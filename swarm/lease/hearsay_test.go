package lease_test

import (
	"fmt"
	"testing"
	"time"

	"updraft/swarm/lease"
)

// TestInventedHoldersAreDoubted: who passes on that others hold the lease, a new one each time or each minute, or has
// honest members object in their names, keeps a candidate from it for a minute, then for less and less of the time.
func TestInventedHoldersAreDoubted(t *testing.T) {
	for name, c := range map[string]struct {
		every  time.Duration // a new name so often
		object bool          // a member that believes it objects
	}{
		"a new one each time":   {time.Millisecond, false},
		"a new one each minute": {time.Minute, false},
		"and members object":    {10 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := lease.New("a", 0)
			m.Up(0, "b")
			var now, held, first time.Duration
			var epoch uint64 = 1
			const step, total = 250 * time.Millisecond, 10 * time.Hour
			for ; now < total; now += step {
				if m.State() == lease.Idle {
					m.Acquire(now)
				}
				liar := fmt.Sprint("invented ", now/c.every)
				epoch++
				m.Hear(now, liar, lease.Message{Kind: lease.Heartbeat, Epoch: epoch})
				if c.object && m.State() == lease.Claiming {
					m.Recv(now, "b", lease.Message{Kind: lease.Object, Epoch: epoch, Holder: liar})
				}
				m.Tick(now + step/2)
				if m.State() == lease.Holding {
					held += step
					if first == 0 {
						first = now
					}
					m.Progress(now)
				}
			}
			t.Logf("held after %v, %d %% of the time", first, held*100/total)
			if first == 0 || first > lease.Stall+5*time.Second || held < total*9/10 {
				t.Errorf("held after %v, for %v of %v", first, held, total)
			}
		})
	}
}

// TestHearsayIsBelievedWhileSomethingComes: a far holder that brings something is followed.
func TestHearsayIsBelievedWhileSomethingComes(t *testing.T) {
	m := lease.New("a", 0)
	m.Acquire(0)
	var epoch uint64 = 100
	for now := time.Duration(0); now < time.Hour; now += lease.Beat {
		m.Hear(now, "far", lease.Message{Kind: lease.Heartbeat, Epoch: epoch})
		if now%(50*time.Second) == 0 {
			m.Progress(now)
		}
		if by, ok := m.Holder(now); !ok || by != "far" {
			t.Fatalf("after %v: holder %q, state %d", now, by, m.State())
		}
	}
}

// TestDoubtsPass: who stands still once a day is doubted no longer each day.
func TestDoubtsPass(t *testing.T) {
	m := lease.New("a", 0)
	m.Up(0, "b")
	var epoch uint64
	for day := range 9 {
		now := time.Duration(day) * 24 * time.Hour
		m.Acquire(now)
		for end := now + lease.Stall + 5*time.Second; now < end; now += lease.Beat {
			epoch++
			m.Hear(now, "far", lease.Message{Kind: lease.Heartbeat, Epoch: epoch})
			m.Tick(now)
		}
		m.Release(now)
		m.Acquire(now + lease.DoubtFor)
		m.Hear(now+lease.DoubtFor, "far", lease.Message{Kind: lease.Heartbeat, Epoch: epoch + 1})
		if h, ok := m.Holder(now + lease.DoubtFor); !ok || h != "far" {
			t.Fatalf("day %d: holder %q, %v", day, h, ok)
		}
		m.Release(now + lease.DoubtFor)
	}
}
