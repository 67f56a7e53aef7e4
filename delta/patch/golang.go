package patch

import (
	"bytes"
	"encoding/binary"
)

// Go's tables about functions and types have offsets from the starts of others
// (cmd/link, runtime/symtab.go). Where these are says the module's data.

// funcHead returns how many bytes a function's record has in front of its offsets, in
// an area of the kind.
func funcHead(kind uint8) int {
	if kind == areaFuncsOld {
		return 40 // until Go 1.19
	}
	return 44
}

// funcLook is how many bytes of records have to be at hand to tell where one begins.
const funcLook = 128

// related appends word i of b, if it leads to where im has bytes from the base of its
// area of the kind on.
func (im *image) related(out []ref, b []byte, i int, kind uint8) []ref {
	base, ok := im.partner(kind)
	w := binary.LittleEndian.Uint32(b[i:])
	if t := base + uint64(w); ok && w != 0 && t >= im.lo && t < im.hi {
		return append(out, ref{at: i, target: t, kind: refBase32, rel: kind})
	}
	return out
}

// funcTab is refs for the table of functions: where they begin, and where their records
// are, from the table on.
func (im *image) funcTab(out []ref, b []byte, lo, hi int, v uint64) []ref {
	start, _ := im.start(areaFuncTab)
	for i := lo + int(-v&3); i < hi; i += 4 {
		if (v+uint64(i-lo)-start)&4 == 0 {
			out = im.related(out, b, i, areaFuncTab)
		} else if t := start + uint64(binary.LittleEndian.Uint32(b[i:])); t < im.hi {
			out = append(out, ref{at: i, target: t, kind: refBase32, rel: areaStart})
		}
	}
	return out
}

// funcs is refs for records of functions.
func (im *image) funcs(out []ref, b []byte, lo, hi int, v uint64, kind uint8) []ref {
	align := 8
	if im.narrow() {
		align = 4
	}
	head := funcHead(kind)
	i := lo + int(-v)&(align-1)
	for k := 0; k <= funcLook && k <= i; k += align {
		if n := im.record(b, i-k, head, align); n > k {
			i -= k
			break
		}
	}
	for i < hi {
		n := im.record(b, i, head, align)
		if n == 0 {
			i += align
			continue
		}
		field := func(at int, kind uint8) {
			if at >= lo && at < hi {
				out = im.related(out, b, at, kind)
			}
		}
		field(i, areaFuncTab)
		field(i+4, areaNames)
		for k := 16; k <= 24; k += 4 {
			field(i+k, areaPCs)
		}
		at := i + head
		for range binary.LittleEndian.Uint32(b[i+28:]) {
			field(at, areaPCs)
			at += 4
		}
		for range b[i+head-1] {
			field(at, areaFuncData)
			at += 4
		}
		i += n
	}
	return out
}

// record returns how many bytes the record has that seems to be at b[i:], with the one
// behind it, if that is at hand; or 0.
func (im *image) record(b []byte, i, head, align int) int {
	n := im.recordLen(b, i, head, align)
	if next := i + n; n > 0 && next+head <= len(b) {
		le := binary.LittleEndian
		if im.recordLen(b, next, head, align) == 0 || le.Uint32(b[next:]) <= le.Uint32(b[i:]) {
			return 0
		}
	}
	return n
}

func (im *image) recordLen(b []byte, i, head, align int) int {
	if i < 0 || i+head > len(b) {
		return 0
	}
	le := binary.LittleEndian
	offsets, data := le.Uint32(b[i+28:]), b[i+head-1]
	if offsets > 8 || data > 10 || b[i+head-2] != 0 || uint64(le.Uint32(b[i:])) >= im.codeHi-im.codeLo {
		return 0
	}
	n := head + 4*int(offsets) + 4*int(data)
	return (n + align - 1) &^ (align - 1)
}

// inlined is refs for what is known of functions: what is inlined in them has the offset
// of its name behind a byte that says what it is, since Go 1.20.
func (im *image) inlined(out []ref, b []byte, lo, hi int, v uint64) []ref {
	if _, ok := im.partner(areaFuncs); !ok {
		return out
	}
	for i := max(lo+int(-v&3), 4); i < hi; i += 4 {
		le := binary.LittleEndian
		if w := le.Uint32(b[i:]); le.Uint32(b[i-4:]) < 256 && w >= 256 && w < 1<<28 {
			out = im.related(out, b, i, areaNames)
		}
	}
	return out
}

