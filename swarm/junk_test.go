package swarm

import (
	"testing"
	"time"
)

// TestJunkIsForgotten: a slow member whose copies come second for weeks breaks nothing; one that sends nothing else does.
func TestJunkIsForgotten(t *testing.T) {
	m := &member{}
	for i := range 100 {
		if err := m.wasted(time.Duration(i)*time.Minute, 256<<10); err != nil {
			t.Fatalf("256 KiB a minute, after %d minutes: %v", i, err)
		}
	}
	if err := m.wasted(100*time.Minute, junkBytes+1); err == nil {
		t.Error("more than 16 MiB at once were taken")
	}
}
