package patch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"updraft/delta/patch/internal/layer"
)

const (
	blockLen  = 32
	windowLen = 2 << 20 // bytes of the base that literals may be matched with
	denseRun  = 64 << 10
	margin    = 128
	tableBits = 18
	// checkMask is what an entry of the match model's table has besides a place, which
	// is below windowLen + MaxSegment.
	checkMask = ^uint32(1<<23 - 1)
)

// denseMemory is what a denseCoder and the covers of an index take, in bytes, apart
// from output and payload.
const denseMemory = 17 << 20

// wideMemory is what it takes more for segments of kindWide.
const wideMemory = 7<<20 + 512<<10

// laneCount is how many sets of weights kindWide has for one: by the byte of an instruction, or none.
const laneCount = 1 + 4

// denseCoder codes dense segments. One serves many segments, one at a time.
type denseCoder struct {
	c        *coder
	src      Source // the base, and behind it the appendix
	headers  Source // the base: what objects in it say is within that
	baseSize int64
	mp       mapper
	object   *image // that covers are in at last, with its tables
	changes  changes

	blocks, word, other, hit, miss *predictor
	gap                            *predictor // of literals: one of the two below
	narrow, broad                  *predictor // in the same memory; broad may be nil
	h                              [maxWays]uint32

	out    []byte // what is coded of the segment
	fresh  []byte // encoding: the segment
	buf    []byte // of the base, around the cover at hand
	pred   []byte
	refs   []ref
	window []byte

	table    []uint32 // match model: by hash of 6 bytes, more of it and place in window, then out
	account  *account
	meter    *meter // nil when decoding
	metered  int    // bytes of the segment that it knows of
	mat, mln int
	seen     uint32 // what has been looked at of the table, so that it is
	// Misses so far, the last one lowest: of bytes, words, blocks.
	hist, words, dirty, others uint32
	begun                      int64 // bytes of the cover that are coded
	rows                       int64 // where in the output rows of parses begin
	at                         int64 // where the segment does
	wide                       bool  // it is of kindWide
	lane                       laner
	units                      []unit
}

// newDenseCoder returns a coder for segments made from src, whose first base bytes are not the appendix, of kindWide too
// if wide.
func newDenseCoder(src Source, base int64, wide bool) *denseCoder {
	d := &denseCoder{src: src, headers: io.NewSectionReader(src, 0, base), baseSize: src.Size(), rows: MaxSize}
	d.blocks = newPredictor(7, 16, 128, 256, 250)
	d.word = newPredictor(7, 18, 256, 1024, 250)
	d.other = newPredictor(4, 14, 64, 64, 250)
	d.hit = newPredictor(7, 18, 256, 1024, 60)
	d.miss = newPredictor(7, 20, 1024, 256, 30)
	d.narrow = newPredictor(6, 19, 1024, 1024, 30)
	if wide {
		d.broad = newPredictor(6, 21, 1024*laneCount, 1024*16, 30)
		d.narrow.slots = d.broad.slots[:len(d.narrow.slots)]
	}
	d.table = make([]uint32, 1<<tableBits)
	d.buf = make([]byte, denseRun+2*margin+8)
	d.pred = make([]byte, denseRun+margin)
	return d
}

// enter makes d ready for a segment of the kind, made from so many bytes of the base; rows of parses begin at rows.
func (d *denseCoder) enter(kind byte, baseSize, rows int64) {
	d.baseSize, d.rows, d.wide = baseSize, MaxSize, kind == kindWide
	if kind == kindRows {
		d.rows = rows
	}
}

// segment codes the segment of size bytes at offset at of the output; fresh has the
// bytes when encoding. The result stays valid until the next call.
func (d *denseCoder) segment(c *coder, m *moves, at, size int64, fresh, out []byte) ([]byte, error) {
	d.c, d.fresh, d.out, d.at = c, fresh, out[:0], at
	d.gap, d.lane = d.narrow, laner{programs: m.new}
	if d.wide {
		d.gap = d.broad
	}
	d.hist, d.words, d.dirty, d.mat, d.mln, d.metered = 0, 0, 0, 0, 0, 0
	for _, s := range []*predictor{d.blocks, d.word, d.other, d.hit, d.miss, d.gap} {
		s.reset()
	}
	d.changes = changes{}
	d.others = 0
	clear(d.table)
	d.mp.reset(m)
	if d.object != nil {
		d.object.off = -1
	}
	first := searchRuns(m.runs, at)
	if err := d.prime(m.runs[first:], at, size); err != nil {
		return nil, err
	}
	for _, r := range m.runs[first:] {
		lo, hi := max(int64(r.n), at), min(int64(r.n)+int64(r.l), at+size)
		if lo >= hi {
			break
		}
		d.literals(lo - at)
		d.account.upTo(Literals, len(d.out), c.at)
		d.mp.here = r
		if err := d.cover(lo, int64(r.o)+lo-int64(r.n), hi-lo); err != nil {
			return nil, err
		}
		d.account.upTo(Residual, len(d.out), c.at)
	}
	d.literals(size)
	d.account.upTo(Literals, len(d.out), c.at)
	d.meter.add(size - int64(d.metered))
	return d.out, nil
}

