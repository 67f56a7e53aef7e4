package limit

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLateSleepIsMadeGood plays a machine on which every sleep overruns by 20 ms,
// three times what the burst alone would bridge.
func TestLateSleepIsMadeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, total = 2_500_000, 5_000_000
		l := New(rate)
		start := time.Now()
		for sent := 0; sent < total; {
			d, k := l.book(total - sent)
			sent += k
			if d <= 0 {
				continue
			}
			time.Sleep(d + 20*time.Millisecond)
			l.mu.Lock()
			l.late, l.woke = 20*time.Millisecond, time.Now()
			l.mu.Unlock()
		}
		if d := time.Since(start).Seconds(); d < 1.98 || d > 2.03 {
			t.Errorf("two seconds of bytes took %.3f s", d)
		}
	})
}

// TestPauseIsNotMadeGood: an idle stream earns the burst and nothing else.
func TestPauseIsNotMadeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(100_000)
		l.wait(nil, 50_000)
		l.late, l.woke = 200*time.Millisecond, time.Now()
		time.Sleep(time.Minute)
		start := time.Now()
		l.wait(nil, 105_000)
		if d := time.Since(start).Seconds(); d < 0.99 {
			t.Errorf("after a pause 105000 bytes passed in %.3f s", d)
		}
	})
}
