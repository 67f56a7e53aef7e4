package patch

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Plain segments are coded with the binary coder of the dense ones, but with at most two
// contexts for a decision, and nothing at all for what is as in the base but one
// decision in 32 bytes.

// plainMemory is what a lightCoder takes, in bytes, about.
const plainMemory = 2 << 20

const (
	lightBlock = 32
	// lightRun is how much of a cover is at hand at once.
	lightRun = 64 << 10
	litBits  = 18
)

// lightCoder codes plain segments; the same calls encode and decode.
type lightCoder struct {
	c       *coder
	blocks  [1 << 10]prob
	words   [1 << 12]prob
	exact   [1 << 14]prob
	hits    [1 << 8]prob
	zero    [1 << 14]prob
	value   [1 << 18]prob
	number  [numKinds << 8]prob
	literal [1<<16 + 1<<litBits]prob
	match   [6]prob
	more    prob
	far     [4 << 6]prob
	tail    [16]prob

	byWord  [1 << 12]wordChange
	byClass [1 << 8][2]uint32
	bh, wh  uint32 // blocks and words that differed, the last one lowest
}

// wordChange is how a word of the base differed the last time.
type wordChange struct{ key, by uint32 }

func (l *lightCoder) reset(c *coder) {
	l.c, l.more, l.bh, l.wh = c, probHalf, 0, 0
	clear(l.byWord[:])
	clear(l.byClass[:])
	for _, t := range [][]prob{l.blocks[:], l.words[:], l.exact[:], l.hits[:], l.zero[:], l.value[:], l.number[:], l.literal[:], l.match[:], l.far[:], l.tail[:]} {
		t[0] = probHalf
		for n := 1; n < len(t); n *= 2 {
			copy(t[n:], t[:n])
		}
	}
}

func (l *lightCoder) bit(s *prob, b int) int {
	b = l.code(b, uint32(*s))
	s.update(b)
	return b
}

// prob is the probability of a one, in 1/65536.
type prob uint16

const (
	probHalf = prob(1 << 15)
	probRate = 4
)

// update keeps s within 15..65520.
func (s *prob) update(b int) {
	p := int32(*s)
	*s = prob(p + (int32(-b&65535|(b-1)&15)-p)>>probRate)
}

// code codes b, a one with probability p/65536. It is the coder's bit without what
// that has for probabilities near 0 and 1.
func (l *lightCoder) code(b int, p uint32) int {
	c := l.c
	lo, hi := c.lo, c.hi
	mid := lo + uint32(uint64(hi-lo)*uint64(p)>>16)
	if !c.enc {
		b = 0
		if c.x <= mid {
			b = 1
		}
	}
	one := uint32(-b)
	lo, hi = lo&one|(mid+1)&^one, mid&one|hi&^one
	c.lo, c.hi = lo, hi
	if (lo^hi)>>24 == 0 {
		c.shift()
	}
	return b
}

// pair codes b with the mean of two slots.
func (l *lightCoder) pair(s, t *prob, b int) int {
	b = l.code(b, (uint32(*s)+uint32(*t))>>1)
	s.update(b)
	t.update(b)
	return b
}

// num codes v, below 1<<40, under context id.
func (l *lightCoder) num(v uint64, id int) uint64 {
	t := l.number[id<<8:][:256]
	n, k := bits.Len64(v+1), 1
	for k < 41 {
		more := 0
		if n > k {
			more = 1
		}
		if l.bit(&t[k], more) == 0 {
			break
		}
		k++
	}
	r := uint64(1)
	for i := k - 2; i >= 0; i-- {
		b := int((v + 1) >> uint(i) & 1)
		switch k - 2 - i {
		case 0:
			b = l.bit(&t[48+k], b)
		case 1:
			b = l.bit(&t[96+k*2+int(r&1)], b)
		default:
			b = l.c.bit(b, 32768)
		}
		r = r<<1 | uint64(b)
	}
	return r - 1
}

