package lease

import "time"

// leap is how far an epoch is ahead that is not believed.
const leap = 1 << 32

// Leaps reports whether an epoch is so far ahead of all that were used that it is a lie or damage: following it could
// exhaust the counter.
func (m *Machine) Leaps(epoch uint64) bool { return epoch > m.seen && epoch-m.seen >= leap }

func (m *Machine) see(epoch uint64) {
	if epoch > m.seen && !m.Leaps(epoch) {
		m.seen = epoch
	}
}

// behind reports whether a claimant is to be told that its epoch is behind, and notes that it is. It has started anew
// and knows of none: a tenure with that epoch would give way to any that is older. An epoch that it would not believe it
// is not told. It is told once a [Stall]: a third member that raises the epochs here, and here only, shall not have this
// one keep others waiting.
func (m *Machine) behind(now time.Duration, from string, epoch uint64) bool {
	p := m.members[from]
	if epoch >= m.seen || m.seen-epoch >= leap || p.behind && now-p.told < Stall {
		return false
	}
	p.behind, p.told = true, now
	return true
}
