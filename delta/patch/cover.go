package patch

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// unit is what is predicted as a whole: the field of a reference, or what lies in an
// aligned word between references.
type unit struct {
	k, n  int // b[k:k+n]
	ref   int // index in refs, -1: none
	old   uint32
	cand  [3]uint32 // predictions, the likeliest first
	count int
	src   uint8 // how the first was made
	alts  uint8 // which of the others there are
}

// Sources of predictions.
const (
	srcOld     = iota // as in the base
	srcExact          // as this word changed the last time
	srcNear           // as words of nearly this value changed
	srcRegion         // as words of about this value changed
	srcSeen           // where this target went the last time
	srcHere           // the target is in the cover at hand
	srcCover          // the target is in another cover
	srcNearest        // the target is behind a cover
	srcOutside        // the target is not in the stream
	srcShift          // as targets around it went
)

// change is how a word changed the last time.
type change struct {
	key, by uint32
	sure    uint8
}

// changes remembers how words change, by all or some of their bits.
type changes struct {
	exact, near, region [1 << changeBits]change
}

const (
	changeBits = 12
	nearShift  = 10
	farShift   = 16
)

func changeAt(t *[1 << changeBits]change, key uint32) *change {
	return &t[key*0x9E3779B1>>(32-changeBits)]
}

func (c *change) learn(key, by uint32) {
	switch {
	case c.key != key:
		*c = change{key, by, 0}
	case c.by == by:
		c.sure = min(c.sure+1, 15)
	case c.sure > 1:
		c.sure >>= 1
	default:
		c.by, c.sure = by, 0
	}
}

// learn notes that word v became v+by.
func (t *changes) learn(v, by uint32) {
	changeAt(&t.exact, v).learn(v, by)
	changeAt(&t.near, v>>nearShift).learn(v>>nearShift, by)
	changeAt(&t.region, v>>farShift).learn(v>>farShift, by)
}

// part is part of a cover: b[lo:hi] of the base's bytes in d.buf, predicted in d.pred.
type part struct {
	lo, hi int
	addr   uint64                // of b[lo] in the new program, or its offset
	va     uint64                // of b[lo] in the old program
	known  bool                  // both are in programs
	area   area                  // of b[lo:hi] in the old program
	bases  [areaStart + 1]uint64 // that words of the area are relative to in the new program
	class  uint32                // 0: not in a program, 1 data, 2 code, 3 rows of a parse
}

// cover codes n bytes at offset at of the output that come from offset from of the
// base.
func (d *denseCoder) cover(at, from, n int64) error {
	d.hist, d.words, d.dirty = 0, 0, 0
	d.begun = 0
	for n > 0 {
		old, new := d.tables(findImage(d.mp.m.old, from)), findImage(d.mp.m.new, at)
		if old != nil && old.rel && old.object.err != nil {
			return old.object.err
		}
		d.mp.enter(old, new)
		l := min(n, denseRun, edge(d.mp.m.old, old, from), edge(d.mp.m.new, new, at))
		lo := min(from, margin)
		end := min(from+l+margin, d.baseSize)
		b := d.buf[:end-from+lo]
		if err := readFull(d.src, b, from-lo); err != nil {
			return err
		}
		clear(d.buf[len(b):min(len(b)+8, len(d.buf))])
		d.pred = d.pred[:l+8]
		clear(d.pred[l:])
		copy(d.pred[:l], b[lo:])
		d.part(b, part{lo: int(lo), hi: int(lo + l)}, at, from, n, old, new)
		d.count()
		at, from, n = at+l, from+l, n-l
	}
	return nil
}

// column returns which byte of a row b[k] is, plus 8; 0 if it is of no parse.
func (p *part) column(k int) uint32 {
	if p.class != 3 {
		return 0
	}
	return uint32(p.addr+uint64(k-p.lo))&7 | 8
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
	for i := range im.areas {
		if a := &im.areas[i]; off < a.off {
			d = min(d, a.off-off)
		} else if off < a.off+a.n {
			d = min(d, a.off+a.n-off)
		}
	}
	return d
}

