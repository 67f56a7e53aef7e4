package lease

import "time"

// doubt is what is remembered of a member that kept this one waiting for nothing.
type doubt struct {
	until time.Duration
	times int
}

// hearsay stands for all holders that this member is told of and not connected with. A name costs nothing: who could
// invent the next one when the first is doubted would be followed for ever.
const hearsay = "\x00"

// account returns who answers for what id says.
func (m *Machine) account(id string) string {
	if _, ok := m.members[id]; ok {
		return id
	}
	return hearsay
}

// hindersMost is how many members are counted that keep this one waiting.
const hindersMost = 1 << 10

// Progress tells that something new has come to this member: whoever keeps it from the uplink does so with reason.
func (m *Machine) Progress(now time.Duration) {
	m.came = now
	m.believe(now)
}

// Vouch tells that the holder says to have got what is not for this member, such as blocks of a patch that it has no
// base for. That is a reason too, for as long as [VouchFor] after something came.
func (m *Machine) Vouch(now time.Duration) {
	if now-m.came < VouchFor {
		m.believe(now)
	}
}

// believe holds nothing against anybody that was before now.
func (m *Machine) believe(now time.Duration) {
	m.since = now
	clear(m.hinders)
}

// awake takes note that this member is told of something at now. Time in which it was told of nothing, since it was
// paused or its clock jumped, is held against nobody: a candidate that attends has an event within [Expiry].
func (m *Machine) awake(now time.Duration) {
	if away := now - m.last; away > Expiry {
		m.since = min(m.since+away, now)
		m.came = min(m.came+away, now)
	}
	m.last = now
}

// hindered counts a message that keeps this candidate from claiming. It reports whether the message is not to be
// followed: it comes from a doubted member, or speaks for one.
func (m *Machine) hindered(now time.Duration, from string, msg Message) bool {
	switch msg.Kind {
	case Claim, Heartbeat, Object:
	default:
		return false
	}
	named := msg.Kind == Object && msg.Holder != "" && msg.Holder != m.self
	if m.doubted(now, from) || m.doubted(now, m.account(from)) || named && (m.doubted(now, msg.Holder) || m.doubted(now, m.account(msg.Holder))) {
		return true
	}
	if m.state == Waiting || m.state == Claiming {
		from = m.account(from)
		if named && msg.Holder == m.holder && !m.proxy {
			from = m.account(msg.Holder) // heard here as well: who tells of it is no liar
		}
		m.hinder(from)
		if named && m.account(msg.Holder) == hearsay && from != hearsay {
			m.hinder(hearsay)
		}
	}
	return false
}

func (m *Machine) hinder(who string) {
	if _, ok := m.hinders[who]; ok || len(m.hinders) < hindersMost {
		m.hinders[who]++
	}
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
	m.believe(now)
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
	d, ok := m.doubts[id]
	if ok {
		d.times = max(0, d.times-int(max(0, now-d.until)/DoubtForget))
	}
	d.until = now + DoubtFor<<min(d.times, doubtMost)
	d.times++
	m.doubts[id] = d
	if m.holder != "" && m.holder != m.self && (m.holder == id || m.account(m.holder) == id) {
		m.vacate(now, Settle)
	}
}
