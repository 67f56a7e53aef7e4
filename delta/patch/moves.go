package patch

import (
	"fmt"
	"slices"
	"sort"
)

const (
	maxCovers  = 1 << 18
	maxIndex   = 1 << 20 // bytes of the index in the patch
	seenBits   = 16
	shiftBits  = 12
	shiftBlock = 10
)

// run is a cover in the index: new[n:n+l] comes from old[o:o+l].
type run struct{ n, o, l uint32 }

// moves is the index: where everything went, before any segment says how it differs.
// It does not change once it is complete.
type moves struct {
	runs     []run
	byOld    []uint32 // runs by their place in the base
	old, new []image
}

// code codes the index, for streams of the given sizes and what is behind both.
func (m *moves) code(c *coder, oldSize, newSize, appendix int64) error {
	n := &numbers{slots: map[uint32]*slot{}}
	for id, ims := range []*[]image{&m.old, &m.new} {
		limit := oldSize
		if id == 1 {
			limit = newSize + appendix
		}
		if err := codeImages(c, n, ims, limit); err != nil {
			return err
		}
	}
	count := n.code(c, uint64(len(m.runs)), 1)
	if count > maxCovers {
		return fmt.Errorf("%w: %d covers", ErrCorrupt, count)
	}
	if !c.enc {
		m.runs = make([]run, 0, count)
	}
	var pn, po int64
	for i := range int(count) {
		var r run
		if c.enc {
			r = m.runs[i]
		}
		gap := n.code(c, uint64(int64(r.n)-pn), 2)
		g := uint32(lengthOf(gap))
		d := int64(r.o) - po
		u := n.code(c, uint64(d)<<1^uint64(d>>63), 16+min(g, 8))
		l := n.code(c, uint64(r.l), 4)
		from := po + int64(u>>1)
		if u&1 == 1 {
			from = po - int64(u>>1) - 1
		}
		at, has, to := pn+int64(gap), oldSize+appendix, newSize+appendix
		if from < 0 || l == 0 || int64(l) > to || int64(gap) > to || from > has-int64(l) || at > to-int64(l) {
			return fmt.Errorf("%w: cover %d of the index", ErrCorrupt, i)
		}
		if at+int64(l) > newSize && from > oldSize-int64(l) { // the appendix is made from the base alone
			return fmt.Errorf("%w: cover %d of the index", ErrCorrupt, i)
		}
		if !c.enc {
			m.runs = append(m.runs, run{uint32(at), uint32(from), uint32(l)})
			if c.at > len(c.buf)+8 {
				return fmt.Errorf("%w: index is cut short", ErrCorrupt)
			}
		}
		pn, po = at+int64(l), from+int64(l)
	}
	if n.over {
		return fmt.Errorf("%w: number of the index", ErrTooLarge)
	}
	m.sort()
	return nil
}

// lengthOf returns how many bits v has.
func lengthOf(v uint64) int {
	l := 0
	for ; v > 0; v >>= 1 {
		l++
	}
	return l
}

// sort orders the runs by their places in the base; of those from one place the longest come first, and of these the
// first of the output.
func (m *moves) sort() {
	keys := make([]uint64, len(m.runs))
	for i, r := range m.runs {
		keys[i] = uint64(r.o)<<32 | uint64(i)
	}
	slices.Sort(keys)
	for i := 0; i < len(keys); {
		k := i
		for ; k < len(keys) && keys[k]>>32 == keys[i]>>32; k++ {
		}
		if k > i+1 {
			for j := range keys[i:k] {
				run := uint32(keys[i+j])
				keys[i+j] = uint64(^m.runs[run].l)<<32 | uint64(run)
			}
			slices.Sort(keys[i:k])
		}
		i = k
	}
	m.byOld = make([]uint32, len(m.runs))
	for i, k := range keys {
		m.byOld[i] = uint32(k)
	}
}

// codeImages codes where programs are, and what of them is mapped.
func codeImages(c *coder, n *numbers, ims *[]image, limit int64) error {
	count := n.code(c, uint64(len(*ims)), 5)
	if count > maxImages {
		return fmt.Errorf("%w: %d programs", ErrCorrupt, count)
	}
	if !c.enc {
		*ims = make([]image, count)
	}
	var at int64
	areas := 0
	for i := range *ims {
		im := &(*ims)[i]
		step := n.code(c, uint64(im.off-at), 6)
		im.mach = n.code(c, im.mach, 7)
		loads := uint64(len(im.loads))
		if im.rel {
			loads = 0
		}
		if loads = n.code(c, loads, 8); step > uint64(limit) || loads > maxLoads {
			return fmt.Errorf("%w: program %d of the index", ErrCorrupt, i)
		}
		im.off = at + int64(step)
		if loads == 0 {
			if !codeObject(c, n, im, limit) {
				return fmt.Errorf("%w: object %d of the index", ErrCorrupt, i)
			}
			at = im.end
			continue
		}
		if !c.enc {
			im.loads = make([]load, loads)
		}
		for k := range im.loads {
			l := &im.loads[k]
			l.off = im.off + int64(n.code(c, uint64(l.off-im.off), 9)&(1<<41-1))
			l.n = int64(n.code(c, uint64(l.n), 10))
			v := n.code(c, l.v<<1^-(l.v>>63), 11)
			l.v = v>>1 ^ -(v & 1)
			l.mem = n.code(c, l.mem, 12)
			x := uint64(0)
			if l.exec {
				x = 1
			}
			l.exec = n.code(c, x, 13) == 1
			if !l.valid(im.off, limit) {
				return fmt.Errorf("%w: program %d of the index", ErrCorrupt, i)
			}
		}
		if areas += codeAreas(c, n, im, limit); areas > maxAreasTotal {
			return fmt.Errorf("%w: areas of program %d of the index", ErrCorrupt, i)
		}
		im.bounds()
		at = im.end
	}
	return nil
}

