package xz

// rangeDecoder reads decisions. It does not check where its input ends: that has to have
// slack behind it, and who calls looks at p once in a while.
type rangeDecoder struct {
	code, rng uint32
	p         int
	in        []byte
}

// reset begins with a chunk; it reports whether the chunk can be one.
func (d *rangeDecoder) reset(in []byte) bool {
	d.in, d.p = in, 5
	d.rng = 1<<32 - 1
	d.code = uint32(in[1])<<24 | uint32(in[2])<<16 | uint32(in[3])<<8 | uint32(in[4])
	return in[0] == 0
}

func (d *rangeDecoder) normalize() {
	if d.rng < rangeTop {
		d.rng <<= 8
		d.code = d.code<<8 | uint32(d.in[d.p])
		d.p++
	}
}

func (d *rangeDecoder) bit(p *uint16) uint32 {
	d.normalize()
	v := uint32(*p)
	bound := d.rng >> probBits * v
	if d.code < bound {
		d.rng = bound
		*p = uint16(v + (1<<probBits-v)>>moveBits)
		return 0
	}
	d.rng -= bound
	d.code -= bound
	*p = uint16(v - v>>moveBits)
	return 1
}

// tree reads n bits, the highest first, with the probabilities of a tree.
func (d *rangeDecoder) tree(probs []uint16, n int) uint32 {
	rng, code, p, in := d.rng, d.code, d.p, d.in
	m := uint32(1)
	for range n {
		if rng < rangeTop {
			rng <<= 8
			code = code<<8 | uint32(in[p])
			p++
		}
		v := uint32(probs[m])
		bound := rng >> probBits * v
		if code < bound {
			rng = bound
			probs[m] = uint16(v + (1<<probBits-v)>>moveBits)
			m <<= 1
		} else {
			rng -= bound
			code -= bound
			probs[m] = uint16(v - v>>moveBits)
			m = m<<1 | 1
		}
	}
	d.rng, d.code, d.p = rng, code, p
	return m - 1<<n
}

// reverse reads n bits, the lowest first; the tree's root is probs[1].
func (d *rangeDecoder) reverse(probs []uint16, n int) (v uint32) {
	m := uint32(1)
	for i := range n {
		b := d.bit(&probs[m])
		m = m<<1 | b
		v |= b << i
	}
	return v
}

// direct reads n bits without probabilities.
func (d *rangeDecoder) direct(n int) (v uint32) {
	for range n {
		d.normalize()
		d.rng >>= 1
		b := uint32(0)
		if d.code >= d.rng {
			d.code -= d.rng
			b = 1
		}
		v = v<<1 | b
	}
	return v
}

// literal reads a literal that is not behind a match.
func (d *rangeDecoder) literal(probs *[0x300]uint16) byte {
	return byte(d.tree(probs[:], 8))
}

// matched reads a literal behind a match, in whose place the byte with would follow.
func (d *rangeDecoder) matched(probs *[0x300]uint16, with byte) byte {
	m, off, w := uint32(1), uint32(0x100), uint32(with)
	for m < 0x100 {
		w <<= 1
		bit := w & off
		if d.bit(&probs[off+bit+m]) == 0 {
			m <<= 1
			off &^= bit
		} else {
			m = m<<1 | 1
			off &= bit
		}
	}
	return byte(m)
}

func (d *rangeDecoder) length(l *lengths, posState uint32) uint32 {
	if d.bit(&l.notLow) == 0 {
		return minMatch + d.tree(l.low[posState][:], 3)
	}
	if d.bit(&l.notMid) == 0 {
		return minMatch + 8 + d.tree(l.mid[posState][:], 3)
	}
	return minMatch + 16 + d.tree(l.high[:], 8)
}

// distance reads the distance, minus 1, of a match of this length.
func (d *rangeDecoder) distance(m *model, length uint32) uint32 {
	slot := d.tree(m.slot[slotState(length)][:], 6)
	if slot < 4 {
		return slot
	}
	n := int(slot/2 - 1)
	base := (2 | slot&1) << n
	if slot < 14 {
		return base + d.reverse(m.special[base-slot:], n)
	}
	base += d.direct(n-4) << 4
	return base + d.reverse(m.align[:], 4)
}
