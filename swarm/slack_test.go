package swarm

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSlack doubles and halves the times of patience.
func TestSlack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Swarm{start: time.Now()}
		time.Sleep(time.Minute)
		s.hurriedLocked()
		s.hurriedLocked()
		if got := s.slackLocked(); got != 1 {
			t.Errorf("slack %d after two blobs at once", got)
		}
		for range 10 {
			time.Sleep(1100 * time.Millisecond)
			s.hurriedLocked()
		}
		if got := s.slackLocked(); got != slackMost {
			t.Errorf("slack %d after ten seconds", got)
		}
		before := s.patienceLocked()
		time.Sleep(slackEases + time.Millisecond)
		if got := s.patienceLocked(); got != before/2 {
			t.Errorf("patience %v after %v", got, before)
		}
		time.Sleep(time.Hour)
		if got := s.slackLocked(); got != 0 {
			t.Errorf("slack %d after an hour", got)
		}
		s.hurriedLocked()
		if got := s.slackLocked(); got != 1 {
			t.Errorf("slack %d afterwards", got)
		}
	})
}

// TestLagGrowsWhileBytesCome: where the link here is slow, and no blob has come for long, one whose bytes come later than
// those of others is waited for; where nothing comes at all, or blobs do, it is not.
func TestLagGrowsWhileBytesCome(t *testing.T) {
	const mean = 100 * time.Millisecond
	for _, x := range []struct{ whole, flowed, want time.Duration }{
		{time.Second, 0, time.Second},
		{7 * time.Second, flowGap - 1, 7 * time.Second},
		{time.Hour, 0, pullLag},
		{10 * time.Millisecond, 0, mean},
		{time.Hour, flowGap, mean},
	} {
		now := 2 * time.Hour
		s := &Swarm{lag: mean, whole: now - x.whole, flowed: now - x.flowed}
		if got := s.lagLocked(now); got != x.want {
			t.Errorf("last blob %v ago, last bytes %v ago: %v, want %v", x.whole, x.flowed, got, x.want)
		}
	}
}
