package swarm

import (
	"time"

	"golang.org/x/sys/unix"
)

// The clock of Go, CLOCK_MONOTONIC, stands still while the machine is suspended. A holder that wakes would take its last
// heartbeat for half a second old, and members for heard just now.
const (
	wakeLook  = 400 * time.Millisecond // between looks whether that was so
	wakeLeast = 2 * time.Second        // less than that others do not notice
)

// waking is what the loop knows of the machine's sleep.
type waking struct {
	asleep time.Duration // in all, when it looked last
	looked time.Duration // by the swarm's clock
}

// wake looks whether the machine was suspended: then the swarm's clock leaps by that time, as if the device had been
// paused.
func (s *Swarm) wake(w *waking) {
	now := s.now()
	if now-w.looked < wakeLook {
		return
	}
	w.looked = now
	d := s.asleep() - w.asleep
	if d < wakeLeast {
		return
	}
	w.asleep += d
	s.slept.Add(int64(d))
	s.log.Debug("woke", "after", d)
	if s.cfg.Woke != nil {
		s.cfg.Woke()
	}
}

// suspended returns for how long the machine was suspended since it was started (clock_gettime(2), CLOCK_BOOTTIME).
func suspended() time.Duration {
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
		return 0
	}
	return time.Duration(boot.Nano() - mono.Nano())
}
