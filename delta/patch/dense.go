package patch

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

const (
	blockLen  = 32
	windowLen = 2 << 20 // bytes of the base that literals may be matched with
	denseRun  = 64 << 10
	margin    = 64
	tableBits = 18
)

// denseMemory is what a denseCoder and the covers of an index take, in bytes, apart
// from output and payload.
const denseMemory = 17 << 20

// denseCoder codes dense segments. One serves many segments, one at a time.
type denseCoder struct {
	c        *coder
	src      Source // the base
	baseSize int64
	mp       mapper
	blocks   [1 << 12]slot

	word, hit, miss, gap *contexts
	h                    [maxContexts]uint32

	out    []byte // what is coded of the segment
	fresh  []byte // encoding: the segment
	buf    []byte // of the base, around the cover at hand
	pred   []byte
	refs   []ref
	window []byte

	table    []int32 // match model: by hash of 6 bytes, place in window, then out
	mat, mln int
	// Misses so far, the last one lowest: of bytes, words, blocks.
	hist, words, dirty uint32
}

func newDenseCoder(src Source) *denseCoder {
	d := &denseCoder{src: src, baseSize: src.Size()}
	d.word = newContexts(7, 18, 1, 256, 1024, 250)
	d.hit = newContexts(7, 18, 1, 256, 1024, 60)
	d.miss = newContexts(10, 20, 16, 1024, 256, 30)
	d.gap = newContexts(7, 19, 16, 1024, 1024, 30)
	d.table = make([]int32, 1<<tableBits)
	d.buf = make([]byte, denseRun+2*margin)
	d.pred = make([]byte, denseRun+margin)
	return d
}

// segment codes the segment of size bytes at offset at of the output; fresh has the
// bytes when encoding. The result stays valid until the next call.
func (d *denseCoder) segment(c *coder, m *moves, at, size int64, fresh, out []byte) ([]byte, error) {
	d.c, d.fresh, d.out = c, fresh, out[:0]
	d.hist, d.words, d.dirty, d.mat, d.mln = 0, 0, 0, 0, 0
	for _, s := range []*contexts{d.word, d.hit, d.miss, d.gap} {
		s.reset()
	}
	for i := range d.blocks {
		d.blocks[i] = slotHalf
	}
	clear(d.table)
	d.mp.reset(m)
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
		d.mp.here = r
		if err := d.cover(lo, int64(r.o)+lo-int64(r.n), hi-lo); err != nil {
			return nil, err
		}
	}
	d.literals(size)
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
	d.window = d.window[:0]
	if covered >= size || longest.l == 0 {
		return nil
	}
	n := min(windowLen, d.baseSize)
	from := max(0, min(int64(longest.o)+at-int64(longest.n)+size/2-n/2, d.baseSize-n))
	d.window = grow(d.window, int(n))
	if err := readFull(d.src, d.window, from); err != nil {
		return err
	}
	for i := 8; i < len(d.window); i++ {
		d.table[hash6(d.window, i)] = int32(i)
	}
	return nil
}

