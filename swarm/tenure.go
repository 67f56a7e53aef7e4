package swarm

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm/lease"
	"updraft/swarm/wire"
)

// AcquireOptions changes how Acquire waits.
type AcquireOptions struct {
	// NoWait makes Acquire return *HeldError at once when another device is known to hold the lease, and as soon as
	// one is known while it waits.
	NoWait bool
}

// Tenure is the time during which this device holds the uplink lease.
type Tenure struct {
	s     *Swarm
	epoch uint64
	lost  chan struct{} // closed under Swarm.mu, once
}

// Lost returns a channel that is closed when the tenure is over, whether released or taken. What the holder was
// fetching may then be fetched by another device.
func (t *Tenure) Lost() <-chan struct{} { return t.lost }

// Epoch returns the number of the tenure; a later one of the site has a higher number.
func (t *Tenure) Epoch() uint64 { return t.epoch }

// Wanted reports whether another member waits for the lease.
func (t *Tenure) Wanted() bool {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tenure == t && s.lease.Wanted()
}

// Release gives the lease up. Releasing a tenure that is over does nothing.
func (t *Tenure) Release() {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenure == t {
		s.runLocked(s.lease.Release(s.now()))
		s.endTenureLocked()
	}
}

// Holder returns the device that is known to hold the uplink lease, which may be this one.
func (s *Swarm) Holder() (peer.ID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.lease.Holder(s.now())
	return peer.ID(id), ok
}

// Acquire waits until this device holds the uplink lease, or ctx ends. Before it returns, members have been asked to
// tell what they have, so that Missing is fresh. One Acquire or Tenure at a time: ErrLeaseInUse.
func (s *Swarm) Acquire(ctx context.Context, o AcquireOptions) (*Tenure, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	if s.tenure != nil || s.acquiring {
		s.mu.Unlock()
		return nil, ErrLeaseInUse
	}
	if err := s.heldLocked(o); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	s.acquiring = true
	s.lease.SetRank(s.rankLocked())
	s.runLocked(s.lease.Acquire(s.now()))
	s.mu.Unlock()
	for {
		s.mu.Lock()
		if t := s.tenure; t != nil {
			s.acquiring = false
			s.mu.Unlock()
			return t, nil
		}
		err := s.heldLocked(o)
		switch {
		case s.closed:
			err = ErrClosed
		case ctx.Err() != nil:
			err = ctx.Err()
		}
		if err != nil {
			s.acquiring = false
			s.runLocked(s.lease.Release(s.now()))
			s.mu.Unlock()
			return nil, err
		}
		if s.lease.State() == lease.Idle { // the tenure was lost before anybody saw it
			s.runLocked(s.lease.Acquire(s.now()))
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// heldLocked returns the error of NoWait.
func (s *Swarm) heldLocked(o AcquireOptions) error {
	if id, ok := s.lease.Holder(s.now()); o.NoWait && ok && peer.ID(id) != s.self {
		return &HeldError{By: peer.ID(id)}
	}
	return nil
}

func (s *Swarm) endTenureLocked() {
	if t := s.tenure; t != nil {
		s.tenure = nil
		close(t.lost)
		s.notifyLocked()
	}
}

// runLocked does what the lease asks for.
func (s *Swarm) runLocked(effects []lease.Effect) {
	for _, e := range effects {
		switch e.Do {
		case lease.Send:
			if e.To == "" {
				s.startRumorLocked(e.Msg)
				for _, m := range s.members {
					s.sendLeaseLocked(m, e.Msg)
				}
			} else if m := s.members[peer.ID(e.To)]; m != nil {
				s.sendLeaseLocked(m, e.Msg)
			}
		case lease.Granted:
			s.tenure = &Tenure{s: s, epoch: s.lease.Epoch(), lost: make(chan struct{})}
			s.notifyLocked()
		case lease.Lost:
			s.endTenureLocked()
		case lease.Changed:
			s.notifyLocked()
		case lease.Flush:
			if m := s.members[peer.ID(e.To)]; m != nil {
				for _, h := range m.shares {
					if h.obj == nil {
						continue
					}
					for i := range h.obj.kept {
						s.tellLocked(h.obj, i)
					}
					if h.told < len(h.obj.log) {
						s.queueLocked(h)
					}
				}
			}
		}
	}
	if at, ok := s.lease.Next(); ok {
		s.soonLocked(at)
	}
}

// sendLeaseLocked queues a message; a later one of a kind replaces an earlier one, so that a member that takes
// nothing costs nothing.
func (s *Swarm) sendLeaseLocked(m *member, msg lease.Message) {
	w := wire.Lease{Kind: wire.LeaseKind(msg.Kind), Epoch: msg.Epoch, Rank: rankTo(msg.Rank), Holder: msg.Holder}
	for k := range m.leases {
		if m.leases[k].Kind == w.Kind && k == len(m.leases)-1 {
			m.leases[k] = w
			return
		}
	}
	if len(m.leases) >= maxLeaseQueue {
		m.leases = m.leases[:copy(m.leases, m.leases[1:])]
	}
	m.leases = append(m.leases, w)
	m.wakeControl()
}
