package deflate

import (
	"encoding/binary"
	"math/bits"
)

// minLookahead is how many bytes must be known behind a position before it is looked
// at, unless the stream ends.
const minLookahead = maxMatch + minMatch + 1

// tooFar is the distance beyond which a match of 3 bytes is dearer than literals.
const tooFar = 4096

// matcher predicts the tokens of zlib and gzip. It holds a window of twice the
// largest distance, slid by half of it when it is used up; strings of three bytes
// are found through a hash of them and chains of earlier positions with that hash.
// Position 0 of the window cannot be found: 0 ends a chain.
//
//	for {
//		for fill is wanted { fill }
//		t, ok := predict()          // !ok: fill, then again
//		commit(t, or what the stream has instead)
//	}
type matcher struct {
	effort
	slow     bool
	golang   bool
	strategy Strategy
	win      *[2*maxWindow + winSlack]byte
	head     *[maxHash]uint16         // by hash: the last position with it
	wide     *[1 << goHashBits]uint16 // Go: as head, but position+1, as is prev
	prev     *[maxWindow]uint16       // by position within half the window: the one before it
	size     int                      // of half the window
	mask     int                      // size-1
	maxDist  int
	shift    uint
	hashMask uint32

	p         int  // start of the next token
	end       int  // of the bytes in win
	block     int  // where the block began; negative when it has left the window
	eof       bool // nothing follows end
	evaluated bool // p is inserted and found is its match
	found     match
	ahead     match // of p+1, valid after predict if looked
	looked    bool
	aheadHead int // earlier position with the hash of p+1
}

const (
	maxHash  = 1 << 16
	winSlack = 2 * (maxMatch + 8) // matches may be compared beyond the end
)

type match struct{ length, start int }

// reset makes m start anew with p, and keeps its memory where it fits.
func (m *matcher) reset(p Params) {
	size, bits := 1<<p.Window, uint(p.Memory)+7
	*m = matcher{effort: efforts[p.Level], slow: p.Level >= lazyFrom, strategy: p.Strategy, win: m.win, head: m.head, wide: m.wide, prev: m.prev}
	m.size, m.mask, m.maxDist = size, size-1, size-minLookahead
	m.shift, m.hashMask = (bits+minMatch-1)/minMatch, 1<<bits-1
	if m.win == nil {
		m.win, m.prev = new([2*maxWindow + winSlack]byte), new([maxWindow]uint16)
	}
	if m.golang = p.Family == Golang; m.golang {
		m.resetGo(p.Level)
		return
	}
	if m.head == nil {
		m.head, m.wide = new([maxHash]uint16), nil
	}
	clear(m.head[:1<<bits])
}

// place returns how far zlib thinks it is within the block when it writes the token at
// p: the lazy levels are one byte ahead.
func (m *matcher) place() int {
	if m.slow {
		return m.p + 1 - m.block
	}
	return m.p - m.block
}

// full reports whether predict may be called: the window is full or all is in it.
func (m *matcher) full() bool { return m.eof || m.end == 2*m.size }

// done reports whether no token is left.
func (m *matcher) done() bool { return m.eof && m.p == m.end }

// fill takes bytes into the window and returns how many it took.
func (m *matcher) fill(b []byte) int {
	n := copy(m.win[m.end:2*m.size], b)
	m.end += n
	return n
}

// room returns the free part of the window; grown tells how much of it was used.
func (m *matcher) room() []byte { return m.win[m.end : 2*m.size] }
func (m *matcher) grown(n int)  { m.end += n }

// finish says that no more bytes will come.
func (m *matcher) finish() {
	m.eof = true
	clear(m.win[m.end:])
}

// ready reports whether the position k after p can be looked at. It slides the
// window where zlib would; false: it must be filled first.
func (m *matcher) ready(k int) bool {
	if m.end-m.p-k >= minLookahead {
		return true
	}
	if m.p+k >= m.size+m.maxDist {
		m.slide()
	}
	return m.full()
}

func (m *matcher) slide() {
	copy(m.win[:], m.win[m.size:m.end])
	m.p -= m.size
	m.end -= m.size
	m.block -= m.size
	m.found.start -= m.size
	if m.golang {
		lower(m.wide[:], m.size)
	} else {
		lower(m.head[:m.hashMask+1], m.size)
	}
	lower(m.prev[:m.size], m.size)
	if m.eof {
		clear(m.win[m.end : m.end+minLookahead])
	}
}

// lower subtracts by from all positions; what falls out of the window ends a chain.
func lower(pos []uint16, by int) {
	for i, v := range pos {
		pos[i] = uint16(max(int(v)-by, 0))
	}
}

// insert enters position p and returns the one before it with the same hash, 0 for none.
func (m *matcher) insert(p int) int {
	if m.end-p < minMatch {
		return 0
	}
	v := binary.LittleEndian.Uint32(m.win[p:])
	h := (v<<(2*m.shift)&(0xff<<(2*m.shift)) ^ v>>8&0xff<<m.shift ^ v>>16&0xff) & m.hashMask % maxHash
	last := m.head[h]
	m.prev[p&m.mask%maxWindow] = last
	m.head[h] = uint16(p)
	return int(last)
}

