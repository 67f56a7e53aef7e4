package swarm

import "time"

// proveWithin is how long a member has to show that it is there when the network has changed, and quietFor how long
// nothing has come from anybody before that counts as having been cut off.
const (
	proveWithin = time.Second
	quietFor    = 2 * time.Second
)

// Recheck is for when the network of this device has changed, as when a cable is plugged in again: a connection that
// was up before may be repeating what was lost at pauses of many seconds, while a new one is there at once. Each
// member is asked for a sign of life; who gives none within a second is dropped, and dialled anew. On a slow link the
// question waits behind blobs: 1 KiB that comes or is acknowledged meanwhile is a sign as well. No sign is what is
// acknowledged after a while in which nothing was: this way is open again, while the other side may wait for seconds yet
// before it repeats what was lost. Where such a while has passed although bytes are out, the member is dropped at once.
// Those that could not be reached before are dialled at once. It reports whether this device may have been cut off:
// nobody had been heard of for a while already, though somebody had since the last call, or was given up in it or after
// it.
func (s *Swarm) Recheck() (quiet bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	at := s.heardLocked()
	quiet = (s.givenUp || at > s.rechecked) && now-at > quietFor
	s.givenUp = false
	again := s.relinkedLocked(now)
	s.rechecked = now // before anybody is dropped: that is dialled as after a change
	for _, m := range s.members {
		silent, out := m.raw.unacked()
		m.oneWay = silent > quietFor
		if m.oneWay && out {
			s.givenUp = true
			s.dropLocked(m, "cut off")
			continue
		}
		m.proving, m.moved, m.pingDue = now, m.proof(), true
		m.wakeControl()
	}
	s.redialLocked(now, again)
	return quiet
}

// Heard reports whether one who was a member then has said anything since Recheck was called last. Who has become a member
// since may have been cut off.
func (s *Swarm) Heard() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		if m.joined <= s.rechecked && m.heard > s.rechecked {
			return true
		}
	}
	return false
}

// heardLocked returns when anybody was heard of last; 0: nobody ever was.
func (s *Swarm) heardLocked() time.Duration {
	at := s.heardOf
	for _, m := range s.members {
		at = max(at, m.heard)
	}
	return at
}

// proveLocked drops members that have not shown that they are there, and returns when to look again.
func (s *Swarm) proveLocked(now time.Duration) time.Duration {
	next := now + idleWake
	for _, m := range s.members {
		switch end := m.proving + proveWithin; {
		case m.proving == 0:
		case m.heard > m.proving || now >= end && m.proof()-m.moved > paceLeast:
			m.proving = 0
		case now >= end:
			s.givenUp = true
			s.dropLocked(m, "silent")
		default:
			next = min(next, end)
		}
	}
	return next
}
