package deflate

import (
	"encoding/binary"
	"slices"
)

// What Go's compress/flate does otherwise than zlib, levels 2 to 9: matches of at least
// four bytes, up to the full window away; blocks of 1<<14 symbols, none of them the
// last, which is stored and empty; codes of least cost by the package-merge method.

const (
	goMinMatch = 4
	goSymbols  = 1 << 14
	goHashBits = 17
)

// goEfforts are those of levels that do not compare a match with the next; lazy is how
// long a match is at most within which positions are inserted. All others are zlib's.
var goEfforts = [lazyFrom]effort{2: {4, 5, 16, 8}, 3: {4, 6, 32, 32}}

// resetGo makes m start anew, as Go.
func (m *matcher) resetGo(level uint8) {
	if !m.slow {
		m.effort = goEfforts[level]
	}
	if m.wide == nil {
		m.head, m.wide = nil, new([1 << goHashBits]uint16)
	}
	clear(m.wide[:])
}

// goInsert enters position p and returns the one before it with the same hash, -1 for
// none.
func (m *matcher) goInsert(p int) int {
	if m.end-p < goMinMatch {
		return -1
	}
	h := binary.BigEndian.Uint32(m.win[p:]) * 0x1e35a7bd >> (32 - goHashBits)
	last := m.wide[h]
	m.prev[p%maxWindow] = last
	m.wide[h] = uint16(p + 1)
	return int(last) - 1
}

// goLongest returns the match of p among h and the positions before it.
func (m *matcher) goLongest(p, h int) match {
	least := max(p-maxWindow, 0)
	ahead := min(m.end-p, maxMatch)
	if h < least || ahead < goMinMatch {
		return match{}
	}
	nice := min(m.nice, ahead)
	best := match{length: goMinMatch - 1}
	for tries := m.chain; tries > 0; tries-- {
		if m.win[p+best.length] == m.win[h+best.length] {
			n := min(common(m.win[p:p+maxMatch+8], m.win[h:h+maxMatch+8]), ahead)
			if n > best.length && (n > goMinMatch || p-h <= tooFar) {
				best = match{n, h}
				if n >= nice {
					break
				}
			}
		}
		if h == p-maxWindow {
			break // its link is overwritten
		}
		if h = int(m.prev[h%maxWindow]) - 1; h < least {
			break
		}
	}
	if best.length < goMinMatch {
		return match{}
	}
	return best
}

// predictGo is predict for Go.
func (m *matcher) predictGo() (token, bool) {
	if !m.evaluated {
		m.found = m.goLongest(m.p, m.goInsert(m.p))
		m.evaluated, m.looked = true, false
	}
	if m.slow && !m.looked {
		if !m.ready(1) {
			return 0, false
		}
		m.looked, m.ahead, m.aheadHead = true, match{}, -1
		if q := m.p + 1; q < m.end {
			m.aheadHead = m.goInsert(q)
			if m.found.length < m.lazy && m.end-q > m.found.length {
				m.ahead = m.goLongest(q, m.aheadHead)
			}
		}
	}
	if m.found.length >= goMinMatch && (!m.slow || m.ahead.length <= m.found.length) {
		return matchToken(m.found.length, m.p-m.found.start), true
	}
	return token(m.win[m.p]), true
}

// commitGo is commit for Go.
func (m *matcher) commitGo(t token) {
	n := t.size()
	switch {
	case !m.slow:
		if t.isMatch() && n <= m.lazy {
			for q := m.p + 1; q < m.p+n; q++ {
				m.goInsert(q)
			}
		}
		m.evaluated = false
	case !t.isMatch():
		if m.found.length >= goMinMatch && m.ahead.length <= m.found.length {
			// Another literal than predicted: what follows is seen afresh.
			m.ahead = m.goLongest(m.p+1, m.aheadHead)
		}
		m.found, m.looked = m.ahead, false
	default:
		for q := m.p + 2; q < m.p+n; q++ {
			m.goInsert(q)
		}
		m.evaluated, m.looked = false, false
	}
	m.p += n
}

