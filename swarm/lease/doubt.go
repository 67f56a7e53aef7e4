package lease

import "time"

// doubt is what is remembered of a member that kept this one waiting for nothing.
type doubt struct {
	until time.Duration
	times int
}

// Progress tells that something new has come to this member: whoever keeps it from the uplink does so with reason.
func (m *Machine) Progress(now time.Duration) {
	m.since = now
	clear(m.hinders)
}

// hindered counts a message that keeps this candidate from claiming. It reports whether the message is not to be
// followed: it comes from a doubted member, or speaks for one.
func (m *Machine) hindered(now time.Duration, from string, msg Message) bool {
	switch msg.Kind {
	case Claim, Heartbeat, Object:
	default:
		return false
	}
	if m.doubted(now, from) || msg.Kind == Object && m.doubted(now, msg.Holder) {
		return true
	}
	if m.state == Waiting || m.state == Claiming {
		if msg.Kind == Object && msg.Holder != "" && msg.Holder == m.holder {
			from = msg.Holder // heard here as well: who tells of it is no liar
		}
		m.hinders[from]++
	}
	return false
}

func (m *Machine) doubted(now time.Duration, id string) bool {
	d, ok := m.doubts[id]
	return ok && now < d.until
}

// judge doubts who has kept this candidate waiting for nothing: those who did so most.
func (m *Machine) judge(now time.Duration) {
	if m.state != Waiting && m.state != Claiming || now-m.since < Stall {
		return
	}
	most := 0
	for _, n := range m.hinders {
		most = max(most, n)
	}
	for id, n := range m.hinders {
		if 2*n >= most {
			m.distrust(now, id)
		}
	}
	m.Progress(now)
}

func (m *Machine) distrust(now time.Duration, id string) {
	if _, ok := m.doubts[id]; !ok && len(m.doubts) >= doubtKept {
		oldest := ""
		for k, d := range m.doubts {
			if oldest == "" || d.until < m.doubts[oldest].until {
				oldest = k
			}
		}
		delete(m.doubts, oldest)
	}
	d := m.doubts[id]
	d.until = now + DoubtFor<<min(d.times, doubtMost)
	d.times++
	m.doubts[id] = d
	if m.holder == id {
		m.vacate(now, Settle)
	}
}
