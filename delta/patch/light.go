package patch

import "math/bits"

// Plain segments are coded with a binary coder as well, but a simpler one than the dense
// ones have, with at most two contexts for a decision, and nothing at all for what is as
// in the base but one decision in 32 bytes.

// plainMemory is what a lightCoder takes, in bytes, about.
const plainMemory = 2 << 20

const (
	lightBlock = 32
	// lightRun is how much of a cover is at hand at once.
	lightRun = 64 << 10
	litBits  = 18
)

// lightCoder codes plain segments. What takes the time, differences and literals, has a
// function for each direction; the other calls encode and decode.
type lightCoder struct {
	rangeCoder
	blocks  [1 << 10]prob
	words   [1 << 12]prob
	exact   [1 << 14]prob
	hits    [1 << 8]prob
	some    [1 << 12]prob
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

// reset makes l ready to encode, or to decode what is in in.
func (l *lightCoder) reset(enc bool, in []byte) {
	l.rangeCoder.reset(enc, in)
	l.more, l.bh, l.wh = probHalf, 0, 0
	clear(l.byWord[:])
	clear(l.byClass[:])
	for _, t := range [][]prob{l.blocks[:], l.words[:], l.exact[:], l.hits[:], l.some[:], l.value[:], l.number[:], l.literal[:], l.match[:], l.far[:], l.tail[:]} {
		t[0] = probHalf
		for n := 1; n < len(t); n *= 2 {
			copy(t[n:], t[:n])
		}
	}
}

func (l *lightCoder) bit(s *prob, b int) int {
	b = l.code(b, uint64(*s))
	*s = s.moved(-uint64(b))
	return b
}

// pair codes b with the mean of two contexts.
func (l *lightCoder) pair(s, t *prob, b int) int {
	b = l.code(b, uint64((uint32(*s)+uint32(*t))>>1))
	*s, *t = s.moved(-uint64(b)), t.moved(-uint64(b))
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
			b = l.code(b, 1<<15)
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