// searchRuns returns the first run that ends behind at.
func searchRuns(rs []run, at int64) int {
	lo, hi := 0, len(rs)
	for lo < hi {
		if k := (lo + hi) / 2; int64(rs[k].n)+int64(rs[k].l) > at {
			hi = k
		} else {
			lo = k + 1
		}
	}
	return lo
}

// prime fills the match model with the base around where the segment comes from.
func (d *denseCoder) prime(rs []run, at, size int64) error {
	from, n := windowOf(rs, at, size, d.baseSize)
	if d.window = d.window[:0]; n == 0 {
		return nil
	}
	d.window = grow(d.window, int(n))
	if err := readFull(d.src, d.window, from); err != nil {
		return err
	}
	for i := 8; i < len(d.window); i++ {
		at, check := hash6(d.window, i)
		d.table[at] = check | uint32(i)
	}
	return nil
}

// windowOf returns which n bytes of the base, of base bytes, literals of the segment may be matched with: those around
// the longest of rs, the runs that reach into it and those behind, unless they give all of it.
func windowOf(rs []run, at, size, base int64) (from, n int64) {
	var longest run
	covered := int64(0)
	for _, r := range rs {
		if int64(r.n) >= at+size {
			break
		}
		covered += int64(r.l)
		if r.l > longest.l {
			longest = r
		}
	}
	if covered >= size || longest.l == 0 {
		return 0, 0
	}
	n = min(windowLen, base)
	return max(0, min(int64(longest.o)+at-int64(longest.n)+size/2-n/2, base-n)), n
}

// hash6 hashes the 6 bytes in front of i, which is at least 8: to a place in the table,
// and to what is noted there beside i. Strings of 5 bytes that are the same and get the same
// place are noted the same: their products differ, if at all, by a small multiple of the
// constant, which is not near a multiple of 2^64. With another constant that may not hold.
func hash6(b []byte, i int) (at, check uint32) {
	h := binary.LittleEndian.Uint64(b[i-8:]) >> 16 * 0x9E3779B97F4A7C15
	return uint32(h >> (64 - tableBits)), uint32(h>>(32-tableBits)) & checkMask
}

// source returns byte p of the match model's memory: the window, then the output.
func (d *denseCoder) source(p int) (byte, bool) {
	if p < 0 {
		return 0, false
	}
	if p < len(d.window) {
		return d.window[p], true
	}
	if p -= len(d.window); p < len(d.out) {
		return d.out[p], true
	}
	return 0, false
}

// expect returns the byte that the match model expects, 256 for none.
func (d *denseCoder) expect() uint32 {
	if d.mln > 0 {
		if x, ok := d.source(d.mat); ok {
			return uint32(x)
		}
	}
	return 256
}

// push appends b to the output.
func (d *denseCoder) push(b byte) {
	if d.mln > 0 {
		if x, ok := d.source(d.mat); ok && x == b {
			d.mat++
			d.mln = min(d.mln+1, 63)
		} else {
			d.mln = 0
		}
	}
	d.out = append(d.out, b)
	n := len(d.out)
	if n < 8 {
		return
	}
	at, check := hash6(d.out, n)
	v := d.table[at]
	d.table[at] = check | uint32(len(d.window)+n)
	if p := int(v &^ checkMask); d.mln == 0 && v&checkMask == check && p > 0 {
		l := 0
		for l < 32 && l < n {
			if x, ok := d.source(p - 1 - l); !ok || x != d.out[n-1-l] {
				break
			}
			l++
		}
		if l >= 5 {
			d.mat, d.mln = p, l
		}
	}
}

// skip appends the n lowest bytes of v, which are as predicted. The match model neither
// follows nor remembers them: the base has them as well.
func (d *denseCoder) skip(v uint32, n int) {
	for range n {
		d.out = append(d.out, byte(v))
		v >>= 8
	}
	d.mln = 0
}

