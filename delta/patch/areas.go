package patch

import (
	"encoding/binary"
	"sort"
)

// Kinds of areas: what the words in them may refer to.
const (
	areaData    = iota // pointers; words relative to themselves that lead to code
	areaCode           // instructions
	areaRelated        // words relative to the area's base, as in .eh_frame_hdr
	areaIndex          // ARM: words of 31 bits relative to themselves
	// Of programs in Go:
	areaRaw      // nothing
	areaNames    // nothing
	areaPCs      // nothing
	areaFuncData // names from areaNames, beside areaFuncs
	areaFuncTab  // begins of functions relative to the base, their records to the area
	areaFuncs    // records of functions; from areaFuncTab, areaNames, areaPCs, areaFuncData
	areaFuncsOld // the same, with shorter ones
	areaTypes    // words relative to the base
	areaLinks    // the same, for sure
	areaKinds
	// Of relocatable objects, not in the index:
	areaSymbols // names relative to the base, values to their section
	areaRelocs  // places relative to the base, symbols, and what is added
	areaHeads   // of sections
	// What words are relative to besides bases of areas:
	areaStart = areaKinds     // where areaFuncTab begins
	areaOwn   = areaKinds + 1 // the reference has it
)

const (
	maxAreas      = 24      // of a program
	maxAreasTotal = 4 << 10 // of all in a stream
	// maxReach is how far the base of an area is from its address at most: tables may name
	// any, but an index has no numbers for all.
	maxReach = 1 << 52
)

// area is a part of a program that is of another kind than what is mapped with it.
type area struct {
	off, n int64 // in the stream
	kind   uint8
	base   uint64 // address that words are relative to
}

// area returns what off, which is mapped by l, is in: one without a base, if it is in
// no area of its own.
func (im *image) area(off int64) area {
	for i := range im.areas {
		if a := &im.areas[i]; off >= a.off && off-a.off < a.n {
			return *a
		}
	}
	kind := uint8(areaData)
	for i := range im.loads {
		if l := &im.loads[i]; l.exec && off >= l.off && off-l.off < l.n {
			kind = areaCode
		}
	}
	return area{kind: kind}
}

// partner returns the base of im's first area of the kind, and whether it has one.
func (im *image) partner(kind uint8) (uint64, bool) {
	if kind == areaStart {
		return im.start(areaFuncTab)
	}
	for i := range im.areas {
		if p := &im.areas[i]; p.kind == kind {
			return p.base, true
		}
	}
	return 0, false
}

// start returns the address of im's first area of the kind.
func (im *image) start(kind uint8) (uint64, bool) {
	for i := range im.areas {
		if a := &im.areas[i]; a.kind == kind {
			v, _, ok := im.addr(a.off)
			return v, ok
		}
	}
	return 0, false
}

// codeBounds derives the addresses of code from loads and areas.
func (im *image) codeBounds() {
	im.codeLo, im.codeHi = ^uint64(0), 0
	add := func(lo, hi int64) {
		if v, _, ok := im.addr(lo); ok && lo < hi {
			im.codeLo, im.codeHi = min(im.codeLo, v), max(im.codeHi, v+uint64(hi-lo))
		}
	}
	for _, l := range im.loads {
		at := l.off
		for _, a := range im.areas {
			if a.off < at || a.off >= l.off+l.n {
				continue
			}
			if l.exec {
				add(at, a.off)
			}
			at = a.off
			if a.kind != areaCode {
				at = min(a.off+a.n, l.off+l.n)
			} else if !l.exec {
				add(at, min(a.off+a.n, l.off+l.n))
				at = min(a.off+a.n, l.off+l.n)
			}
		}
		if l.exec {
			add(at, l.off+l.n)
		}
	}
}

// ELF's names for what areas are found by.
const (
	ptEhFrame   = 0x6474e550
	ptExidx     = 0x70000001
	shfAlloc    = 2
	shfExec     = 4
	shtNobits   = 8
	maxSections = 256
)

