package deflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// block is what the header of a block says.
type block struct {
	final  bool
	kind   int
	stored int    // length of a stored block
	code   []byte // of a dynamic block: its header behind the kind, as bits
	bits   int    // of code
}

// parser reads a raw deflate stream: blocks, and their tokens.
type parser struct {
	src      io.ReaderAt
	off, end int64 // next byte to read from src, and where it ends
	buf      []byte
	r, n     int // unread part of buf
	acc      uint64
	have     uint // bits in acc
	err      error

	header    bitWriter // of the block
	lit, dist decodeTable
	lengths   decodeTable
	lens      [litCodes + distCodes]uint8 // of a dynamic block's codes
	nlit      int                         // of lens; distances follow
	ndist     int
	lastSeen  bool // the final block's header was read
}

func newParser(src io.ReaderAt, off, end int64) *parser {
	return &parser{src: src, off: off, end: end, buf: make([]byte, 16<<10)}
}

// reset makes p read another stream.
func (p *parser) reset(src io.ReaderAt, off, end int64) {
	p.src, p.off, p.end = src, off, end
	p.r, p.n, p.acc, p.have, p.err, p.lastSeen = 0, 0, 0, 0, nil, false
}

// offset returns where the byte after the last one that was used lies.
func (p *parser) offset() int64 { return p.off - int64(p.n-p.r) - int64(p.have/8) }

// fill reads until there are at least 56 bits, or all.
func (p *parser) fill() {
	if p.n-p.r >= 8 {
		p.acc |= binary.LittleEndian.Uint64(p.buf[p.r:]) << p.have
		k := (63 - p.have) / 8
		p.r += int(k)
		p.have += 8 * k
		p.acc &= 1<<p.have - 1
		return
	}
	for p.have <= 56 {
		if p.r == p.n && !p.read() {
			return
		}
		p.acc |= uint64(p.buf[p.r]) << p.have
		p.r++
		p.have += 8
	}
}

func (p *parser) read() bool {
	want := min(int64(len(p.buf)), p.end-p.off)
	if want <= 0 || p.err != nil {
		return false
	}
	n, err := p.src.ReadAt(p.buf[:want], p.off)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		p.err = err
	}
	p.r, p.n = 0, n
	p.off += int64(n)
	return n > 0
}

// cut is the error for a stream that ends too early.
func (p *parser) cut() error {
	if p.err != nil {
		return fmt.Errorf("deflate: read: %w", p.err)
	}
	return fmt.Errorf("deflate: %w: ends too early", ErrFormat)
}

// take reads n bits, at most 16.
func (p *parser) take(n uint) (int, error) {
	if p.have < n {
		if p.fill(); p.have < n {
			return 0, p.cut()
		}
	}
	v := int(p.acc & (1<<n - 1))
	p.acc >>= n
	p.have -= n
	return v, nil
}

// next reads the header of the next block; io.EOF after the final one. The block's
// code is valid until then.
func (p *parser) next() (block, error) {
	if p.lastSeen {
		p.acc, p.have = p.acc>>(p.have%8), p.have&^7
		return block{}, io.EOF
	}
	h, err := p.take(3)
	if err != nil {
		return block{}, err
	}
	b := block{final: h&1 != 0, kind: h >> 1}
	switch b.kind {
	case kindStored:
		err = p.storedHeader(&b)
	case kindFixed:
		if !p.lit.build(rfc.fixedLit[:]) || !p.dist.build(fixedDist[:]) {
			err = ErrFormat
		}
	case kindDynamic:
		err = p.dynamicHeader(&b)
	default:
		err = fmt.Errorf("deflate: %w: kind of block", ErrFormat)
	}
	p.lastSeen = b.final
	return b, err
}

var fixedDist = [30]uint8{5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5}

func (p *parser) storedHeader(b *block) error {
	if _, err := p.take(p.have % 8); err != nil {
		return err
	}
	n, err := p.take(16)
	if err != nil {
		return err
	}
	inv, err := p.take(16)
	if err != nil {
		return err
	}
	if n != ^inv&0xffff {
		return fmt.Errorf("deflate: %w: length of a stored block", ErrFormat)
	}
	b.stored = n
	return nil
}

// bytes reads from a stored block.
func (p *parser) bytes(b []byte) (int, error) {
	n := 0
	for ; n < len(b) && p.have > 0; n++ {
		b[n] = byte(p.acc)
		p.acc >>= 8
		p.have -= 8
	}
	if n > 0 {
		return n, nil
	}
	if p.r == p.n && !p.read() {
		return 0, p.cut()
	}
	n = copy(b, p.buf[p.r:p.n])
	p.r += n
	return n, nil
}

// noted reads n bits of a header and keeps them.
func (p *parser) noted(n uint) (int, error) {
	v, err := p.take(n)
	p.header.put(uint32(v), n)
	return v, err
}