// What numbers of plain segments are.
const (
	numLiterals = iota
	numGap
	numFrom
	numLength
	numAgain
	numMatch
	numKinds
)

// cover codes a cover: the literals in front of it, where it begins in the base as seen
// from the end of the one before, its length; with more 0, that there is none.
func (l *lightCoder) cover(gap, step, n int64, more int) (int64, int64, int64, int) {
	if l.bit(&l.more, more) == 0 {
		return 0, 0, 0, 0
	}
	gap = int64(l.num(uint64(gap), numGap))
	return gap, l.signed(step, numFrom), int64(l.num(uint64(n), numLength)), 1
}

func (l *lightCoder) signed(v int64, id int) int64 {
	u := l.num(uint64(v)<<1^uint64(v>>63), id)
	return int64(u>>1) ^ -int64(u&1)
}

// differ codes how out, which holds bytes of the base and is at offset at of the output,
// differs from fresh (encoding), and makes it so.
func (l *lightCoder) differ(out, fresh []byte, at int64) {
	l.wh = 0
	for len(out) > 0 {
		n := min(lightBlock-int(at)&(lightBlock-1), len(out))
		b, dirty := out[:n], 0
		if l.c.enc {
			if string(b) != string(fresh[:n]) {
				dirty = 1
			}
		}
		dirty = l.bit(&l.blocks[l.bh&1023], dirty)
		l.bh = l.bh<<1 | uint32(dirty)
		if dirty == 1 {
			var f []byte
			if l.c.enc {
				f = fresh[:n]
			}
			l.block(b, f, int(at&3))
		} else {
			l.wh <<= 2
		}
		if l.c.enc {
			fresh = fresh[n:]
		}
		out, at = out[n:], at+int64(n)
	}
}

// block codes b, which differs somewhere.
func (l *lightCoder) block(b, fresh []byte, at int) {
	missing, before := true, uint32(0)
	for len(b) > 0 {
		n := min(4-at&3, len(b))
		ow, by, dirty := wordOf(b[:n]), uint32(0), 0
		if l.c.enc {
			if by = lanes(wordOf(fresh[:n]), ow); by != 0 {
				dirty = 1
			}
		}
		class := ow >> 24
		if !missing || n < len(b) {
			dirty = l.pair(&l.words[class<<4|l.wh&15], &l.exact[mix3(1, ow, before>>24, 0)>>18], dirty)
		} else {
			dirty = 1
		}
		l.wh = l.wh<<1 | uint32(dirty)
		if dirty == 1 {
			missing = false
			by = l.word(ow, by, n)
			if n == 4 {
				binary.LittleEndian.PutUint32(b, plus(ow, by))
			} else {
				for i := range n {
					b[i] += byte(by >> (8 * i))
				}
			}
		}
		if l.c.enc {
			fresh = fresh[n:]
		}
		b, at, before = b[n:], at+n, ow
	}
}

// wordOf returns the word in b, which may be cut short.
func wordOf(b []byte) (w uint32) {
	if len(b) == 4 {
		return binary.LittleEndian.Uint32(b)
	}
	for i, x := range b {
		w |= uint32(x) << (8 * i)
	}
	return w
}

// plus returns the sums of a and b, byte by byte.
func plus(a, b uint32) uint32 {
	return (a&^0x80808080 + b&^0x80808080) ^ (a^b)&0x80808080
}

// lanes returns the differences of a to b, byte by byte.
func lanes(a, b uint32) uint32 {
	return ((a | 0x80808080) - (b &^ 0x80808080)) ^ ((a ^ ^b) & 0x80808080)
}

