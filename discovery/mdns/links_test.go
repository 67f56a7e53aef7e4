package mdns

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What WatchLinks tells of when addresses change without end is as rare as sessions are, the last of them is told of,
// and a cable is not waited for.
func TestWatchLinksPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &run{links: make(chan struct{}, 1), watch: watchEvery}
		var mu sync.Mutex // guards all below
		now, last := lan{"fd00::1", "up"}, lan{}
		var told []time.Duration // since the change before, or the start
		began := time.Now()
		look := func() lan {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go r.follow(ctx, look, func() {
			mu.Lock()
			defer mu.Unlock()
			told, last = append(told, time.Since(began)), now
			began = time.Now()
		})
		change := func(to lan, pause time.Duration) {
			mu.Lock()
			now = to
			mu.Unlock()
			select {
			case r.links <- struct{}{}:
			default:
			}
			time.Sleep(pause)
		}
		results := func(check func()) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			check()
			told = nil
		}
		for i := range 10 * 60 * 5 { // five a second, for ten minutes
			change(lan{fmt.Sprintf("fd00::%d", 2+i), "up"}, 200*time.Millisecond)
		}
		results(func() {
			if n := len(told); n < 10 || n > 15 {
				t.Errorf("told %d times", n)
			}
			for i, d := range told {
				if want := min(time.Second<<i, sessionMost); d < want {
					t.Errorf("change %d was told after %v, want %v", i, d, want)
				}
			}
		})
		time.Sleep(sessionMost + watchEvery)
		results(func() {
			if last != now {
				t.Errorf("told last of %v, not of %v", last, now)
			}
		})
		change(lan{"", "down"}, 2*time.Second)
		change(lan{"fd00::1", "up"}, 2*time.Second)
		results(func() {
			if len(told) != 1 || last != now {
				t.Errorf("told %d times of a cable, last of %v", len(told), last)
			}
		})
	})
}
