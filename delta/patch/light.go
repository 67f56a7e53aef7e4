package patch

import "math/bits"

// Plain segments are coded decision by decision as well, but by simpler models than
// dense ones have, with at most two contexts for a decision, and nothing at all for what
// is as in the base but one decision in 32 bytes.

// plainMemory is what a lightCoder and pages of the base take, in bytes, about.
const plainMemory = 3 << 20

const (
	lightBlock = 32
	// lightRun is how much of a cover is at hand at once.
	lightRun = 64 << 10
	litBits  = 10
)

// prob is the probability of a one, in 1/65536.
type prob uint16

const (
	probHalf = prob(1 << 15)
	probRate = 4
)

// moved returns s, within 15..65520, after a decision: ones is all ones after a one,
// and 0 after a zero.
func (s prob) moved(ones uint64) prob {
	return prob(int32(s) + (15+int32(ones&65520)-int32(s))>>probRate)
}

// lightCoder codes plain segments. The same calls encode and decode; those that take the
// time are given the states and return them, so that they stay in registers.
type lightCoder struct {
	numeralCoder
	blocks  [1 << 10]prob
	words   [1 << 12]prob
	exact   [1 << 14]prob
	hits    [1 << 8]prob
	leading [numKinds << 8]prob
	match   [6]prob
	more    prob

	some    [1 << 8]symbols // by the highest byte of the word
	cut     [4]symbols      // of words cut to so many bytes
	value   [1 << 10]byteSymbols
	literal [1<<8 + 1<<litBits]byteSymbols
	number  [numKinds][numSymbols]symbols
	far     [4][2]symbols
	tail    [4]symbols

	byWord  [1 << 12]wordChange
	byClass [1 << 8][2]uint32
	bh, wh  uint32 // blocks and words that differed, the last one lowest

	account *account // decoding; nil: nobody wants to know
}

// wordChange is how a word of the base differed the last time.
type wordChange struct{ key, by uint32 }

// reset makes l ready to encode, or to decode what is in in.
func (l *lightCoder) reset(enc bool, in []byte) {
	l.numeralCoder.reset(enc, in)
	l.more, l.bh, l.wh, l.account = probHalf, 0, 0, nil
	clear(l.byWord[:])
	clear(l.byClass[:])
	for _, t := range [][]prob{l.blocks[:], l.words[:], l.exact[:], l.hits[:], l.leading[:], l.match[:]} {
		spread(t, probHalf)
	}
	var b byteSymbols
	spread(b[:], flat)
	spread(l.value[:], b)
	spread(l.literal[:], b)
	spread(l.some[:], flat)
	spread(l.cut[:], flat)
	spread(l.tail[:], flat)
	for i := range l.number {
		spread(l.number[i][:], flat)
	}
	for i := range l.far {
		spread(l.far[i][:], flat)
	}
}

// spread makes all of t v.
func spread[T any](t []T, v T) {
	t[0] = v
	for n := 1; n < len(t); n *= 2 {
		copy(t[n:], t[:n])
	}
}

// decide codes b, a one with probability p.
func (l *lightCoder) decide(s states, p prob, b uint64) (states, uint64) {
	if l.enc {
		l.note(p, b)
		return s, b
	}
	if s, b = s.under(uint64(p)); s.y < lowest {
		s = l.refill(s)
	}
	return s, b & 1
}

// bit codes b in context p.
func (l *lightCoder) bit(p *prob, b uint64) uint64 {
	l.states, b = l.decide(l.states, *p, b)
	*p = p.moved(-b)
	return b
}

// size codes v, below 15*len(t), as symbols of which each but the last is 15.
func (l *lightCoder) size(t []symbols, v uint64) uint64 {
	sum, k := uint64(0), uint64(0)
	for i := range t {
		l.states, k = l.symbol(l.states, &t[i], min(v-sum, 15))
		if sum += k; k < 15 {
			break
		}
	}
	return sum
}

// num codes v, below 1<<40, under context id.
func (l *lightCoder) num(v uint64, id int) uint64 {
	k := l.size(l.number[id][:], uint64(bits.Len64(v+1)-1))
	t := l.leading[id<<8:][:256]
	r := uint64(1)
	if k > 0 {
		r = r<<1 | l.bit(&t[k], (v+1)>>(k-1)&1)
	}
	if k > 1 {
		r = r<<1 | l.bit(&t[64+k*2+r&1], (v+1)>>(k-2)&1)
	}
	return l.rest(r, v+1, int(k)-2) - 1
}

// rest codes the n lowest bits of v, behind r, which is in front of them.
func (l *lightCoder) rest(r, v uint64, n int) uint64 {
	for n > 0 {
		m := min(n, 12)
		n -= m
		r = r<<m | l.raw(v>>n&(1<<m-1), uint(m))
	}
	return r
}

// numSymbols is how many symbols the length of a number takes at most.
const numSymbols = 3

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
func (l *lightCoder) cover(gap, step, n int64, more uint64) (int64, int64, int64, uint64) {
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
