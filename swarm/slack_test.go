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
