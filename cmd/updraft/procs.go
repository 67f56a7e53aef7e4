package main

import (
	"context"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// An agent passes on what comes, a little at a time. With several threads for that,
// most of its work is that they wake each other: one thread does the same for two
// thirds of the time. So it has one until that is busy.
const (
	procsEach = time.Second / 2 // between looks
	procsMore = 0.7             // of the time of the one thread: take all
	procsLess = 0.4             // of the time of one, all together: go back to it
	procsStay = 6               // looks in a row of which that has to be true
)

// matchProcs lets the program run on one processor while that is enough, else on all
// that it may have, until ctx ends. Who sets GOMAXPROCS decides instead.
func matchProcs(ctx context.Context) {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) == 1 {
		return
	}
	defer runtime.SetDefaultGOMAXPROCS()
	t := time.NewTicker(procsEach)
	defer t.Stop()
	p := procs{}
	runtime.GOMAXPROCS(1)
	used, then := cpuTime(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		u, now := cpuTime(), time.Now()
		load := float64(u-used) / float64(now.Sub(then))
		used, then = u, now
		switch was := p.all; {
		case p.step(load) == was:
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

// step takes the processors in use of late, and reports whether to have all.
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

// cpuTime returns the time that this process has computed, of all its threads.
func cpuTime() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
