package patch

import (
	"encoding/binary"
)

// Relocatable objects, kernel modules most of all, have no addresses. Theirs are places
// in the file: what is in their tables of sections, symbols and relocations leads there.
// Where these tables are, says the object in the base.

const (
	etRel      = 1
	shtSymbols = 2
	shtRela    = 4
	headLen64  = 64  // of an object, and of the header of a section
	rowLen     = 24  // of a symbol and of a relocation
	maxFirst   = 256 // symbols that are looked at: those of sections are among the first
)

// parseObject reads the head of the relocatable object in front of b.
func parseObject(b []byte, off, limit int64) (image, bool) {
	le := binary.LittleEndian
	im := image{off: off, rel: true}
	if len(b) < headLen64 || b[4] != 2 || b[5] != 1 || le.Uint16(b[16:]) != etRel || le.Uint16(b[58:]) != headLen64 {
		return im, false
	}
	im.mach = uint64(le.Uint16(b[18:]))
	at, n := le.Uint64(b[40:]), uint64(le.Uint16(b[60:]))*headLen64
	im.loads = []load{objectLoad(off, int64(min(at, 1<<32)+n))}
	im.bounds()
	return im, at >= headLen64 && at < 1<<32 && n > 0 && im.loads[0].valid(off, limit)
}

func objectLoad(off, n int64) load { return load{off: off, n: n, mem: uint64(n)} }

// object is what the headers of a relocatable object in the base say, besides its areas.
type object struct {
	err      error            // the base could not be read
	sections []uint64         // places of sections, by their number
	first    [maxFirst]uint64 // and of those that symbols stand for, by theirs; 0: of none
	buf      []byte
}

// withTables returns im, and if it is a relocatable object in src, what its headers say:
// in room, unless that is nil.
func (im *image) withTables(src Source, room *image) *image {
	if im == nil || !im.rel {
		return im
	}
	if room == nil {
		room = &image{}
	}
	o, areas := room.object, room.areas[:0]
	if o == nil {
		o = &object{}
	}
	*room = *im
	room.object, room.areas = o, areas
	*o = object{sections: o.sections[:0], buf: o.buf}
	room.readTables(src)
	room.codeBounds()
	return room
}

// readTables reads im's areas, which are empty, and the rest of its object.
func (im *image) readTables(src Source) {
	o := im.object
	le := binary.LittleEndian
	var head [headLen64]byte
	if src.Size()-im.off < headLen64 {
		return
	}
	if o.err = readFull(src, head[:], im.off); o.err != nil {
		return
	}
	at, n := le.Uint64(head[40:]), int64(min(int(le.Uint16(head[60:])), maxSections)*headLen64)
	if at > uint64(im.loads[0].n) || n == 0 || n > im.loads[0].n-int64(at) {
		return
	}
	o.buf = grow(o.buf, int(n))
	heads := o.buf
	if o.err = readFull(src, heads, im.off+int64(at)); o.err != nil {
		return
	}
	field := func(i uint32, at int) uint64 {
		if int64(i) < n/headLen64 {
			return min(le.Uint64(heads[int(i)*headLen64+at:]), 1<<40)
		}
		return 0
	}
	symbols := area{}
	for i := range uint32(n / headLen64) {
		h := heads[int(i)*headLen64:]
		a := area{off: im.off + int64(field(i, 24)), n: int64(field(i, 32)), kind: areaRaw}
		o.sections = append(o.sections, field(i, 24))
		kind, flags := le.Uint32(h[4:]), le.Uint32(h[8:])
		switch {
		case kind == 0 || kind == shtNobits || a.n == 0:
			continue
		case kind == shtSymbols:
			a.kind, a.base = areaSymbols, field(le.Uint32(h[40:]), 24)
			symbols = a
		case kind == shtRela:
			a.kind, a.base = areaRelocs, field(le.Uint32(h[44:]), 24)
		case flags&shfExec != 0:
			a.kind = areaCode
		}
		im.areas = append(im.areas, a)
	}
	im.areas = append(im.areas, area{off: im.off + int64(at), n: n, kind: areaHeads})
	sortAreas(im.areas)
	o.readFirst(src, symbols)
}

// readFirst reads what the first symbols stand for.
func (o *object) readFirst(src Source, a area) {
	o.buf = grow(o.buf, int(min(a.n/rowLen, maxFirst)*rowLen))
	b := o.buf
	if a.off+int64(len(b)) > src.Size() {
		return
	}
	if o.err = readFull(src, b, a.off); o.err != nil {
		return
	}
	le := binary.LittleEndian
	for i := 0; i < len(b)/rowLen; i++ {
		if row := b[i*rowLen:]; row[4]&15 == 3 { // STT_SECTION
			o.first[i] = o.section(le.Uint16(row[6:]))
		}
	}
}

// section returns where section i is; 0: there is none.
func (o *object) section(i uint16) uint64 {
	if int(i) < len(o.sections) {
		return o.sections[i]
	}
	return 0
}

// tableRefs is refs for tables of objects.
func (im *image) tableRefs(out []ref, b []byte, lo, hi int, v uint64, a area) []ref {
	o := im.object
	le := binary.LittleEndian
	row := uint64(rowLen)
	if a.kind == areaHeads {
		row = headLen64
	}
	add := func(i int, kind uint8, base, t uint64) {
		if i >= lo && i < hi && t < im.hi {
			out = append(out, ref{at: i, target: t, kind: kind, rel: areaOwn, base: base})
		}
	}
	start := uint64(a.off - im.off)
	for i := lo - int((v-start)%row); i < hi; i += int(row) {
		if i < 0 || i+rowLen+8 > len(b) {
			continue
		}
		w := func(at int) uint64 { return uint64(le.Uint32(b[i+at:])) }
		switch a.kind {
		case areaHeads:
			add(i+24, refAbs32, 0, w(24))
		case areaSymbols:
			add(i, refBase32, a.base, a.base+w(0))
			if s := o.section(uint16(w(4) >> 16)); s > 0 {
				add(i+8, refBase32, s, s+w(8))
			}
		case areaRelocs:
			add(i, refBase32, a.base, a.base+w(0))
			if t, ok := im.start(areaSymbols); ok {
				add(i+12, refRow, t, t+rowLen*w(12))
			}
			if k := w(12); k < maxFirst && o.first[k] > 0 {
				add(i+16, refBase32, o.first[k], o.first[k]+w(16))
			}
		}
	}
	return out
}
