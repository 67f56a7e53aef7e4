package swarm

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sys/unix"
)

// Held is what a member makes a device keep: the most of any of its members, and what all share.
type Held struct {
	Shares, ShareBytes, Wants, Nacks, Leases, Rumors, Outbox int
	Outstanding                                              int64
	Cache, Members, Strange, Late, Targets                   int
}

// Held returns what is kept now.
func (s *Swarm) Held() Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Held{Cache: s.cache.size, Members: len(s.members), Strange: len(s.strange), Late: len(s.late), Targets: len(s.targets)}
	for _, m := range s.members {
		l.Shares, l.ShareBytes = max(l.Shares, len(m.shares)), max(l.ShareBytes, m.shareBytes)
		l.Leases, l.Rumors, l.Outbox = max(l.Leases, len(m.leases)), max(l.Rumors, len(m.rumors)), max(l.Outbox, len(m.outbox))
		l.Outstanding = max(l.Outstanding, m.outstanding)
		for _, h := range m.shares {
			l.Wants, l.Nacks = max(l.Wants, len(h.wants)), max(l.Nacks, len(h.nacks))
		}
	}
	return l
}

// Age makes it as if nothing had been said nor done for d.
func (s *Swarm) Age(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worked -= d
	for _, m := range s.members {
		m.heard -= d
	}
}

// SetStart makes it as if the swarm had been made at t. Before Run.
func (s *Swarm) SetStart(t time.Time) { s.start = t }

// SetAsleep lets the machine have been suspended for what f says. Before Run.
func (s *Swarm) SetAsleep(f func() time.Duration) { s.asleep = f }

// DialIn returns how long it is until a peer is dialled.
func (s *Swarm) DialIn(id peer.ID) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.targets[id].next - s.now()
}

// Deafen has the kernel drop what comes from members, as on a line that is cut, or no more.
func (s *Swarm) Deafen(on bool) (err error) {
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		_ = m.raw.raw.Control(func(fd uintptr) {
			if on {
				err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
			} else {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
			}
		})
	}
	return err
}

// Unacked returns for how long a member should have acknowledged what was sent, and has not.
func (s *Swarm) Unacked() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		if silent, out := m.raw.unacked(); out {
			return silent
		}
	}
	return 0
}