// codeObject codes how long the object im is, and reports whether it can be.
func codeObject(c *coder, n *numbers, im *image, limit int64) bool {
	size := int64(0)
	if c.enc {
		size = im.loads[0].n
	}
	size = int64(n.code(c, uint64(size), 30))
	im.rel, im.loads = true, []load{objectLoad(im.off, size)}
	im.bounds()
	return im.loads[0].valid(im.off, limit)
}

// codeAreas codes the areas of im, and returns how many they are: too many, if they are
// not in order or not in a stream of limit bytes.
func codeAreas(c *coder, n *numbers, im *image, limit int64) int {
	count := n.code(c, uint64(len(im.areas)), 14)
	if count > maxAreas {
		return maxAreasTotal + 1
	}
	if !c.enc {
		im.areas = make([]area, count)
	}
	at := im.off
	for i := range im.areas {
		a := &im.areas[i]
		kind := n.code(c, uint64(a.kind), 15)
		gap := n.code(c, uint64(a.off-at), 27)
		size := n.code(c, uint64(a.n), 28)
		if kind >= areaKinds || gap > uint64(limit-at) || size == 0 || size > uint64(limit-at)-gap {
			return maxAreasTotal + 1
		}
		a.kind, a.off, a.n = uint8(kind), at+int64(gap), int64(size)
		at = a.off + a.n
		if a.kind >= areaRelated {
			v, _, _ := im.addr(a.off)
			d := a.base - v
			d = n.code(c, d<<1^-(d>>63), 29)
			a.base = v + (d>>1 ^ -(d & 1))
		}
	}
	return len(im.areas)
}

// shift is how far the target of a reference went, by its block.
type shift struct{ key, by uint64 }

// mapper answers where the target of a reference in the base went: from the index,
// and from the targets seen in this segment.
type mapper struct {
	m        *moves
	old, new *image // of the cover at hand
	off      int64  // of old
	here     run    // the cover at hand
	shift    uint64 // of addresses that no byte of the stream has
	keys     [1 << seenBits]uint64
	values   [1 << seenBits]uint64
	shifts   [1 << shiftBits]shift
}

func (p *mapper) reset(m *moves) {
	p.m, p.old, p.new = m, nil, nil
	clear(p.keys[:])
	clear(p.shifts[:])
}

// enter chooses the programs that a cover is in.
func (p *mapper) enter(old, new *image) {
	if old != p.old || new != p.new || old != nil && old.off != p.off {
		p.old, p.new = old, new
		if old != nil {
			p.off = old.off // objects with their tables take turns in one place
		}
		if old != nil && new != nil {
			p.shift = new.hi - old.hi
		}
	}
}

func (p *mapper) key(v uint64) (k uint64, i uint64) {
	k = v<<16 ^ uint64(p.old.off) + 1
	return k, k * 0x9E3779B97F4A7C15 >> (64 - seenBits)
}

// to returns the new address of old address v, and how it is known.
func (p *mapper) to(v uint64) (uint64, uint8, bool) {
	if k, i := p.key(v); p.keys[i] == k {
		return p.values[i], srcSeen, true
	}
	return p.mapped(v)
}

// mapped is to, but by the index alone.
func (p *mapper) mapped(v uint64) (uint64, uint8, bool) {
	o, ok := p.old.offset(v)
	if !ok {
		return v + p.shift, srcOutside, true
	}
	src := uint8(srcHere)
	r := p.here
	if o < int64(r.o) || o >= int64(r.o)+int64(r.l) {
		rs, by := p.m.runs, p.m.byOld
		i := sort.Search(len(by), func(i int) bool { return int64(rs[by[i]].o) > o }) - 1
		best, l := -1, uint32(0)
		for k := i; k >= 0 && k > i-8; k-- {
			if r := rs[by[k]]; o < int64(r.o)+int64(r.l) && r.l > l {
				best, l = k, r.l
			}
		}
		src = srcCover
		if best < 0 {
			best = max(i, 0)
			src = srcNearest
		}
		if best >= len(by) {
			return 0, src, false
		}
		r = rs[by[best]]
	}
	n, _, ok := p.new.addr(o - int64(r.o) + int64(r.n))
	return n, src, ok
}

// shifted returns where v went if it went as what is around it.
func (p *mapper) shifted(v uint64) (uint64, bool) {
	s := &p.shifts[uint32(v>>shiftBlock)*0x9E3779B1>>(32-shiftBits)]
	return v + s.by, s.key == v>>shiftBlock+1
}

// learn notes that old address v became n.
func (p *mapper) learn(v, n uint64) {
	was, _, ok := p.mapped(v)
	k, i := p.key(v)
	s := &p.shifts[uint32(v>>shiftBlock)*0x9E3779B1>>(32-shiftBits)]
	if ok && was == n {
		if p.keys[i] == k {
			p.values[i] = n
		}
		if s.key == v>>shiftBlock+1 && s.by != n-v {
			s.key = 0
		}
		return
	}
	p.keys[i], p.values[i] = k, n
	*s = shift{v>>shiftBlock + 1, n - v}
	if _, in := p.old.offset(v); !in && n >= p.new.lo && n < p.new.hi {
		p.shift = n - v
	}
}
