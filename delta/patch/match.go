package patch

import (
	"context"
	"encoding/binary"
	"math/bits"
)

// cover says that new[n:n+l] agrees mostly with old[o:o+l].
type cover struct{ n, o, l int }

const (
	seedLen  = 8  // bytes that a seed has in common at least
	chainMax = 96 // candidates looked at for one seed
	wellLong = 1 << 12
)

// index finds exact matches in the base: a hash of every seed-long string (every
// step-th in large bases), chained from the last position to the first.
type index struct {
	old  []byte
	head []uint32 // position+1 divided by step
	prev []uint32
	step int
	bits uint
}

// indexMemory returns what the index of a base of n bytes may take by default: that of
// every other string, which costs a hundredth of the patch at most.
func indexMemory(n int64) int64 { return min(n/2*indexCost+1<<16, 768<<20) }

// indexCost is what a string takes in the index, in bytes, about.
const indexCost = 7

// newIndex indexes old in about memory bytes.
func newIndex(old []byte, memory int64) *index {
	x := &index{old: old, step: 1}
	for int64(len(old)/x.step)*indexCost > memory && x.step < 64 {
		x.step *= 2
	}
	n := len(old) / x.step
	x.bits = uint(max(12, min(26, bits.Len(uint(n-n/4))-1)))
	x.head = make([]uint32, 1<<x.bits)
	x.prev = make([]uint32, n+1)
	run := 0 // equal words before this one
	for k := 0; k*x.step+seedLen <= len(old); k++ {
		// Of a run of equal bytes only the front is a seed: it gives the longest match.
		if o := k * x.step; o > 0 && binary.LittleEndian.Uint64(old[o:]) == binary.LittleEndian.Uint64(old[o-x.step:]) {
			if run++; run > 2 {
				continue
			}
		} else {
			run = 0
		}
		h := x.hash(old[k*x.step:])
		x.prev[k] = x.head[h]
		x.head[h] = uint32(k + 1)
	}
	return x
}

func (x *index) hash(b []byte) uint32 {
	return uint32(binary.LittleEndian.Uint64(b) * 0x9E3779B97F4A7C15 >> (64 - x.bits))
}

// search returns the longest match for t among the candidates; hint is looked at
// first and wins ties.
func (x *index) search(t []byte, hint int) (pos, l int) {
	if hint >= 0 && hint < len(x.old) {
		pos, l = hint, common(x.old[hint:], t)
		if l >= wellLong {
			return pos, l
		}
	}
	if len(t) < seedLen {
		return pos, l
	}
	k := x.head[x.hash(t)]
	for tries := 0; k != 0 && tries < chainMax; tries++ {
		o := int(k-1) * x.step
		// A better one agrees in the byte after the best so far.
		if l < len(t) && o+l < len(x.old) && x.old[o+l] == t[l] {
			if m := common(x.old[o:], t); m > l {
				pos, l = o, m
				if l >= wellLong {
					break
				}
			}
		}
		k = x.prev[k-1]
	}
	return pos, l
}

// common returns the length of the common prefix.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if d := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); d != 0 {
			return i + bits.TrailingZeros64(d)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// matcher walks the new bytes once, as bsdiff does.
type matcher struct {
	x        *index
	old, new []byte
	out      []cover

	scan, pos, length         int // of the seed under consideration
	lastScan, lastPos, offset int // of the cover before
}

// covers returns covers of new in ascending order, without overlap.
func covers(ctx context.Context, old, new []byte, memory int64, progress func(done int64)) ([]cover, error) {
	if len(old) == 0 {
		return nil, nil
	}
	m := &matcher{x: newIndex(old, memory), old: old, new: new}
	told := 0
	for m.scan < len(new) {
		if m.scan-told > 1<<18 {
			told = m.scan
			progress(int64(told))
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		if m.next() {
			m.emit()
		}
	}
	return m.out, ctx.Err()
}

// next looks for the next seed that is better than going on along the last cover,
// and reports whether a cover ends here.
func (m *matcher) next() bool {
	score := 0
	m.scan += m.length
	sc := m.scan
	for ; m.scan < len(m.new); m.scan++ {
		m.pos, m.length = m.x.search(m.new[m.scan:], m.scan+m.offset)
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
	return m.length != score || m.scan == len(m.new)
}

// agrees reports whether new[i] is what the last cover, continued, says.
func (m *matcher) agrees(i int) bool {
	o := i + m.offset
	return i < len(m.new) && o >= 0 && o < len(m.old) && m.old[o] == m.new[i]
}

// emit extends the last cover forwards and the new seed backwards while more than
// half of the bytes agree, and writes the last cover.
func (m *matcher) emit() {
	lf := 0
	for i, s, best := 0, 0, 0; m.lastScan+i < m.scan && m.lastPos+i < len(m.old); {
		if m.old[m.lastPos+i] == m.new[m.lastScan+i] {
			s++
		}
		i++
		if v := s*2 - i; v > best {
			best, lf = v, i
		}
	}
	lb := 0
	if m.scan < len(m.new) {
		for i, s, best := 1, 0, 0; m.scan >= m.lastScan+i && m.pos >= i; i++ {
			if m.old[m.pos-i] == m.new[m.scan-i] {
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
			if m.new[m.lastScan+lf-over+i] == m.old[m.lastPos+lf-over+i] {
				s++
			}
			if m.new[m.scan-lb+i] == m.old[m.pos-lb+i] {
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
}
