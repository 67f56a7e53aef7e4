package origin

import (
	"sync"
	"time"
)

// silence measures for how long an origin has said nothing although something was
// asked of it. Time in which nobody waits for the origin does not count.
type silence struct {
	mu    sync.Mutex // guards all below
	calls int        // of Get and Ranges, under way
	waits int        // for an answer, bytes, or the time to try again
	heard time.Time  // when bytes came last, or the wait for them began
}

// begin notes a call; done must be called at its end.
func (s *silence) begin() (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls++; s.calls == 1 {
		s.heard = time.Now()
	}
	return func() {
		s.mu.Lock()
		s.calls--
		s.mu.Unlock()
	}
}

// wait notes that somebody waits for the origin; done must be called at its end. fresh
// says that what was asked for before has come.
func (s *silence) wait(fresh bool) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waits++; fresh {
		s.heard = time.Now()
	}
	return func() {
		s.mu.Lock()
		s.waits--
		s.mu.Unlock()
	}
}

func (s *silence) hear() {
	s.mu.Lock()
	s.heard = time.Now()
	s.mu.Unlock()
}

// Silent returns for how long the origins have said nothing at all although calls wait
// for them, with all attempts made meanwhile; 0 while none waits.
func (c *Client) Silent() time.Duration {
	s := &c.count.silence
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == 0 || s.waits == 0 {
		return 0
	}
	return time.Since(s.heard)
}