// predict returns the token that comes next; false: the window must be filled first.
// There must be a byte left.
func (m *matcher) predict() (token, bool) {
	switch {
	case !m.ready(0):
		return 0, false
	case m.golang:
		return m.predictGo()
	case m.strategy == HuffmanOnly:
		return token(m.win[m.p]), true
	case m.strategy == RunLength:
		return m.run(), true
	case !m.slow:
		return m.fast(), true
	}
	if !m.evaluated {
		m.found = match{}
		if h := m.insert(m.p); h != 0 && m.p-h <= m.maxDist {
			m.found = m.accept(m.p, h, minMatch-1)
		}
		m.evaluated, m.looked = true, false
	}
	if !m.looked {
		if !m.ready(1) {
			return 0, false
		}
		m.lookAhead()
	}
	if m.found.length >= minMatch && m.ahead.length <= m.found.length {
		return matchToken(m.found.length, m.p-m.found.start), true
	}
	return token(m.win[m.p]), true
}

// lookAhead finds the match of p+1, if that of p is not good enough.
func (m *matcher) lookAhead() {
	m.looked, m.ahead, m.aheadHead = true, match{}, 0
	q := m.p + 1
	if q >= m.end {
		return
	}
	m.aheadHead = m.insert(q)
	if h := m.aheadHead; h != 0 && m.found.length < m.lazy && q-h <= m.maxDist {
		m.ahead = m.accept(q, h, max(m.found.length, minMatch-1))
	}
}

// accept returns the longest match if it is worth a token.
func (m *matcher) accept(p, h, prev int) match {
	r := m.longest(p, h, prev)
	if r.length <= 5 && (m.strategy == Filtered || r.length == minMatch && p-r.start > tooFar) {
		return match{}
	}
	return r
}

// fast predicts levels 1 to 3: the match at p, whatever follows.
func (m *matcher) fast() token {
	if !m.evaluated {
		m.found, m.evaluated = match{}, true
		if h := m.insert(m.p); h != 0 && m.p-h <= m.maxDist {
			m.found = m.longest(m.p, h, minMatch-1)
		}
	}
	if m.found.length >= minMatch {
		return matchToken(m.found.length, m.p-m.found.start)
	}
	return token(m.win[m.p])
}

// run predicts a run of the byte before p.
func (m *matcher) run() token {
	if m.p > 0 && m.end-m.p >= minMatch {
		b, n := m.win[m.p-1], 0
		for most := min(maxMatch, m.end-m.p); n < most && m.win[m.p+n] == b; n++ {
		}
		if n >= minMatch {
			return matchToken(n, 1)
		}
	}
	return token(m.win[m.p])
}

// commit goes on behind t, which begins at p and may be another than predicted.
func (m *matcher) commit(t token) {
	if m.golang {
		m.commitGo(t)
		return
	}
	n := t.size()
	switch {
	case m.strategy == HuffmanOnly || m.strategy == RunLength:
	case !m.slow:
		if t.isMatch() && n <= m.lazy && m.end-m.p-n >= minMatch {
			for q := m.p + 1; q < m.p+n; q++ {
				m.insert(q)
			}
		}
		m.evaluated = false
	case !t.isMatch():
		if m.found.length >= minMatch && m.ahead.length <= m.found.length {
			// Another literal than predicted: what follows is seen afresh.
			m.ahead = match{}
			if h := m.aheadHead; h != 0 && m.p+1-h <= m.maxDist {
				m.ahead = m.accept(m.p+1, h, minMatch-1)
			}
		}
		m.found, m.looked = m.ahead, false
	default:
		for q := m.p + 2; q < m.p+n; q++ {
			m.insert(q)
		}
		m.evaluated, m.looked = false, false
	}
	m.p += n
}

// longest returns the longest match of p among h and the positions before it, or
// {prev or less, …} if none is longer than prev, which is at least 2.
func (m *matcher) longest(p, h, prev int) match {
	chain, best, start := m.chain, prev, 0
	if prev >= m.good {
		chain >>= 2
	}
	ahead := m.end - p
	nice := min(m.nice, ahead)
	limit := max(p-m.maxDist, 0)
	win, links, mask := m.win, m.prev, m.mask
	scan := win[p : p+maxMatch+8]
	// What is longer than best agrees in the four bytes that end at best: one look
	// at them passes over most positions.
	tail, care := uint(max(best-3, 0)), uint32(1<<32-1)
	if best < 3 {
		care = 1<<24 - 1
	}
	want := binary.LittleEndian.Uint32(scan[tail:])
	for {
		at := (uint(h)%(2*maxWindow) + tail) % (2 * maxWindow * 2)
		if at+4 > uint(len(win)) {
			break
		}
		if (binary.LittleEndian.Uint32(win[at:at+4])^want)&care == 0 {
			if n := common(scan, win[h:h+maxMatch+8]); n > best {
				best, start = n, h
				if n >= nice {
					break
				}
				tail, care = uint(best-3), 1<<32-1
				want = binary.LittleEndian.Uint32(scan[tail:])
			}
		}
		h = int(links[h&mask%maxWindow])
		if h <= limit {
			break
		}
		if chain--; chain == 0 {
			break
		}
	}
	return match{min(best, ahead), start}
}

// common returns how many bytes a and b begin with in common, at most 258.
func common(a, b []byte) int {
	for i := 0; i < maxMatch; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return min(i+bits.TrailingZeros64(x)/8, maxMatch)
		}
	}
	return maxMatch
}
