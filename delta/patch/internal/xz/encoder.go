package xz

import "math/bits"

// rangeEncoder writes decisions. Its output begins with a zero that takes carries, so
// they go no further back.
type rangeEncoder struct {
	low uint64
	rng uint32
	out []byte
}

// begin starts a chunk behind what out has.
func (e *rangeEncoder) begin() {
	e.low, e.rng = 0, 1<<32-1
	e.out = append(e.out, 0)
}

// end writes what is left of a chunk.
func (e *rangeEncoder) end() {
	for range 4 {
		e.shift()
	}
}

func (e *rangeEncoder) shift() {
	if e.low>>32 != 0 {
		e.carry()
	}
	e.out = append(e.out, byte(e.low>>24))
	e.low = e.low << 8 & (1<<32 - 1)
}

func (e *rangeEncoder) carry() {
	i := len(e.out) - 1
	for e.out[i] == 0xff {
		e.out[i] = 0
		i--
	}
	e.out[i]++
}

func (e *rangeEncoder) bit(p *uint16, b uint32) {
	v := uint32(*p)
	bound := e.rng >> probBits * v
	if b == 0 {
		e.rng = bound
		*p = uint16(v + (1<<probBits-v)>>moveBits)
	} else {
		e.low += uint64(bound)
		e.rng -= bound
		*p = uint16(v - v>>moveBits)
	}
	if e.rng < rangeTop {
		e.rng <<= 8
		e.shift()
	}
}

// tree writes n bits of v, the highest first, with the probabilities of a tree.
func (e *rangeEncoder) tree(probs []uint16, v uint32, n int) {
	m := uint32(1)
	for i := n - 1; i >= 0; i-- {
		b := v >> i & 1
		e.bit(&probs[m], b)
		m = m<<1 | b
	}
}

// reverse writes n bits, the lowest first.
func (e *rangeEncoder) reverse(probs []uint16, v uint32, n int) {
	m := uint32(1)
	for range n {
		e.bit(&probs[m], v&1)
		m = m<<1 | v&1
		v >>= 1
	}
}

// direct writes n bits without probabilities.
func (e *rangeEncoder) direct(v uint32, n int) {
	for i := n - 1; i >= 0; i-- {
		e.rng >>= 1
		if v>>i&1 != 0 {
			e.low += uint64(e.rng)
		}
		if e.rng < rangeTop {
			e.rng <<= 8
			e.shift()
		}
	}
}

// literal writes a literal that is not behind a match.
func (e *rangeEncoder) literal(probs *[0x300]uint16, c byte) {
	m := uint32(1)
	for v := uint32(c) | 0x100; m < 0x100; {
		v <<= 1
		b := v >> 8 & 1
		e.bit(&probs[m], b)
		m = m<<1 | b
	}
}

// matched writes a literal behind a match, in whose place the byte with would follow.
func (e *rangeEncoder) matched(probs *[0x300]uint16, c, with byte) {
	m, off, w, v := uint32(1), uint32(0x100), uint32(with), uint32(c)
	for m < 0x100 {
		w <<= 1
		v <<= 1
		bit, b := w&off, v>>8&1
		e.bit(&probs[off+bit+m], b)
		m = m<<1 | b
		if b == 0 {
			off &^= bit
		} else {
			off &= bit
		}
	}
}

func (e *rangeEncoder) length(l *lengths, n, posState uint32) {
	n -= minMatch
	if n < 8 {
		e.bit(&l.notLow, 0)
		e.tree(l.low[posState][:], n, 3)
		return
	}
	e.bit(&l.notLow, 1)
	if n < 16 {
		e.bit(&l.notMid, 0)
		e.tree(l.mid[posState][:], n-8, 3)
		return
	}
	e.bit(&l.notMid, 1)
	e.tree(l.high[:], n-16, 8)
}

// distance writes the distance d, minus 1, of a match of this length.
func (e *rangeEncoder) distance(m *model, d, length uint32) {
	probs := m.slot[slotState(length)][:]
	if d < 4 {
		e.tree(probs, d, 6)
		return
	}
	n := bits.Len32(d) - 2
	slot := uint32(n+1)*2 | d>>n&1
	e.tree(probs, slot, 6)
	if slot < 14 {
		base := d >> n << n
		e.reverse(m.special[base-slot:], d-base, n)
		return
	}
	e.direct(d>>4&(1<<(n-4)-1), n-4)
	e.reverse(m.align[:], d&15, 4)
}
