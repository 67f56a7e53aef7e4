package deflate

import "bytes"

// emit writes the block. A dynamic block has the header code (of bits bits), which
// is what plan left unless a correction brings another.
func (c *composer) emit(w *bitWriter, kind int, final bool, code []byte, bits int) error {
	h := uint32(kind << 1)
	if final {
		h |= 1
	}
	w.put(h, 3)
	switch kind {
	case kindStored:
		if c.size > maxStored {
			return ErrCorrupt
		}
		w.align()
		n := uint32(len(c.raw))
		w.buf = append(w.buf, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
		w.buf = append(w.buf, c.raw...)
		return nil
	case kindFixed:
		c.encoder(rfc.fixedLit[:], fixedDist[:])
	default:
		w.bits(code, bits)
		if bits == c.headerBits && bytes.Equal(code, c.header.buf) {
			c.encoder(c.litLens[:], c.distLens[:])
		} else if err := c.foreignCode(code); err != nil {
			return err
		}
	}
	return c.write(w)
}

// foreignCode takes the code from a header that a correction brought.
func (c *composer) foreignCode(code []byte) error {
	p := newParser(bytes.NewReader(code), 0, int64(len(code)))
	var b block
	if err := p.dynamicHeader(&b); err != nil {
		return ErrCorrupt
	}
	clear(c.litLens[:])
	clear(c.distLens[:])
	copy(c.litLens[:], p.lens[:p.nlit])
	copy(c.distLens[:], p.lens[p.nlit:p.nlit+p.ndist])
	c.encoder(c.litLens[:], c.distLens[:])
	return nil
}

// encoder prepares the tables that write uses.
func (c *composer) encoder(lit, dist []uint8) {
	canonical(lit, c.code[:])
	for i, l := range lit {
		c.litOut[i] = uint32(c.code[i]) | uint32(l)<<16
	}
	canonical(dist, c.code[:])
	for i, l := range dist {
		c.distOut[i] = uint32(c.code[i]) | uint32(l)<<16
	}
}

// write writes the tokens and the end of the block. A symbol that has no code makes
// it fail.
func (c *composer) write(w *bitWriter) error {
	missing := false
	for _, t := range c.tokens {
		if !t.isMatch() {
			e := c.litOut[t]
			missing = missing || e>>16 == 0
			w.put(e&0xffff, uint(e>>16))
			continue
		}
		n, d := t.length(), t.dist()
		lc, dc := rfc.lenCode[n], rfc.distCode[distSlot(d)]
		e, f := c.litOut[endBlock+1+int(lc)], c.distOut[dc]
		missing = missing || e>>16 == 0 || f>>16 == 0
		l := uint(e >> 16)
		w.put(e&0xffff|uint32(n-int(rfc.lenBase[lc]))<<l, l+uint(rfc.lenExtra[lc]))
		l = uint(f >> 16)
		w.put(f&0xffff|uint32(d-int(rfc.distBase[dc]))<<l, l+uint(rfc.distExtra[dc]))
	}
	e := c.litOut[endBlock]
	w.put(e&0xffff, uint(e>>16))
	if missing || e>>16 == 0 {
		return ErrCorrupt
	}
	return nil
}
