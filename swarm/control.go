package swarm

import (
	"slices"
	"time"

	"updraft/swarm/wire"
)

// writeControl writes what the member is to be told, until it is gone. What is to be told is state, read when it is
// written: a member that takes nothing costs no memory, and is dropped after a while.
func (s *Swarm) writeControl(m *member) {
	var b []byte
	for {
		select {
		case <-m.gone:
			return
		case <-m.controlWake:
		}
		for {
			s.mu.Lock()
			b = s.appendControlLocked(m, b[:0])
			s.count.ControlOut += int64(len(b))
			s.mu.Unlock()
			if len(b) == 0 {
				break
			}
			err := m.control.SetWriteDeadline(time.Now().Add(stuckAfter))
			if err == nil {
				_, err = m.control.Write(b)
			}
			if err != nil {
				s.drop(m, "control stream: "+err.Error())
				return
			}
			if cap(b) > 2*controlBatch {
				b = nil
			}
		}
	}
}

// appendControlLocked appends the frames that are due, about controlBatch bytes of them.
func (s *Swarm) appendControlLocked(m *member, b []byte) []byte {
	if m.dropped {
		return b
	}
	if m.pingDue {
		b = wire.AppendFrame(b, wire.TypePing, nil)
	}
	if m.pongDue {
		b = wire.AppendFrame(b, wire.TypePong, nil)
	}
	m.pingDue, m.pongDue = false, false
	for _, id := range m.retracts {
		b = wire.AppendRetract(b, id)
	}
	m.retracts = m.retracts[:0]
	if m.profileDue {
		m.profileDue = false
		b = wire.AppendProfile(b, wire.Profile{Rank: rankTo(s.rankLocked()), Node: s.profile.Node})
	}
	n := 0
	for n < len(m.outbox) && len(b) < controlBatch {
		h := m.outbox[n]
		n++
		h.queued = false
		if h.obj != nil {
			b = s.appendShareLocked(h, b)
		}
	}
	m.outbox = m.outbox[:copy(m.outbox, m.outbox[n:])]
	kept := m.leases[:0]
	for _, l := range m.leases {
		if len(m.outbox) > 0 && l.Kind == wire.LeaseConsent {
			kept = append(kept, l) // it says that all this device has was told
			continue
		}
		b = wire.AppendLease(b, l)
	}
	m.leases = kept
	for _, r := range m.rumors {
		b = wire.AppendRumor(b, r)
	}
	m.rumors = m.rumors[:0]
	return b
}

// appendShareLocked appends what a member is to be told about one object.
func (s *Swarm) appendShareLocked(h *share, b []byte) []byte {
	obj := h.obj
	switch fresh := len(obj.log) - h.told; {
	case !h.announced || fresh > wire.MaxIndexes:
		h.announced, h.told = true, len(obj.log)
		b = wire.AppendInterest(b, obj.interest())
	case fresh > 0:
		if obj.deltaFrom != h.told || obj.deltaTo != len(obj.log) {
			list := slices.Clone(obj.log[h.told:])
			slices.Sort(list)
			obj.delta = wire.AppendIndexes(obj.delta[:0], wire.TypeHave, obj.ID, list)
			obj.deltaFrom, obj.deltaTo = h.told, len(obj.log)
		}
		h.told = len(obj.log)
		b = append(b, obj.delta...)
	}
	b = appendList(b, wire.TypeGet, h.id, &h.gets)
	b = appendList(b, wire.TypeCancel, h.id, &h.cancels)
	return appendList(b, wire.TypeNack, h.id, &h.nacks)
}

func appendList(b []byte, t wire.Type, id [32]byte, list *[]uint32) []byte {
	if len(*list) == 0 {
		return b
	}
	slices.Sort(*list)
	*list = slices.Compact(*list)
	for l := *list; len(l) > 0; {
		n := min(len(l), wire.MaxIndexes)
		b = wire.AppendIndexes(b, t, id, l[:n])
		l = l[n:]
	}
	*list = (*list)[:0]
	return b
}

// interest is the full announcement of an object.
func (obj *object) interest() wire.Interest {
	in := wire.Interest{ID: obj.ID, Count: uint32(len(obj.Sums))}
	if obj.opt.Receive {
		in.Flags |= wire.FlagReceive
	}
	if obj.opt.Produce {
		in.Flags |= wire.FlagProduce
	}
	if obj.n == len(obj.Sums) {
		in.Flags |= wire.FlagAll
	} else {
		in.Bits = obj.have.appendBytes(nil, len(obj.Sums))
	}
	return in
}