// part codes the part p of a cover, of which left bytes are left, from b.
func (d *denseCoder) part(b []byte, p part, at, from, left int64, old, new *image) {
	if old != nil && new != nil {
		var ok bool
		p.va, _, p.known = old.addr(from)
		p.addr, _, ok = new.addr(at)
		p.known = p.known && ok
	}
	if p.known {
		p.area = old.area(from)
		if k := p.area.kind; k >= areaRelated && k < areaKinds {
			d.bases(&p, old, new)
		}
		p.class = 1
		if p.area.kind == areaCode {
			p.class = 2
		}
	} else {
		p.addr = uint64(at)
		if at >= d.rows {
			p.addr, p.class = uint64(at-d.rows), 3
		}
	}
	for k := p.lo; k < p.hi; {
		e := min(k+blockLen, p.hi)
		d.refs = d.refs[:0]
		if p.known {
			d.refs = old.refs(d.refs, b, k, e, p.va+uint64(k-p.lo), p.area)
			if n := len(d.refs); n > 0 {
				e = min(max(e, d.refs[n-1].at+4), p.hi)
			}
		}
		d.divide(b, &p, k, e)
		for i := range d.units {
			d.guess(b, &p, &d.units[i])
		}
		d.block(b, &p, k, e, left-int64(k-p.lo))
		d.begun += int64(e - k)
		k = e
	}
}

// bases finds where the areas of the new program are that are paired with those of old.
func (d *denseCoder) bases(p *part, old, new *image) {
	for k := areaRelated; k < len(p.bases); k++ {
		v, ok := new.partner(uint8(k))
		if was, has := old.partner(uint8(k)); has && !ok {
			v, _, _ = d.mp.mapped(was)
		}
		p.bases[k] = v
	}
}

// home returns the new address that r, in p, is relative to.
func (d *denseCoder) home(p *part, r *ref) uint64 {
	switch r.kind {
	case refBase32, refRow:
		if r.rel == areaOwn {
			v, _, _ := d.mp.mapped(r.base)
			return v
		}
		return p.bases[r.rel]
	}
	return p.addr + uint64(r.at-p.lo)
}

// tables returns im with its tables, if it is an object.
func (d *denseCoder) tables(im *image) *image {
	if im == nil || !im.rel {
		return im
	}
	if d.object == nil || d.object.off != im.off {
		d.object = im.withTables(d.headers, d.object)
	}
	return d.object
}

// divide makes units of b[k:e].
func (d *denseCoder) divide(b []byte, p *part, k, e int) {
	d.units = d.units[:0]
	next := 0
	for k < e {
		u := unit{k: k, ref: -1}
		for next < len(d.refs) && d.refs[next].at < k {
			next++
		}
		to := e
		if next < len(d.refs) {
			to = min(e, d.refs[next].at)
		}
		if to == k && e-k >= 4 {
			u.n, u.ref = 4, next
			next++
		} else {
			if to == k {
				to = e
			}
			u.n = min(4-int(p.addr+uint64(k-p.lo))&3, to-k)
		}
		for i := range u.n {
			u.old |= uint32(b[k+i]) << (8 * i)
		}
		d.units = append(d.units, u)
		k += u.n
	}
}

// add adds candidate v, made by src.
func (u *unit) add(v uint32, src uint8) {
	for i := range u.count {
		if u.cand[i] == v {
			return
		}
	}
	if u.count == len(u.cand) {
		return
	}
	if u.count == 0 {
		u.src = src
	} else {
		u.alts |= 1 << min(src, 7)
	}
	u.cand[u.count] = v
	u.count++
}

// guess makes u's predictions, and writes the first to d.pred.
func (d *denseCoder) guess(b []byte, p *part, u *unit) {
	u.count, u.alts = 0, 0
	pred := d.pred[u.k-p.lo:]
	switch {
	case u.ref >= 0:
		r := &d.refs[u.ref]
		pc := d.home(p, r)
		var e [8]byte
		field := func(t uint64) uint32 {
			copy(e[:], b[u.k:])
			r.put(e[:], pc, t)
			return binary.LittleEndian.Uint32(e[:])
		}
		if t, src, ok := d.mp.to(r.target); ok {
			u.add(field(t), src)
			if r.kind == refAbs64 && u.k+8 <= p.hi {
				copy(pred[4:8], e[4:])
			}
			if src == srcSeen {
				if t, src, ok := d.mp.mapped(r.target); ok {
					u.add(field(t), src)
				}
			}
		}
		if t, ok := d.mp.shifted(r.target); ok {
			u.add(field(t), srcShift)
		}
	case u.n == 4:
		x, n, f := changeAt(&d.changes.exact, u.old), changeAt(&d.changes.near, u.old>>nearShift), changeAt(&d.changes.region, u.old>>farShift)
		if x.key == u.old && x.sure > 0 {
			u.add(u.old+x.by, srcExact)
		}
		if n.key == u.old>>nearShift && n.sure > 0 {
			u.add(u.old+n.by, srcNear)
		}
		if f.key == u.old>>farShift && f.sure > 1 {
			u.add(u.old+f.by, srcRegion)
		}
	}
	u.add(u.old, srcOld)
	for i := range u.n {
		pred[i] = byte(u.cand[0] >> (8 * i))
	}
}