// planGo is plan for Go.
func (c *composer) planGo(lost bool) int {
	if len(c.tokens) == 0 {
		return kindStored
	}
	least := c.dist // a code without a symbol has one
	if c.matches == 0 {
		least[0] = 1
	}
	nlit, ndist := c.merge.build(c.lit[:], 15, c.litLens[:]), c.merge.build(least[:], 15, c.distLens[:])
	dynamic := c.makeHeader(nlit, ndist) + 3
	fixed, extra := 3, 0
	for i, f := range c.lit {
		if i > endBlock {
			extra += int(f) * int(rfc.lenExtra[i-endBlock-1])
		}
		dynamic += int(f) * int(c.litLens[i])
		fixed += int(f) * int(rfc.fixedLit[i])
	}
	for i, f := range least {
		extra += int(f) * int(rfc.distExtra[i])
		dynamic += int(f) * int(c.distLens[i])
		fixed += int(f) * 5
	}
	switch {
	case !lost && c.size <= maxStored && int(c.size+5)*8 < min(dynamic, fixed)+extra:
		return kindStored
	case dynamic < fixed:
		return kindDynamic
	}
	return kindFixed
}

// goRuns is runLengths for Go.
func goRuns(lens []uint8, out []uint16) []uint16 {
	for i := 0; i < len(lens); {
		l, n := uint16(lens[i]), 1
		for i+n < len(lens) && uint16(lens[i+n]) == l {
			n++
		}
		i += n
		if l != 0 {
			out = append(out, l)
			for n--; n >= 3; n -= min(n, 6) {
				out = append(out, 16|uint16(min(n, 6)-3)<<8)
			}
		} else {
			for ; n >= 11; n -= min(n, 138) {
				out = append(out, 18|uint16(min(n, 138)-11)<<8)
			}
			if n >= 3 {
				out = append(out, 17|uint16(n-3)<<8)
				n = 0
			}
		}
		for ; n > 0; n-- {
			out = append(out, l)
		}
	}
	return out
}

// merger builds codes of least cost among those of limited length, by package-merge:
// on each level stand the leaves and the pairs of the level below, in the order of
// their frequencies, a pair in front of a leaf that is as frequent.
type merger struct {
	leaves []leaf
	rows   [15][]uint32 // frequencies
	pair   [15][]bool   // which of them are pairs
}

// leaf is a symbol and its frequency, which is above it.
type leaf = uint64

func frequency(l leaf) uint32 { return uint32(l >> 16) }

// build sets lens by the frequencies, at most limit bits each, and returns how many
// of them there are up to the last one in use.
func (g *merger) build(freq []uint32, limit int, lens []uint8) int {
	clear(lens)
	g.leaves = g.leaves[:0]
	last := 0
	for i, f := range freq {
		if f > 0 {
			g.leaves = append(g.leaves, leaf(f)<<16|leaf(i))
			last = i + 1
		}
	}
	n := len(g.leaves)
	if n <= 2 {
		for _, l := range g.leaves {
			lens[uint16(l)] = 1
		}
		return last
	}
	slices.Sort(g.leaves)
	limit = min(limit, n-1)
	for k := range limit {
		g.row(k)
	}
	// Of the last row 2n-2 are taken; of each row below twice as many as pairs above
	// it. Each leaf taken is a bit more of its code.
	take := 2*n - 2
	for k := limit - 1; k >= 0; k-- {
		pairs := 0
		for _, is := range g.pair[k][:take] {
			if is {
				pairs++
			}
		}
		for _, l := range g.leaves[:take-pairs] {
			lens[uint16(l)]++
		}
		take = 2 * pairs
	}
	return last
}

// row makes row k from the one below.
func (g *merger) row(k int) {
	g.rows[k], g.pair[k] = g.rows[k][:0], g.pair[k][:0]
	var below []uint32
	if k > 0 {
		below = g.rows[k-1]
	}
	i, p := 0, 0
	for i < len(g.leaves) || p+1 < len(below) {
		isPair := i == len(g.leaves)
		if p+1 < len(below) && !isPair {
			isPair = frequency(g.leaves[i]) >= below[p]+below[p+1]
		}
		if isPair {
			g.rows[k] = append(g.rows[k], below[p]+below[p+1])
			p += 2
		} else {
			g.rows[k] = append(g.rows[k], frequency(g.leaves[i]))
			i++
		}
		g.pair[k] = append(g.pair[k], isPair)
	}
}