// findAreas reads which parts of im, a program whose first bytes are head, are code, by
// its sections and headers. What it cannot read it leaves out.
func findAreas(src Source, im *image, head []byte) []area {
	x := elfReader{src: src, im: im, head: head, wide: head[4] == 2}
	var all []area
	for _, l := range im.loads {
		all = append(all, x.within(l)...)
	}
	sortAreas(all)
	for _, t := range append(x.tables(), x.goAreas()...) {
		all = carve(all, t)
	}
	var out []area
	for _, a := range all {
		v, exec, ok := im.addr(a.off)
		ok = ok && a.n > 0 && a.n <= src.Size()-a.off && a.base-v+maxReach <= 2*maxReach
		same := a.kind == areaData && !exec || a.kind == areaCode && exec
		if n := len(out); ok && !same && n < maxAreas && (n == 0 || a.off >= out[n-1].off+out[n-1].n) {
			out = append(out, a)
		}
	}
	return out
}

// sortAreas sorts by offset; what has the same stays in its order.
func sortAreas(as []area) { sort.SliceStable(as, func(i, j int) bool { return as[i].off < as[j].off }) }

// carve puts a in place of what areas say of its bytes.
func carve(in []area, a area) []area {
	var out []area
	for _, b := range in {
		if l := b; l.off < a.off {
			l.n = min(l.n, a.off-l.off)
			out = append(out, l)
		}
		if r := b; r.off+r.n > a.off+a.n {
			lo := max(r.off, a.off+a.n)
			out = append(out, area{lo, r.off + r.n - lo, r.kind, r.base})
		}
	}
	out = append(out, a)
	sortAreas(out)
	return out
}

// elfReader reads the headers of a program.
type elfReader struct {
	src  Source
	im   *image
	head []byte
	wide bool
}

// within returns l as areas: of code and of data, as its sections say.
func (x *elfReader) within(l load) []area {
	var out []area
	for _, s := range x.sections() {
		if s.off < l.off || s.off >= l.off+l.n {
			continue
		}
		if n := len(out); n > 0 && out[n-1].kind != s.kind {
			out[n-1].n = s.off - out[n-1].off
			out = append(out, s)
		} else if n == 0 {
			s.off = l.off
			out = append(out, s)
		}
	}
	if n := len(out); n > 0 {
		out[n-1].n = l.off + l.n - out[n-1].off
	}
	return out
}

// sections returns the sections that are mapped from the file, in order, as areas.
func (x *elfReader) sections() []area {
	le := binary.LittleEndian
	at, size, count := uint64(le.Uint32(x.head[32:])), 40, int(le.Uint16(x.head[48:]))
	if x.wide {
		at, size, count = le.Uint64(x.head[40:]), 64, int(le.Uint16(x.head[60:]))
	}
	b := make([]byte, min(count, maxSections)*size)
	if at >= 1<<40 || readWhole(x.src, b, x.im.off+int64(at)) != nil {
		return nil
	}
	var out []area
	for ; len(b) >= size; b = b[size:] {
		flags, v, off, n := uint64(le.Uint32(b[8:])), uint64(le.Uint32(b[12:])), uint64(le.Uint32(b[16:])), uint64(le.Uint32(b[20:]))
		if x.wide {
			flags, v, off, n = le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[32:])
		}
		if flags&shfAlloc == 0 || le.Uint32(b[4:]) == shtNobits || n == 0 || off >= 1<<40 || n >= 1<<40 {
			continue
		}
		a := area{off: x.im.off + int64(off), n: int64(n)}
		if flags&shfExec != 0 {
			a.kind = areaCode
		}
		if at, _, ok := x.im.addr(a.off); ok && at == v {
			out = append(out, a)
		}
	}
	sortAreas(out)
	return out
}

// tables returns the tables that program headers name.
func (x *elfReader) tables() []area {
	var out []area
	eachProgramHeader(x.head, func(p programHeader) {
		a := area{off: x.im.off + int64(p.from), n: int64(p.n), base: p.v}
		switch {
		case p.kind == ptEhFrame:
			a.kind = areaRelated
		case p.kind == ptExidx && x.im.mach == machARM:
			a.kind = areaIndex
		default:
			return
		}
		if v, _, ok := x.im.addr(a.off); ok && v == p.v && p.n > 0 && p.n < 1<<40 {
			out = append(out, a)
		}
	})
	return out
}
