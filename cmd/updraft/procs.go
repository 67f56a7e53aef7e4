package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// An agent passes on what comes, a little at a time. With several threads for that,
// much of its work is that they wake each other: one thread does the same for less.
// So it has one until that is busy, or waits for a processor that others use: who is
// late with what the site waits for would cost all the others more.
const (
	procsEach = time.Second / 2 // between looks
	procsIdle = 2 * time.Second // between looks when there is next to nothing to do, or it has all
	procsRest = 0.05            // of the time of one processor: that is next to nothing
	procsMore = 0.7             // of the time of the one thread, in work or waiting: take all
	procsLess = 0.4             // of the time of one, all threads together: go back to it
	procsStay = 2               // looks in a row of which that has to be true
	procsWait = 4               // looks at one thread's work, of which one asks as well how long it waited: that costs more
)

// matchProcs lets the program run on one processor while that is enough, else on all
// that it may have, until ctx ends. Who sets GOMAXPROCS decides instead.
func matchProcs(ctx context.Context) {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) == 1 {
		return
	}
	defer runtime.SetDefaultGOMAXPROCS()
	t := time.NewTimer(procsEach)
	defer t.Stop()
	p := procs{}
	runtime.GOMAXPROCS(1)
	work, then := cpuTime(), time.Now()
	busy, since := busyTime(), then
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		w, now := cpuTime(), time.Now()
		load := float64(w-work) / float64(now.Sub(then))
		work, then = w, now
		if p.all || load >= procsMore || n%procsWait == 0 {
			b := busyTime()
			load = max(load, float64(b-busy)/float64(now.Sub(since)))
			busy, since = b, now
		}
		was := p.all
		p.step(load)
		if load < procsRest || p.all {
			t.Reset(procsIdle)
		} else {
			t.Reset(procsEach)
		}
		switch {
		case p.all == was:
		case p.all:
			runtime.SetDefaultGOMAXPROCS()
		default:
			runtime.GOMAXPROCS(1)
		}
	}
}

// procs decides between one processor and all.
type procs struct {
	all  bool
	calm int // looks in a row at which one would have been enough
}

// step takes the processors asked for of late, and reports whether to have all.
func (p *procs) step(load float64) bool {
	switch {
	case load >= procsMore:
		p.all, p.calm = true, 0
	case load > procsLess:
		p.calm = 0
	default:
		p.calm++
		p.all = p.all && p.calm < procsStay
	}
	return p.all
}

// busyTime returns the time in which the threads of this process computed or waited for
// a processor, where the kernel says that.
func busyTime() time.Duration {
	tasks, _ := os.ReadDir("/proc/self/task")
	var sum time.Duration
	for _, t := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + t.Name() + "/schedstat")
		if err != nil {
			continue // it has ended
		}
		var run, wait int64
		if _, err := fmt.Sscan(string(b), &run, &wait); err == nil {
			sum += time.Duration(run + wait)
		}
	}
	if sum == 0 {
		return cpuTime()
	}
	return sum
}

// cpuTime returns the time that this process has computed, of all its threads.
func cpuTime() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
