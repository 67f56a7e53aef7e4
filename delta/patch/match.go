package patch

import (
	"context"
	"runtime/debug"
)

// cover says that new[n:n+l] agrees mostly with old[o:o+l].
type cover struct{ n, o, l int }

const (
	// matchAhead is how much of new a match is looked for in at least.
	matchAhead = 1 << 20
	// matchBehind is how far a cover grows backwards at most.
	matchBehind = 1 << 20
	// barren is behind how many bytes without a seed one is looked for at every other
	// byte only: covers grow backwards, so that little more than seeds of seedLen are lost.
	barren = 32
)

// matcher walks the new bytes once, as bsdiff does.
type matcher struct {
	x   *index
	old []byte
	new *window
	out []cover

	scan, pos, length         int // of the seed under consideration
	found                     int // where the last seed that was found ends
	lastScan, lastPos, offset int // of the cover before
	// How far the cover before has been looked at forwards, how many bytes of it agree,
	// the best length and what speaks for that.
	seen, agreed, far, best int
}

// covers returns covers of new in ascending order, without overlap. The index may take
// memory bytes.
func covers(ctx context.Context, old []byte, new Source, memory int64, meter *meter) ([]cover, error) {
	if len(old) == 0 {
		return nil, nil
	}
	w := newWindow(new)
	same, err := survey(ctx, old, w)
	if err != nil {
		return nil, err
	}
	w.lo, w.buf = 0, w.buf[:0]
	giveBack(len(old))
	m := &matcher{x: newIndex(old, same, memory), old: old, new: w}
	told := 0
	for m.scan < m.new.size {
		if m.scan-told > 1<<18 {
			meter.add(int64(m.scan - told))
			told = m.scan
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		ends, err := m.next()
		if err != nil {
			return nil, err
		}
		if ends {
			m.emit()
		}
	}
	meter.add(int64(m.new.size - told))
	out := m.out
	giveBack(len(old))
	return out, ctx.Err()
}

// giveBack frees what is garbage before it is many times as much as a base of n bytes:
// indexes and copies of it follow one another. Of small ones that takes longer than it
// is worth.
func giveBack(n int) {
	if n >= 4<<20 {
		debug.FreeOSMemory()
	}
}

// slide makes room to look ahead from scan.
func (m *matcher) slide() error {
	if m.scan+matchAhead <= m.new.hi() || m.new.hi() == m.new.size {
		return nil
	}
	m.forward()
	return m.new.move(max(m.new.lo, min(m.scan-matchBehind, m.new.hi())))
}

// next looks for the next seed that is better than going on along the last cover,
// and reports whether a cover ends here.
func (m *matcher) next() (bool, error) {
	score := 0
	m.scan += m.length
	sc, ahead := m.scan, m.scan+1 // where a cover goes on there is one search
	step := 1
	for ; m.scan < m.new.size; m.scan++ {
		if err := m.slide(); err != nil {
			return false, err
		}
		if m.scan < ahead && m.scan&(step-1) != 0 && !m.agrees(m.scan) {
			m.length = 0
			sc = max(sc, m.scan+1)
			continue
		}
		t := m.new.buf[m.scan-m.new.lo:]
		if m.scan >= ahead {
			if step = 1; m.scan-m.found > barren {
				step = 2
			}
			ahead = m.scan + m.x.ahead(t, step)
		}
		m.pos, m.length = m.x.search(t, m.scan+m.offset)
		if m.length >= seedLen {
			m.found = m.scan + m.length
		}
		for ; sc < m.scan+m.length; sc++ {
			if m.agrees(sc) {
				score++
			}
		}
		if m.length == score && m.length != 0 || m.length > score+8 {
			break
		}
		if m.agrees(m.scan) {
			score--
		}
	}
	return m.length != score || m.scan == m.new.size, nil
}

// agrees reports whether new[i] is what the last cover, continued, says.
func (m *matcher) agrees(i int) bool {
	o := i + m.offset
	return i < m.new.hi() && o >= 0 && o < len(m.old) && m.old[o] == m.new.buf[i-m.new.lo]
}

// forward looks how far the last cover goes, up to scan, while more than half of the
// bytes agree.
func (m *matcher) forward() {
	n := min(m.scan-m.lastScan, len(m.old)-m.lastPos)
	for i := m.seen; i < n; {
		if m.old[m.lastPos+i] == m.new.buf[m.lastScan+i-m.new.lo] {
			m.agreed++
		}
		i++
		if v := m.agreed*2 - i; v > m.best {
			m.best, m.far = v, i
		}
	}
	m.seen = max(m.seen, n)
}

// emit extends the last cover forwards and the new seed backwards while more than
// half of the bytes agree, and writes the last cover.
func (m *matcher) emit() {
	m.forward()
	lf := m.far
	lo := m.new.lo
	b := m.new.buf
	lb := 0
	if m.scan < m.new.size {
		for i, s, best := 1, 0, 0; m.scan-i >= max(m.lastScan, lo) && m.pos >= i; i++ {
			if m.old[m.pos-i] == b[m.scan-i-lo] {
				s++
			}
			if v := s*2 - i; v > best {
				best, lb = v, i
			}
			if s*2-i < best-256 { // far from paying
				break
			}
		}
	}
	if over := m.lastScan + lf - (m.scan - lb); over > 0 {
		s, best, keep := 0, 0, 0
		for i := range over {
			x := b[m.scan-lb+i-lo]
			if x == m.old[m.lastPos+lf-over+i] {
				s++
			}
			if x == m.old[m.pos-lb+i] {
				s--
			}
			if s >= best { // the cover before keeps what both give: the scan moves on
				best, keep = s, i+1
			}
		}
		lf += keep - over
		lb -= keep
	}
	if lf > 0 {
		m.out = append(m.out, cover{m.lastScan, m.lastPos, lf})
	}
	m.lastScan, m.lastPos, m.offset = m.scan-lb, m.pos-lb, m.pos-m.scan
	m.seen, m.agreed, m.far, m.best = 0, 0, 0, 0
}