// mix3 hashes its arguments.
func mix3(id, a, b, c uint32) uint32 {
	h := (a+id*0x6F4F2A3B)*0x9E3779B1 ^ (b+0x7F4A7C15)*0x85EBCA6B
	h = (h ^ h>>15) * 0xC2B2AE35
	return (h ^ c ^ h>>13) * 0x27D4EB2F
}

// last returns the q-th byte from the end of the output.
func (d *denseCoder) last(q int) uint32 {
	if q > len(d.out) {
		return 0
	}
	return uint32(d.out[len(d.out)-q])
}

// last4 returns the last four bytes of the output, the last one lowest.
func (d *denseCoder) last4() uint32 {
	if n := len(d.out); n >= 4 {
		return binary.BigEndian.Uint32(d.out[n-4:])
	}
	return 0
}

// orders returns the contexts of literal n of the segment but the one of the match model,
// which is the fifth; w are the four bytes in front of it, the last one lowest, and far
// the eighth from it.
func orders(w, far, n uint32) [maxWays]uint32 {
	if n < 4 { // as last4
		w = 0
	}
	return [maxWays]uint32{mix3(1, w&0xff, 0, 0), mix3(2, w&0xffff, 0, 0), mix3(3, w&0xffffff, 0, 0), mix3(4, w, 0, 0),
		0, mix3(6, w>>24, far, n&3)}
}

// count notes what is coded.
func (d *denseCoder) count() {
	if n := len(d.out) - d.metered; d.meter != nil && n >= tellEvery {
		d.metered += n
		d.meter.add(int64(n))
	}
}

// literals codes bytes that no cover gives, up to offset to of the segment.
func (d *denseCoder) literals(to int64) {
	for n := int64(len(d.out)); n < to; n = int64(len(d.out)) {
		d.someLiterals(min(to, n+tellEvery))
		d.count()
	}
}

// someLiterals codes a part of them, which does not depend on what is a part.
func (d *denseCoder) someLiterals(to int64) {
	w := d.last(4)<<24 | d.last(3)<<16 | d.last(2)<<8 | d.last(1)
	h := orders(w, d.last(8), uint32(len(d.out)))
	for n := len(d.out); n < int(to); n++ {
		e, ml := d.expect(), min(uint32(d.mln), 32)
		h[4] = mix3(5, e, ml, 0)
		set := 0
		if e < 256 {
			set = 1 + min(d.mln/12, 2)
		}
		curve := set
		if d.wide {
			set, curve = set*laneCount+d.lane.of(d.at+int64(n)), set<<4|int(w>>4&15)
		}
		// What the next literal wants from memory is looked at as soon as it is known.
		var next [maxWays]uint32
		b := byte(0)
		if d.c.enc {
			b = d.fresh[n]
			next = orders(w<<8|uint32(b), d.last(7), uint32(n+1))
			d.gap.touch(&next, 0)
			d.gap.touch(&next, high(d.fresh[min(n+1, len(d.fresh)-1)]))
			if n >= 8 {
				at, _ := hash6(d.fresh, n+1)
				d.seen = d.table[at]
			}
			d.gap.byte(d.c, &h, int(b), set<<8, curve<<8)
		} else {
			b = d.gap.byte(d.c, &h, 0, set<<8, curve<<8)
			next = orders(w<<8|uint32(b), d.last(7), uint32(n+1))
			d.gap.touch(&next, 0)
		}
		d.push(b)
		w, h = w<<8|uint32(b), next
	}
}

// laner tells where bytes of the output are in instructions.
type laner struct {
	programs []image
	lo, hi   int64 // what is known
	none     bool  // of which nothing is
}

// of returns which byte of an instruction byte off is, 1 to 4; 0 where there are none, or they are of any length.
func (l *laner) of(off int64) int {
	if off < l.lo || off >= l.hi {
		im := findImage(l.programs, off)
		l.none = im == nil || im.mach == mach386 || im.mach == machX86
		if l.lo, l.hi = off, off+edge(l.programs, nil, off); im != nil {
			l.lo, l.hi = im.off, im.end
		}
	}
	if l.none {
		return 0
	}
	return 1 + int(off-l.lo)&3
}

// readFull reads all of b from the base.
func readFull(s Source, b []byte, off int64) error {
	n, err := s.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, layer.ErrFile) {
		return fmt.Errorf("patch: unpack the base: %w", err)
	}
	return fmt.Errorf("%w: %w", errReadBase, err)
}

// errReadBase reports that the base could not be read. It is for Decode to say that the base
// is therefore not the one the patch names: Create's base is what it is.
var errReadBase = errors.New("patch: read the base")