func (p *parser) dynamicHeader(b *block) error {
	p.header.reset()
	v, err := p.noted(14)
	if err != nil {
		return err
	}
	nlit, ndist, nlen := v&31+257, v>>5&31+1, v>>10+4
	if nlit > litCodes || ndist > distCodes {
		return fmt.Errorf("deflate: %w: %d and %d codes", ErrFormat, nlit, ndist)
	}
	var cl [lenCodes]uint8
	for _, i := range lenOrder[:nlen] {
		if v, err = p.noted(3); err != nil {
			return err
		}
		cl[i] = uint8(v)
	}
	if !p.lengths.build(cl[:]) {
		return fmt.Errorf("deflate: %w: code for lengths", ErrFormat)
	}
	lens := p.lens[:nlit+ndist]
	p.nlit, p.ndist = nlit, ndist
	if err := p.codeLengths(lens); err != nil {
		return err
	}
	if lens[endBlock] == 0 || !p.lit.build(lens[:nlit]) || !p.dist.build(lens[nlit:]) {
		return fmt.Errorf("deflate: %w: code", ErrFormat)
	}
	b.bits = p.header.len()
	p.header.align()
	b.code = p.header.buf
	return nil
}

// codeLengths reads run-length coded lengths.
func (p *parser) codeLengths(lens []uint8) error {
	for i := 0; i < len(lens); {
		s, n, err := p.symbol(&p.lengths)
		if err != nil {
			return err
		}
		p.header.put(uint32(n&0xffff), uint(n>>16))
		if s < 16 {
			lens[i] = uint8(s)
			i++
			continue
		}
		var v uint8
		extra, least := uint(2), 3
		switch {
		case s == 17:
			extra = 3
		case s == 18:
			extra, least = 7, 11
		case i == 0:
			return fmt.Errorf("deflate: %w: repeats no length", ErrFormat)
		default:
			v = lens[i-1]
		}
		more, err := p.noted(extra)
		if err != nil {
			return err
		}
		if more+least > len(lens)-i {
			return fmt.Errorf("deflate: %w: too many lengths", ErrFormat)
		}
		for range more + least {
			lens[i] = v
			i++
		}
	}
	return nil
}

// symbol decodes one symbol; raw is its code, with the length above bit 16.
func (p *parser) symbol(t *decodeTable) (s int, raw int, err error) {
	if p.have < 15 {
		p.fill()
	}
	e := t.first[p.acc&(firstSize-1)]
	if e&linkFlag != 0 {
		e = t.more[int(e>>8&0xffff)+int(p.acc>>firstBits&(1<<(e&15)-1))]
	}
	l := uint(e & 0xff)
	if l == 0 {
		return 0, 0, fmt.Errorf("deflate: %w: code not in use", ErrFormat)
	}
	if l > p.have {
		return 0, 0, p.cut()
	}
	raw = int(p.acc&(1<<l-1)) | int(l)<<16
	p.acc >>= l
	p.have -= l
	return int(e >> 8), raw, nil
}

// token decodes one token of a block that is not stored; tokenEnd ends it.
func (p *parser) token() (token, error) {
	s, _, err := p.symbol(&p.lit)
	if err != nil || s <= endBlock {
		return token(s), err
	}
	s -= endBlock + 1
	if s >= len(rfc.lenBase) {
		return 0, fmt.Errorf("deflate: %w: length", ErrFormat)
	}
	length, err := p.take(uint(rfc.lenExtra[s]))
	if err != nil {
		return 0, err
	}
	length += int(rfc.lenBase[s])
	d, _, err := p.symbol(&p.dist)
	if err != nil {
		return 0, err
	}
	dist, err := p.take(uint(rfc.distExtra[d]))
	if err != nil {
		return 0, err
	}
	return matchToken(length, dist+int(rfc.distBase[d])), nil
}

// decodeTable decodes a prefix code: the first 10 bits look up an entry, or where the
// entries for longer codes lie.
type decodeTable struct {
	first [firstSize]uint32 // symbol<<8 | length, or linkFlag | offset<<8 | further bits
	more  []uint32
}

const (
	firstBits = 10
	firstSize = 1 << firstBits
	linkFlag  = 1 << 31
)

// build reports whether lens are a code: not over-subscribed, and complete unless it
// has at most one symbol.
func (t *decodeTable) build(lens []uint8) bool {
	var count [16]int
	used := 0
	for _, l := range lens {
		count[l]++
		if l > 0 {
			used++
		}
	}
	left := 1
	for l := 1; l < 16; l++ {
		left = left<<1 - count[l]
		if left < 0 {
			return false
		}
	}
	// zlib lets a single code be one bit long, and distances have none; the fixed
	// distance code leaves two of its codes out.
	if left > 0 && used > 1 && len(lens) != len(fixedDist) {
		return false
	}
	var out [288]uint16
	canonical(lens, out[:])
	t.first = [firstSize]uint32{}
	t.more = t.more[:0]
	for i, l := range lens {
		switch {
		case l == 0:
		case l <= firstBits:
			for c := int(out[i]); c < firstSize; c += 1 << l {
				t.first[c] = uint32(i)<<8 | uint32(l)
			}
		default:
			t.link(i, uint(l), int(out[i]))
		}
	}
	return true
}

// link enters a code of more than firstBits bits.
func (t *decodeTable) link(symbol int, l uint, code int) {
	const further = 15 - firstBits
	e := t.first[code&(firstSize-1)]
	if e == 0 {
		e = linkFlag | uint32(len(t.more))<<8 | further
		t.first[code&(firstSize-1)] = e
		t.more = append(t.more, make([]uint32, 1<<further)...)
	}
	at := int(e >> 8 & 0xffff)
	for c := code >> firstBits; c < 1<<further; c += 1 << (l - firstBits) {
		t.more[at+c] = uint32(symbol)<<8 | uint32(l)
	}
}