// word codes the difference by of n bytes of word ow.
func (l *lightCoder) word(ow, by uint32, n int) uint32 {
	class := ow >> 24
	x, y := &l.byWord[mix3(2, ow, 0, 0)>>20], &l.byClass[class]
	tried := [3]uint32{}
	guess := func(v uint32, id int) bool {
		if v == 0 || v == tried[0] || v == tried[1] || v == tried[2] {
			return false
		}
		tried[id] = v
		hit := 0
		if v == by {
			hit = 1
		}
		if l.bit(&l.hits[id<<6|int(class>>2)], hit) == 1 {
			by = v
			return true
		}
		return false
	}
	if n < 4 || (x.key != ow || !guess(x.by, 0)) && !guess(y[0], 1) && !guess(y[1], 2) {
		d, some := uint32(0), uint32(0)
		for i := range n {
			v := int(by >> (8 * i) & 255)
			set := 0
			if v != 0 {
				set = 1
			}
			if i < n-1 || some != 0 {
				set = l.bit(&l.zero[(class<<4|some)<<2|uint32(i)], set)
			} else {
				set = 1
			}
			if set == 1 {
				some |= 1 << i
				v = l.tree((*[256]prob)(l.value[(uint32(i)<<8|(y[0]>>(8*i)&255))<<8:]), v)
				d |= uint32(v) << (8 * i)
			}
		}
		by = d
	}
	if n == 4 {
		*x = wordChange{ow, by}
		if y[0] != by {
			y[0], y[1] = by, y[0]
		}
	}
	return by
}

// tree codes a byte bit by bit from the highest.
func (l *lightCoder) tree(t *[256]prob, v int) int {
	k := 1
	if l.c.enc {
		for i := 7; i >= 0; i-- {
			k = k<<1 | l.bit(&t[k&255], v>>i&1)
		}
		return k & 255
	}
	// The same, with the coder's state at hand: most of the time is spent here.
	c := l.c
	lo, hi, x := c.lo, c.hi, c.x
	for range 8 {
		s := &t[k&255]
		mid := lo + uint32(uint64(hi-lo)*uint64(*s)>>16)
		b := 0
		if x <= mid {
			b = 1
		}
		one := uint32(-b)
		lo, hi = lo&one|(mid+1)&^one, mid&one|hi&^one
		s.update(b)
		k = k<<1 | b
		for (lo^hi)>>24 == 0 {
			x = x<<8 | c.next()
			lo, hi = lo<<8, hi<<8|255
		}
	}
	c.lo, c.hi, c.x = lo, hi, x
	return k & 255
}

// literals codes b, what no cover gives, with matches among itself.
func (l *lightCoder) literals(b []byte) error {
	var f *finder
	if l.c.enc {
		f = newFinder(b)
	}
	was, rep := 0, 1
	for at := 0; at < len(b); {
		n, dist := 0, 0
		if f != nil {
			n, dist = f.next(at, rep)
		}
		isMatch := 0
		if n > 0 {
			isMatch = 1
		}
		isMatch = l.bit(&l.match[was], isMatch)
		was = was<<1&3 | isMatch
		if isMatch == 0 {
			l.lit(b, at)
			at++
			continue
		}
		again := 0
		if dist == rep {
			again = 1
		}
		if l.bit(&l.match[4+was>>1], again) == 1 {
			dist = rep
			n = int(l.num(uint64(max(n-minAgain, 0)), numAgain)) + minAgain
		} else {
			n = int(l.num(uint64(max(n-minMatch, 0)), numMatch)) + minMatch
			dist = int(l.distance(uint64(max(dist-1, 0)), min(n-minMatch, 3))) + 1
		}
		if dist > at || n > len(b)-at {
			return fmt.Errorf("%w: match of %d bytes, %d back", ErrCorrupt, n, dist)
		}
		rep = dist
		if !l.c.enc {
			for i := range n {
				b[at+i] = b[at+i-dist]
			}
		}
		at += n
	}
	return nil
}

// lit codes b[at].
func (l *lightCoder) lit(b []byte, at int) {
	p1, p2 := uint32(0), uint32(0)
	if at > 0 {
		p1 = uint32(b[at-1])
	}
	if at > 1 {
		p2 = uint32(b[at-2])
	}
	s := l.literal[p1<<8:][:256]
	t := l.literal[1<<16+mix3(3, p1, p2, 0)>>(32-litBits+8)<<8:][:256]
	b[at] = byte(l.trees((*[256]prob)(s), (*[256]prob)(t), int(b[at])))
}

