package patch

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// numeralCoder is the coder of plain segments: asymmetric numeral systems (J. Duda,
// 2009). Two states take turns, so that a processor can begin with a decision before it
// is through with the one before. What is encoded is decoded from its end to its
// beginning, so the encoder keeps all decisions until it finishes.
type numeralCoder struct {
	states
	enc   bool
	steps [][]step // encoding: decisions so far, stepsLen in each but the last
	buf   []byte   // decoding: what is left of the input
	over  bool     // decoding: more was wanted
}

// states are those of a decoder; x makes the next decision.
type states struct{ x, y uint64 }

// step is a decision: the part from..from+size of 65536 that is its.
type step struct{ from, size uint16 }

// stepsLen is even: the states take turns from the first of as many again.
const stepsLen = 1 << 14

// lowest is what a state is at the end, and at least before each decision.
const lowest = 1 << 32

// reset makes c ready to encode, or to decode what is in in.
func (c *numeralCoder) reset(enc bool, in []byte) {
	*c = numeralCoder{states: states{lowest, lowest}, enc: enc, buf: in}
	if !enc {
		c.x, c.y = c.begin(), c.begin()
	}
}

// begin reads what a state is in the beginning.
func (c *numeralCoder) begin() uint64 {
	v, n := binary.Uvarint(c.buf)
	if n <= 0 || v > ^uint64(0)-lowest {
		c.buf, c.over = nil, true
		return lowest
	}
	c.buf = c.buf[n:]
	return v + lowest
}

// refill makes the state of s that is below lowest larger: the one that made the last
// decision.
//
//go:noinline
func (c *numeralCoder) refill(s states) states {
	v := uint32(0) // behind the end of the input
	if len(c.buf) >= 4 {
		v = binary.LittleEndian.Uint32(c.buf)
		c.buf = c.buf[4:]
	} else {
		c.over = true
	}
	return states{s.x, s.y<<32 | uint64(v)}
}

// under decodes a decision that is a one with probability p/65536. All ones: it is one.
// The state that made it is y then, and may have to be refilled.
func (s states) under(p uint64) (states, uint64) {
	at, q := s.x&65535, s.x>>16*p
	_, ones := bits.Sub64(at, p, 0)
	ones = -ones // no branch: it could not be predicted
	one, zero := q+at, s.x-q-p
	return states{s.y, zero ^ (one^zero)&ones}, ones
}

// note encodes a decision that is a one with probability p/65536.
func (c *numeralCoder) note(p prob, one uint64) {
	if one != 0 {
		c.step(0, uint64(p))
	} else {
		c.step(uint64(p), 65536-uint64(p))
	}
}

// step encodes a decision, whose part is from..from+size of 65536.
func (c *numeralCoder) step(from, size uint64) {
	n := len(c.steps) - 1
	if n < 0 || len(c.steps[n]) == stepsLen {
		c.steps = append(c.steps, make([]step, 0, stepsLen))
		n++
	}
	c.steps[n] = append(c.steps[n], step{uint16(from), uint16(size)})
}

// raw codes v, of n bits, which are at most 12.
func (c *numeralCoder) raw(v uint64, n uint) uint64 {
	size := uint64(1) << (16 - n)
	if c.enc {
		c.step(v*size, size)
		return v
	}
	s := c.states
	v = s.x & 65535 >> (16 - n)
	if s = (states{s.y, s.x>>16*size + s.x&(size-1)}); s.y < lowest {
		s = c.refill(s)
	}
	c.states = s
	return v
}

// ended reports whether the input ends here.
func (c *numeralCoder) ended() bool {
	return len(c.buf) == 0 && !c.over && c.x == lowest && c.y == lowest
}

// finish returns the output.
func (c *numeralCoder) finish() []byte {
	x := [2]uint64{lowest, lowest}
	var words []uint32
	for _, steps := range slices.Backward(c.steps) {
		for i, d := range slices.Backward(steps) {
			s, size := &x[i&1], uint64(d.size)
			if *s >= size<<48 {
				words = append(words, uint32(*s))
				*s >>= 32
			}
			*s = *s/size<<16 + *s%size + uint64(d.from)
		}
	}
	c.steps = nil
	out := binary.AppendUvarint(nil, x[0]-lowest)
	out = binary.AppendUvarint(out, x[1]-lowest)
	for _, w := range slices.Backward(words) {
		out = binary.LittleEndian.AppendUint32(out, w)
	}
	return out
}
