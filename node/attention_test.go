package node

import (
	"errors"
	"testing"
	"time"

	"updraft/swarm/origin"
)

// TestWordsCountForAWhile: who says for ever that it gets on is believed for wordMost.
func TestWordsCountForAWhile(t *testing.T) {
	var a attention
	now := time.Unix(1e9, 0)
	a.still(now, 1, 1, wordMost)
	for k := range int64(1200) { // twenty minutes
		now = now.Add(time.Second)
		still := a.still(now, 1, 2+k, wordMost)
		at := time.Duration(k+1) * time.Second
		if want := max(at-wordMost+time.Second, 0); still != want {
			t.Fatalf("after %v still for %v, want %v", at, still, want)
		}
	}
	if still := a.still(now, 2, 0, wordMost); still != 0 {
		t.Errorf("still for %v although something has come", still)
	}
	// From then on it is believed again.
	if still := a.still(now.Add(time.Second), 2, 1, wordMost); still != 0 {
		t.Errorf("still for %v", still)
	}
	if still := a.still(now.Add(10*time.Second), 2, 1, wordMost); still != 9*time.Second {
		t.Errorf("still for %v while nobody says anything", still)
	}
}

// TestADayWithoutTheOrigin: what others say is taken for what the origin says for a day, and for an hour after the start.
func TestADayWithoutTheOrigin(t *testing.T) {
	n := &Node{start: time.Now().Add(-firstMost)}
	c := newChecker(n)
	if c.overdue() {
		t.Error("a device without an origin is to ask it")
	}
	var err error
	if n.origin, err = origin.NewClient([]string{"http://127.0.0.1:1"}, origin.ClientOptions{}); err != nil {
		t.Fatal(err)
	}
	defer n.origin.Close()
	if !c.overdue() {
		t.Error("not due long after the start")
	}
	if c.heard = time.Now().Add(-wordFor + time.Minute); c.overdue() {
		t.Error("due although it was tried")
	}
	if c.heard = time.Now().Add(-wordFor); !c.overdue() {
		t.Error("not due after a day")
	}
	if n.start, c.heard = time.Now().Add(-firstLeast+time.Minute), (time.Time{}); c.overdue() {
		t.Error("due soon after the start")
	}
	fail := func() { c.end(&look{done: make(chan struct{}), err: origin.ErrUnreachable}) }
	if fail(); !c.heard.IsZero() {
		t.Error("heard while the uplink may not be up yet")
	}
	n.start = time.Now().Add(-firstMost)
	if fail(); c.heard.IsZero() {
		t.Error("due for ever where the origin is out of reach")
	}
}

// TestUnaskedLooksAreCounted: who asks as one does that nobody has asked has a device look no more
// often than in a person's name, but for looks for which the time has come.
func TestUnaskedLooksAreCounted(t *testing.T) {
	const poll = time.Hour
	for _, c := range []struct {
		name        string
		poll        time.Duration
		last, tried time.Duration // ago
		want        error         // of a look after many
	}{
		{"poll: 0", 0, poll, 2 * poll, errOften},
		{"the last look failed", poll, poll, poll / 2, errOften},
		{"the last one is long ago", poll, poll, 2 * poll, errWindow},
		{"and failed", poll, 2 * poll, poll, errWindow},
		{"the last one answers", poll, poll / 2, 2 * poll, nil},
	} {
		n := &Node{windows: new(Switch)} // closed: it ends there, at the latest
		n.cfg.Poll = c.poll
		n.checker = newChecker(n)
		n.checker.last, n.checker.tried = time.Now().Add(-c.last), time.Now().Add(-c.tried)
		var err error
		for k := range asksAtOnce + 1 {
			err = n.answerCheck(t.Context(), "a member", nil)
			if k < asksAtOnce && errors.Is(err, errOften) {
				t.Errorf("%s: refused after %d", c.name, k)
			}
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", c.name, err, c.want)
		}
	}
}