// trees is tree with the mean of two trees.
func (l *lightCoder) trees(t, u *[256]prob, v int) int {
	k := 1
	if l.c.enc {
		for i := 7; i >= 0; i-- {
			k = k<<1 | l.pair(&t[k&255], &u[k&255], v>>i&1)
		}
		return k & 255
	}
	c := l.c
	lo, hi, x := c.lo, c.hi, c.x
	for range 8 {
		r, s := &t[k&255], &u[k&255]
		mid := lo + uint32(uint64(hi-lo)*((uint64(*r)+uint64(*s))>>1)>>16)
		b := 0
		if x <= mid {
			b = 1
		}
		one := uint32(-b)
		lo, hi = lo&one|(mid+1)&^one, mid&one|hi&^one
		r.update(b)
		s.update(b)
		k = k<<1 | b
		for (lo^hi)>>24 == 0 {
			x = x<<8 | c.next()
			lo, hi = lo<<8, hi<<8|255
		}
	}
	c.lo, c.hi, c.x = lo, hi, x
	return k & 255
}

// distance codes how far back a match is, minus one.
func (l *lightCoder) distance(v uint64, id int) uint64 {
	n := bits.Len64(v)
	k := 1
	for i := 4; i >= 0; i-- { // its length in bits
		k = k<<1 | l.bit(&l.far[id<<6|k], n>>i&1)
	}
	n = k & 31
	r := uint64(0)
	if n > 0 {
		r = 1
	}
	for i := n - 2; i >= 0; i-- {
		b := int(v >> uint(i) & 1)
		if i < 3 {
			b = l.bit(&l.tail[1<<(2-i)|int(r&(1<<(2-i)-1))], b)
		} else {
			b = l.c.bit(b, 32768)
		}
		r = r<<1 | uint64(b)
	}
	return r
}

const (
	minMatch = 4
	minAgain = 2
)

// finder finds matches within literals.
type finder struct {
	b    []byte
	head []int32
	prev []int32
	at   int // what is in the tables
}

func newFinder(b []byte) *finder {
	return &finder{b: b, head: make([]int32, 1<<16), prev: make([]int32, len(b))}
}

func (f *finder) insert(to int) {
	for ; f.at < to && f.at+minMatch <= len(f.b); f.at++ {
		h := binary.LittleEndian.Uint32(f.b[f.at:]) * 0x9E3779B1 >> 16
		f.prev[f.at], f.head[h] = f.head[h], int32(f.at+1)
	}
}

// best returns the match at at that saves the most.
func (f *finder) best(at, rep int) (n, dist int) {
	f.insert(at)
	if rep <= at {
		if n = common(f.b[at-rep:], f.b[at:]); n < minAgain {
			n = 0
		}
		dist = rep
	}
	if at+minMatch > len(f.b) {
		return n, dist
	}
	h := binary.LittleEndian.Uint32(f.b[at:]) * 0x9E3779B1 >> 16
	least := max(n+2, minMatch)
	for k, tries := f.head[h], 0; k > 0 && tries < 64; k, tries = f.prev[k-1], tries+1 {
		p := int(k - 1)
		if m := common(f.b[p:], f.b[at:]); m >= least && (m > minMatch+1 || at-p < 1<<14) {
			n, dist, least = m, at-p, m+1
			if m > 256 {
				break
			}
		}
	}
	return n, dist
}

// next is best, or nothing where a literal and the match behind it are better.
func (f *finder) next(at, rep int) (n, dist int) {
	if n, dist = f.best(at, rep); n > 0 && n < 64 && at+1 < len(f.b) {
		if m, d := f.best(at+1, rep); m > n+1 || d == rep && m > n && dist != rep {
			return 0, 0
		}
	}
	return n, dist
}
