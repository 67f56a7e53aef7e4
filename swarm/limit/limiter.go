// Package limit keeps byte rates: a token bucket that many streams share, and the
// windows of the day in which an uplink may be used.
//
// A Limiter is golang.org/x/time/rate fed in small pieces, with one addition: a
// sleep that ends late, as sleeps do on a busy machine, is not lost. The next
// piece is booked at the time at which the sleep should have ended, so the mean
// rate of a stream that always has something to send is the nominal one, and what
// is sent at once never exceeds the burst plus the bytes of the delay.
//
// Guarantees: over any time t the bytes let through are at most rate·t + burst;
// every wait ends when its context does; a nil *Limiter lets everything through.
package limit

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Burst is the number of bytes a Limiter lets through at once after a pause;
	// slow limits have less, see New.
	Burst = 16 << 10
	// minBurst is the burst of the slowest limits: one TCP segment.
	minBurst = 1460
	// maxLate is how much delay of a sleep is made good.
	maxLate = 250 * time.Millisecond
	// lateFor is how soon after a late wake-up the next piece must come to count
	// as the same stream.
	lateFor = 50 * time.Millisecond
)

// Limiter is a token bucket of bytes, safe for concurrent use. Nil is unlimited.
type Limiter struct {
	mu    sync.Mutex // guards all below
	lim   *rate.Limiter
	clock time.Time     // latest time given to lim; it never goes back
	late  time.Duration // by how much the stream is behind its time
	woke  time.Time     // when that was seen
}

// New returns a Limiter of bytesPerSecond, or nil, which is unlimited, when
// bytesPerSecond is 0 or less. The burst is 50 ms of the rate, but at least 1460
// and at most Burst bytes.
func New(bytesPerSecond int64) *Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &Limiter{lim: rate.NewLimiter(rate.Limit(bytesPerSecond), burst(bytesPerSecond))}
}

func burst(bytesPerSecond int64) int {
	return int(min(max(bytesPerSecond/20, minBurst), Burst))
}

// Rate returns the limit in bytes per second, 0 when there is none.
func (l *Limiter) Rate() int64 {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(l.lim.Limit())
}

// WaitN waits until n more bytes may pass, or ctx ends. Any n is allowed; what is
// more than the burst is waited for in pieces.
func (l *Limiter) WaitN(ctx context.Context, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l == nil || l.wait(ctx.Done(), n) {
		return nil
	}
	return ctx.Err()
}

// piece returns how many of n bytes to book at once.
func (l *Limiter) piece(n int) int {
	if l == nil {
		return n
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(n, l.lim.Burst())
}

// wait books n bytes and sleeps until they may pass; false when done came first.
func (l *Limiter) wait(done <-chan struct{}, n int) bool {
	for n > 0 {
		d, k := l.book(n)
		n -= k
		if d > 0 && !l.sleep(done, d) {
			return false
		}
	}
	return true
}

// book takes k ≤ n tokens and returns how long to sleep for them.
func (l *Limiter) book(n int) (d time.Duration, k int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	at := now
	if l.late > 0 && now.Sub(l.woke) < lateFor {
		at = now.Add(-l.late)
	}
	if at.Before(l.clock) {
		at = l.clock
	}
	l.clock = at
	k = min(n, l.lim.Burst())
	d = l.lim.ReserveN(at, k).DelayFrom(at) - now.Sub(at)
	// What is left of the delay after this piece belongs to the next ones.
	l.late, l.woke = max(-d, 0), now
	return d, k
}

func (l *Limiter) sleep(done <-chan struct{}, d time.Duration) bool {
	due := time.Now().Add(d)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return false
	case <-t.C:
	}
	now := time.Now()
	l.mu.Lock()
	l.late = min(max(now.Sub(due), 0), maxLate)
	l.woke = now
	l.mu.Unlock()
	return true
}