// hash6 hashes the 6 bytes in front of i, which is at least 8.
func hash6(b []byte, i int) uint32 {
	return uint32(binary.LittleEndian.Uint64(b[i-8:]) >> 16 * 0x9E3779B97F4A7C15 >> (64 - tableBits))
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
	k := hash6(d.out, n)
	if p := int(d.table[k]); d.mln == 0 && p > 0 {
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
	d.table[k] = int32(len(d.window) + n)
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

// literals codes bytes that no cover gives, up to offset to of the segment.
func (d *denseCoder) literals(to int64) {
	for int64(len(d.out)) < to {
		e, w := d.expect(), d.last4()
		ml := min(uint32(d.mln), 32)
		n := uint32(len(d.out))
		d.h = [maxContexts]uint32{mix3(1, w&0xff, 0, 0), mix3(2, w&0xffff, 0, 0), mix3(3, w&0xffffff, 0, 0), mix3(4, w, 0, 0),
			mix3(5, w, d.last(5), d.last(6)), mix3(6, e, ml, 0), mix3(7, w>>24, d.last(8), n&3)}
		set := 0
		if e < 256 {
			set = 1 + min(d.mln/12, 2)
		}
		b := 0
		if d.c.enc {
			b = int(d.fresh[len(d.out)])
		}
		d.push(d.symbol(d.gap, b, set<<8, set<<8))
	}
}

// symbol codes a byte, bit by bit from the highest.
func (d *denseCoder) symbol(m *contexts, b, set, curve int) byte {
	m.point(&d.h, 0)
	k := 1
	for i := 7; i >= 4; i-- {
		k = k<<1 | m.code(d.c, b>>i&1, uint32(k), set+k, curve+k)
	}
	m.point(&d.h, uint32(k))
	node := 1
	for i := 3; i >= 0; i-- {
		bit := m.code(d.c, b>>i&1, uint32(node), set+k, curve+k)
		node, k = node<<1|bit, k<<1|bit
	}
	return byte(k)
}

// part is part of a cover: b[lo:hi] of the base's bytes in d.buf, predicted in d.pred.
type part struct {
	lo, hi int
	addr   uint64 // of b[lo] in the new program, or its offset
}

// cover codes n bytes at offset at of the output that come from offset from of the
// base.
func (d *denseCoder) cover(at, from, n int64) error {
	d.hist, d.words, d.dirty = 0, 0, 0
	for n > 0 {
		old, new := findImage(d.mp.m.old, from), findImage(d.mp.m.new, at)
		d.mp.enter(old, new)
		l := min(n, denseRun, edge(d.mp.m.old, old, from), edge(d.mp.m.new, new, at))
		lo := min(from, margin)
		end := min(from+l+margin, d.baseSize)
		b := d.buf[:end-from+lo]
		if err := readFull(d.src, b, from-lo); err != nil {
			return err
		}
		d.pred = d.pred[:l+8]
		clear(d.pred[l:])
		copy(d.pred[:l], b[lo:])
		d.part(b, part{int(lo), int(lo + l), 0}, at, from, old, new)
		at, from, n = at+l, from+l, n-l
	}
	return nil
}

// edge returns how far it is from off, in im or in none, to where a program or what is
// mapped of it begins or ends; 1 at least.
func edge(ims []image, im *image, off int64) int64 {
	d := int64(1) << 40
	if im == nil {
		i, _ := slices.BinarySearchFunc(ims, off, func(im image, off int64) int { return cmp.Compare(im.off, off) })
		if i < len(ims) && ims[i].off > off {
			d = ims[i].off - off
		}
		return d
	}
	for i := range im.loads {
		if l := &im.loads[i]; off < l.off {
			d = min(d, l.off-off)
		} else if off < l.off+l.n {
			d = min(d, l.off+l.n-off)
		}
	}
	return d
}

// part codes the part p of a cover, from b.
func (d *denseCoder) part(b []byte, p part, at, from int64, old, new *image) {
	var va uint64
	exec, known := false, false
	if old != nil && new != nil {
		va, exec, known = old.addr(from)
		var ok bool
		p.addr, _, ok = new.addr(at)
		known = known && ok
	}
	if !known {
		p.addr = uint64(at)
	}
	for k := p.lo; k < p.hi; k += blockLen {
		e := min(k+blockLen, p.hi)
		d.refs = d.refs[:0]
		if known {
			d.refs = old.refs(d.refs, b, k, e, va+uint64(k-p.lo), exec)
			for i := range d.refs {
				r := &d.refs[i]
				if t, ok := d.mp.to(r.target); ok && r.at < p.hi {
					r.put(d.pred[r.at-p.lo:], p.addr+uint64(r.at-p.lo), t)
				}
			}
		}
		d.block(b, p, k, e)
		for i := range d.refs {
			r := &d.refs[i]
			q := len(d.out) - (e - r.at)
			if q >= 0 && q+r.width() <= len(d.out) {
				if t, ok := r.read(d.out, q, p.addr+uint64(r.at-p.lo)); ok {
					d.mp.learn(r.target, t)
				}
			}
		}
	}
}

// block codes b[k:e].
func (d *denseCoder) block(b []byte, p part, k, e int) {
	pred := d.pred[k-p.lo : e-p.lo]
	same := 0
	if d.c.enc && string(pred) == string(d.fresh[len(d.out):len(d.out)+len(pred)]) {
		same = 1
	}
	same = d.blocks[d.dirty&0xfff].code(d.c, same, 250)
	d.dirty = d.dirty<<1 | uint32(1-same)
	if same == 1 {
		d.out = append(d.out, pred...)
		d.words, d.hist, d.mln = 0, 0, 0
		return
	}
	for k < e {
		n := min(4-int(p.addr+uint64(k-p.lo))&3, e-k)
		d.unit(b, p, k, n)
		k += n
	}
}

// unit codes b[k:k+n], which lies within an aligned word.
func (d *denseCoder) unit(b []byte, p part, k, n int) {
	pred := d.pred[k-p.lo : k-p.lo+n]
	same := 0
	if d.c.enc && string(pred) == string(d.fresh[len(d.out):len(d.out)+n]) {
		same = 1
	}
	var ow, pw uint32
	if k+4 <= len(b) {
		ow = binary.LittleEndian.Uint32(b[k:])
	}
	for i, x := range pred {
		pw |= uint32(x) << (8 * i)
	}
	moved := uint32(0)
	if string(b[k:k+n]) != string(pred) {
		moved = 1
	}
	d4, d8 := d.diff(b, k, 4), d.diff(b, k, 8)
	kind := ow>>24<<8 | ow&0xff
	ws := d.words
	d.h = [maxContexts]uint32{mix3(1, ws&0xff, moved, uint32(n)), mix3(2, ow, moved, 0), mix3(3, kind, ws&7, moved), mix3(4, d4, d8, moved),
		mix3(5, d.last4(), pw, 0), mix3(6, ow>>24, ws&15, d4), mix3(7, ow&0xffff, ow>>26, ws&3)}
	d.word.point(&d.h, 0)
	same = d.word.code(d.c, same, 0, int(ws&31|moved<<5|uint32(n&3)<<6), int(ws&511|moved<<9))
	d.words = d.words<<1 | uint32(1-same)
	if same == 1 {
		for _, x := range pred {
			d.push(x)
		}
		return
	}
	missed := false
	for i := range n {
		x, must := 0, i == n-1 && !missed
		if d.c.enc {
			x = int(d.fresh[len(d.out)])
		}
		y := d.byte(b, p, k+i, x, ow, must)
		missed = missed || y != d.pred[k+i-p.lo]
		d.push(y)
	}
}

// diff returns the difference to the base q bytes in front of b[k].
func (d *denseCoder) diff(b []byte, k, q int) uint32 {
	if q > k || q > len(d.out) {
		return 256
	}
	return uint32(d.out[len(d.out)-q] - b[k-q])
}

// byte codes one byte, for b[k], of a word whose prediction is wrong; must says that
// this byte's is.
func (d *denseCoder) byte(b []byte, p part, k, x int, ow uint32, must bool) byte {
	e := uint32(d.pred[k-p.lo])
	ph := uint32(p.addr+uint64(k-p.lo)) & 3
	w := d.last4()
	d4, d8, d1 := d.diff(b, k, 4), d.diff(b, k, 8), d.diff(b, k, 1)
	nw := w & (1<<(8*ph) - 1)
	hs := d.hist
	if !must {
		d2 := d.diff(b, k, 2)
		d.h = [maxContexts]uint32{mix3(1, hs&255, ph, 0), mix3(2, ow, nw, ph), mix3(3, e, ph, hs&7), mix3(4, d4, d8, ph),
			mix3(5, w&0xff, e, uint32(b[min(k+1, len(b)-1)])), mix3(6, d1<<9|d2, hs&15, ph), mix3(7, ow>>24, e, hs&3|ph<<2)}
		d.hit.point(&d.h, 0)
		hit := 0
		if x == int(e) {
			hit = 1
		}
		hit = d.hit.code(d.c, hit, 0, int(hs&63|ph<<6), int(hs&255|ph<<8))
		d.hist = hs<<1 | uint32(1-hit)
		if hit == 1 {
			return byte(e)
		}
	} else {
		d.hist = hs<<1 | 1
	}
	m := d.expect()
	d.h = [maxContexts]uint32{mix3(1, e, ph, 0), mix3(2, ow, nw, ph), mix3(3, (e+d4)&255, ph, 0), mix3(4, (uint32(b[k])+d8)&255, ph, 0),
		mix3(5, e, w&0xffff, 0), mix3(6, e, d1, ph), mix3(7, w&0xffffff, 0, 0), mix3(8, m, min(uint32(d.mln), 15), 0), mix3(9, d4, e, d8), mix3(10, w&0xff, w>>24, ph)}
	return d.symbol(d.miss, x, int(ph)<<8, 0)
}

// readFull reads all of b from the base.
func readFull(s Source, b []byte, off int64) error {
	if n, err := s.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("%w: read: %w", ErrBase, err)
	}
	return nil
}
