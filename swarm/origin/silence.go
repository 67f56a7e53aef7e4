package origin

import (
	"sync"
	"time"
)

// silence measures for how long an origin has said nothing, or next to nothing, although
// something was asked of it. Time in which nobody waits for the origin does not count.
type silence struct {
	mu    sync.Mutex    // guards all below
	calls int           // of Get and Ranges, under way
	waits int           // for an answer, bytes, or the time to try again
	from  time.Time     // since when somebody waits
	quiet time.Duration // of waiting, before that
	bytes int           // that came since it is quiet
}

// begin notes a call; done must be called at its end.
func (s *silence) begin() (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls++; s.calls == 1 {
		s.resetLocked()
	}
	return func() {
		s.mu.Lock()
		s.calls--
		s.mu.Unlock()
	}
}

// wait notes that somebody waits for the origin; done must be called at its end.
func (s *silence) wait() (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waits++; s.waits == 1 {
		s.from = time.Now()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.waits--; s.waits == 0 {
			s.quiet += time.Since(s.from)
		}
	}
}

// hear notes n bytes.
func (s *silence) hear(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes += n; s.bytes >= leastBytes {
		s.resetLocked()
	}
}

func (s *silence) resetLocked() { s.from, s.quiet, s.bytes = time.Now(), 0, 0 }

// Silent returns for how long the origins have said nothing, or less than 1 KiB and no
// answer, although calls wait for them, with all attempts made meanwhile; 0 while none
// waits.
func (c *Client) Silent() time.Duration {
	s := &c.count.silence
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == 0 || s.waits == 0 {
		return 0
	}
	return s.quiet + time.Since(s.from)
}
