package node

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestSettle: while the uplink is left alone nothing is planned, and members that were waited for in vain are believed
// again: they were cut off.
func TestSettle(t *testing.T) {
	n := &Node{}
	u := &update{n: n, stalls: 2}
	if err := u.settle(t.Context()); err != nil || u.stalls != 2 {
		t.Errorf("nothing has changed: %v, %d stalls", err, u.stalls)
	}
	at := time.Now().Add(100 * time.Millisecond)
	n.settling.until = at
	if err := u.settle(t.Context()); err != nil || u.stalls != 0 {
		t.Errorf("the network has changed: %v, %d stalls", err, u.stalls)
	}
	if early := time.Until(at); early > 0 {
		t.Errorf("the uplink is used %v early", early)
	}
	n.settling.until = time.Now().Add(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.settle(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped meanwhile: %v", err)
	}
}