// log returns the bits of v, at most limit.
func log(v int64, limit int) uint32 { return uint32(min(lengthOf(uint64(v)), limit)) }

// block codes b[k:e], whose cover goes on for left bytes.
func (d *denseCoder) block(b []byte, p *part, k, e int, left int64) {
	pred := d.pred[k-p.lo : e-p.lo]
	same := 0
	if d.c.enc && string(pred) == string(d.fresh[len(d.out):len(d.out)+len(pred)]) {
		same = 1
	}
	refs, moved, weak, srcs := uint32(0), uint32(0), uint32(0), uint32(0)
	for i := range d.units {
		u := &d.units[i]
		srcs |= 1 << u.src
		if u.ref >= 0 {
			refs++
		}
		if u.cand[0] != u.old {
			moved++
		}
		if u.alts > 1 {
			weak++
		}
	}
	dh := d.dirty
	from, to := log(d.begun, 15), log(left, 15)
	d.h = [maxWays]uint32{mix3(1, dh&0xff, p.class, 0), mix3(2, dh&15, refs, weak), mix3(3, dh&3, from, to), mix3(4, dh&0xfff, 0, 0),
		mix3(5, srcs, dh&3, 0), mix3(6, binary.LittleEndian.Uint32(d.buf[k:]), binary.LittleEndian.Uint32(d.buf[k+4:]), 0), mix3(7, moved, weak, dh&7|p.class<<8)}
	at := d.blocks.choose(&d.h)
	same = d.blocks.code(d.c, &at, same, int(dh&7|p.class<<3|min(refs, 3)<<5), int(dh&255))
	d.dirty = dh<<1 | uint32(1-same)
	if same == 1 {
		d.out = append(d.out, pred...)
		d.words, d.hist, d.mln = 0, 0, 0
		for i := range d.units {
			if u := &d.units[i]; u.n == 4 && u.ref < 0 && u.src != srcOld {
				d.changes.learn(u.old, u.cand[0]-u.old)
			}
		}
		return
	}
	start := len(d.out)
	for i := range d.units {
		u := &d.units[i]
		d.guess(b, p, u)
		d.unit(b, p, u)
	}
	d.account.block(start, len(d.out), d.c.at)
}

// unit codes u.
func (d *denseCoder) unit(b []byte, p *part, u *unit) {
	k, n := u.k, u.n
	v := uint32(0)
	if d.c.enc {
		for i, x := range d.fresh[len(d.out) : len(d.out)+n] {
			v |= uint32(x) << (8 * i)
		}
	}
	kind := uint32(0)
	if u.ref >= 0 {
		kind = uint32(d.refs[u.ref].kind)
	}
	ow, pw := u.old, u.cand[0]
	moved := uint32(0)
	if ow != pw {
		moved = 1
	}
	d4, d8 := d.diff(b, k, 4), d.diff(b, k, 8)
	src := uint32(u.src) | kind<<4 | uint32(n)<<8 | p.column(k)>>2<<12
	op := ow>>24<<8 | ow&0xff
	ws := d.words
	alts := uint32(u.alts)
	d.h = [maxWays]uint32{mix3(1, ws&0xff, moved, src), mix3(2, ow, moved, src), mix3(3, op, ws&7, src), mix3(4, d4, d8, src),
		mix3(5, d.last4(), pw, 0), mix3(6, ow>>24, ws&15, d4), mix3(7, alts, src, ws&15)}
	at := d.word.choose(&d.h)
	got := -1
	for i := range u.count {
		hit := 0
		if v == u.cand[i] {
			hit = 1
		}
		if i == 0 {
			hit = d.word.code(d.c, &at, hit, int(ws&31|moved<<5|uint32(n&3)<<6), int(ws&511|moved<<9))
			d.words = ws<<1 | uint32(1-hit)
		} else {
			d.h = [maxWays]uint32{mix3(1, alts, src, uint32(i)), mix3(2, d.others&0xff, uint32(i), src), mix3(3, op, src, uint32(i)), mix3(4, u.cand[i]-ow, uint32(i), 0)}
			at := d.other.choose(&d.h)
			hit = d.other.code(d.c, &at, hit, int(u.src)<<2|i, int(d.others&15)<<2|i)
			d.others = d.others<<1 | uint32(1-hit)
		}
		if hit == 1 {
			got = i
			break
		}
	}
	if got >= 0 {
		d.skip(u.cand[got], n)
	} else {
		missed := false
		for i := range n {
			x, must := 0, i == n-1 && !missed
			if d.c.enc {
				x = int(d.fresh[len(d.out)])
			}
			y := d.byte(b, p, u, i, x, must)
			missed = missed || y != byte(u.cand[0]>>(8*i))
			d.push(y)
		}
	}
	d.note(p, u)
}

