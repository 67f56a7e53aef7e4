package main

import (
	"context"
	"runtime"
	"testing"
	"time"
)

func TestProcs(t *testing.T) {
	p := procs{}
	for i, s := range []struct {
		load  float64
		times int
		want  bool
	}{
		{0.3, 10, false},
		{0.6, 10, false}, // one is enough
		{0.9, 1, true},
		{0.6, 10, true}, // it would be busy again
		{0.1, procsStay - 1, true},
		{0.5, 1, true}, // begins to count anew
		{0.1, procsStay - 1, true},
		{0.1, 1, false},
		{1.9, 1, true},
	} {
		var got bool
		for range s.times {
			got = p.step(s.load)
		}
		if got != s.want {
			t.Errorf("row %d: all %v", i, got)
		}
	}
}

// TestMatchProcs keeps one thread busy until there are more, and finds all when done.
func TestMatchProcs(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	all := runtime.GOMAXPROCS(0)
	if all == 1 {
		t.Skip("one processor")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		matchProcs(ctx)
	}()
	await := func(n int, work func()) {
		t.Helper()
		for end := time.Now().Add(time.Minute); runtime.GOMAXPROCS(0) != n; work() {
			if time.Now().After(end) {
				t.Fatalf("%d processors, not %d", runtime.GOMAXPROCS(0), n)
			}
		}
	}
	await(1, runtime.Gosched)
	await(all, runtime.Gosched) // which computes
	await(1, func() { time.Sleep(200 * time.Millisecond) })
	stop()
	<-done
	if n := runtime.GOMAXPROCS(0); n != all {
		t.Errorf("%d processors at the end, not %d", n, all)
	}
}