// types is refs for what describes types: pointers, and offsets from the start of that,
// and from that of code.
func (im *image) types(out []ref, b []byte, lo, hi int, v uint64, a area) []ref {
	for i := lo + int(-v&3); i < hi; i += 4 {
		pc, w := v+uint64(i-lo), binary.LittleEndian.Uint32(b[i:])
		if r, ok := im.pointer(b, i, pc); ok {
			out = append(out, r)
			i += r.width() - 4
		} else if w >= 64 && uint64(w) < uint64(a.n) {
			out = append(out, ref{at: i, target: a.base + uint64(w), kind: refBase32, rel: areaTypes})
		}
	}
	return out
}

// goAreas returns the areas of a program in Go: of its tables and of its types.
func (x *elfReader) goAreas() []area {
	for _, s := range x.sections() {
		var head [72]byte
		if s.kind == areaCode || s.n < int64(len(head)) || readWhole(x.src, head[:], s.off) != nil {
			continue
		}
		magic := binary.LittleEndian.Uint32(head[:])
		if magic == 0xfffffff0 || magic == 0xfffffff1 {
			return x.goTables(s, head[:], magic == 0xfffffff0)
		}
	}
	return nil
}

// word returns word i of b, of the program's width.
func (x *elfReader) word(b []byte, i int) uint64 {
	if x.wide {
		return binary.LittleEndian.Uint64(b[8*i:])
	}
	return uint64(binary.LittleEndian.Uint32(b[4*i:]))
}

// goTables returns the areas that the tables in s, which begins with head, and the
// module's data say.
func (x *elfReader) goTables(s area, head []byte, old bool) []area {
	v, _, _ := x.im.addr(s.off)
	var at [8]uint64 // of functions, of files; text; offsets of names, units, files, code points, functions
	for i := range at {
		at[i] = x.word(head[8:], i)
	}
	mod := x.module(v)
	if mod == nil || at[0] > 1<<24 || at[3] > at[4] || at[4] > at[6] || at[6] > at[7] || at[7] > uint64(s.n) || 8*at[0]+4 > uint64(s.n)-at[7] {
		return nil
	}
	text, k, kind := x.word(mod, 22), 37, uint8(areaFuncs)
	if old {
		k, kind = 35, areaFuncsOld
	}
	types, typesEnd, data, dataEnd := x.word(mod, k), x.word(mod, k+1), x.word(mod, k+3), x.word(mod, 19)
	table, end := v+at[7], v+uint64(s.n)
	if data >= table && data < end {
		dataEnd, end = end, data
	}
	records := table + 8*at[0] + 4
	out := x.mapped(nil, v+at[3], v+at[4], areaNames, v+at[3])
	out = x.mapped(out, v+at[4], v+at[6], areaRaw, 0)
	out = x.mapped(out, v+at[6], table, areaPCs, v+at[6])
	out = x.mapped(out, table, records, areaFuncTab, text)
	out = x.mapped(out, records, end, kind, text)
	out = x.mapped(out, types, min(typesEnd, data-1), areaTypes, types)
	out = x.mapped(out, data, dataEnd, areaFuncData, data)
	for _, l := range x.sections() { // .typelink, by its place behind the types or in the module's data
		if at, _, _ := x.im.addr(l.off); at == x.word(mod, k+5) || at == x.word(mod, k+8) || at == x.word(mod, k+7) {
			out = x.mapped(out, at, at+uint64(l.n), areaLinks, types)
		}
	}
	return out
}

// mapped appends the area of what is mapped from lo to hi, if that is in the file.
func (x *elfReader) mapped(out []area, lo, hi uint64, kind uint8, base uint64) []area {
	off, ok := x.im.offset(lo)
	if last, in := x.im.offset(hi - 1); ok && in && lo < hi && last-off == int64(hi-1-lo) {
		out = append(out, area{off, int64(hi - lo), kind, base})
	}
	return out
}

// moduleWords is how many words of the module's data are looked at.
const moduleWords = 48

// module returns the module's data: what begins with a pointer to the tables at v and
// one to their names.
func (x *elfReader) module(v uint64) []byte {
	size := 4
	if x.wide {
		size = 8
	}
	var first [8]byte
	binary.LittleEndian.PutUint64(first[:], v)
	for _, l := range x.im.loads {
		if l.exec || l.n > 64<<20 {
			continue
		}
		b := make([]byte, l.n)
		if readWhole(x.src, b, l.off) != nil {
			continue
		}
		for i := 0; ; i += size {
			k := bytes.Index(b[i:], first[:size])
			if k < 0 || i+k+moduleWords*size > len(b) {
				break
			}
			i += k
			if d := x.word(b[i:], 1) - v; d > 0 && d <= 128 && i%size == 0 {
				return b[i : i+moduleWords*size]
			}
		}
	}
	return nil
}