// note learns from u, which has been coded.
func (d *denseCoder) note(p *part, u *unit) {
	if u.n < 4 {
		return
	}
	v := binary.LittleEndian.Uint32(d.out[len(d.out)-4:])
	if u.ref < 0 {
		d.changes.learn(u.old, v-u.old)
		return
	}
	r := &d.refs[u.ref]
	if r.width() == 8 { // the upper half as predicted
		d.mp.learn(r.target, uint64(v)|uint64(binary.LittleEndian.Uint32(d.pred[u.k-p.lo+4:]))<<32)
	} else if t, ok := r.read(d.out, len(d.out)-4, d.home(p, r)); ok {
		d.mp.learn(r.target, t)
	}
}

// diff returns the difference to the base q bytes in front of b[k].
func (d *denseCoder) diff(b []byte, k, q int) uint32 {
	if q > k || q > len(d.out) {
		return 256
	}
	return uint32(d.out[len(d.out)-q] - b[k-q])
}

// byte codes byte i of u, none of whose predictions is right; must says that this
// byte is not as predicted first.
func (d *denseCoder) byte(b []byte, p *part, u *unit, i, x int, must bool) byte {
	k, ow := u.k+i, u.old
	e := u.cand[0] >> (8 * i) & 255
	ph := uint32(i)
	if c := p.column(k); c > 0 {
		ph = c
	}
	w := d.last4()
	d4, d8, d1 := d.diff(b, k, 4), d.diff(b, k, 8), d.diff(b, k, 1)
	nw := w & (1<<(8*i) - 1)
	hs := d.hist
	if !must {
		d2 := d.diff(b, k, 2)
		d.h = [maxWays]uint32{mix3(1, hs&255, ph, 0), mix3(2, ow, nw, ph), mix3(3, e, ph, hs&7), mix3(4, d4, d8, ph),
			mix3(5, w&0xff, e, uint32(b[min(k+1, len(b)-1)])), mix3(6, d1<<9|d2, hs&15, ph), mix3(7, ow>>24, e, hs&3|ph<<2)}
		at := d.hit.choose(&d.h)
		hit := 0
		if x == int(e) {
			hit = 1
		}
		hit = d.hit.code(d.c, &at, hit, int(hs&63)|i<<6, int(hs&255)|i<<8)
		d.hist = hs<<1 | uint32(1-hit)
		if hit == 1 {
			return byte(e)
		}
	} else {
		d.hist = hs<<1 | 1
	}
	m := d.expect()
	d.h = [maxWays]uint32{mix3(1, e, ph, 0), mix3(2, ow, nw, ph), mix3(3, (e+d4)&255, ph, 0), mix3(4, (uint32(b[k])+d8)&255, ph, 0),
		mix3(5, e, w&0xffff, 0), mix3(6, e, d1, ph), mix3(7, m, min(uint32(d.mln), 15), 0)}
	d.miss.touch(&d.h, 0)
	if d.c.enc {
		d.miss.touch(&d.h, high(byte(x)))
	}
	return d.miss.byte(d.c, &d.h, x, i<<8, 0)
}
