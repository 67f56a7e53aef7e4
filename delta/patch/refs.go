package patch

import "encoding/binary"

// ref is what looks like a reference in the base. A misread one only makes a worse
// prediction.
type ref struct {
	at     int // offset in the buffer
	target uint64
	kind   uint8
	rel    uint8  // the kind of area whose base it is relative to
	base   uint64 // areaOwn: what it is relative to
	back   int    // refLow, refLower, refStore: how far in front the rest of it is
}

// Kinds of references.
const (
	refB26    = iota + 1 // arm64: B, BL
	refB19               // arm64: B.cond, CBZ, CBNZ
	refB14               // arm64: TBZ, TBNZ
	refADR               // arm64: ADR
	refPage              // arm64: ADRP
	refLow               // arm64: ADD, LDR or STR with the low 12 bits
	refRel32             // x86: displacement from the end of the field
	refAbs64             // pointer
	refAbs32             // pointer
	refARM               // ARM: B, BL
	refThumb             // Thumb-2: BL, B.W
	refSelf32            // displacement from the field
	refBack32            // displacement from the target to the field
	refBase32            // displacement from the area's base
	refRow               // number of a row from the base
	refSelf31            // ARM: displacement from the field, of 31 bits
	refJAL               // RISC-V: JAL
	refBranch            // RISC-V: BEQ and its like
	refUpper             // RISC-V: AUIPC
	refLower             // RISC-V: the low 12 bits, of loads and the like
	refStore             // RISC-V: the low 12 bits, of stores
)

func signed(v uint32, bits uint) uint64 { return uint64(int64(int32(v<<(32-bits))) >> (32 - bits)) }

func branch19(w uint32) uint64 { return signed(w>>5, 19) * 4 }
func pageOf(w uint32) uint64   { return (signed(w>>5, 19)<<2 | uint64(w>>29&3)) }

// refs appends what looks like a reference whose first byte is in b[lo:hi], which is in
// area a; b[lo] is at address v. It looks at 128 bytes before and behind, where b has them.
func (im *image) refs(out []ref, b []byte, lo, hi int, v uint64, a area) []ref {
	hi = min(hi, len(b)-8)
	switch {
	case a.kind == areaRelated, a.kind == areaLinks:
		for i := lo + int(-v&3); i < hi; i += 4 {
			t := a.base + signed(binary.LittleEndian.Uint32(b[i:]), 32)
			if t >= im.lo && t < im.hi {
				out = append(out, ref{at: i, target: t, kind: refBase32, rel: a.kind})
			}
		}
	case a.kind == areaIndex:
		for i := lo + int(-v&3); i < hi; i += 4 {
			w := binary.LittleEndian.Uint32(b[i:])
			if t := v + uint64(i-lo) + signed(w, 31); w>>31 == 0 && w > 1 && t >= im.lo && t < im.hi {
				out = append(out, ref{at: i, target: t, kind: refSelf31})
			}
		}
	case a.kind == areaData:
		return im.dataRefs(out, b, lo, hi, v)
	case a.kind == areaFuncTab:
		return im.funcTab(out, b, lo, hi, v)
	case a.kind == areaFuncs, a.kind == areaFuncsOld:
		return im.funcs(out, b, lo, hi, v, a.kind)
	case a.kind == areaFuncData:
		return im.inlined(out, b, lo, hi, v)
	case a.kind == areaTypes:
		return im.types(out, b, lo, hi, v, a)
	case a.kind >= areaSymbols && im.object != nil:
		return im.tableRefs(out, b, lo, hi, v, a)
	case a.kind != areaCode:
	case im.mach == machARM64:
		for i := lo + int(-v&3); i < hi; i += 4 {
			if pc := v + uint64(i-lo); im.lo>>63 == 1 && pc&7 == 0 {
				// A kernel's code and data are not apart; its pointers are not instructions.
				if t := binary.LittleEndian.Uint64(b[i:]); t >= im.lo && t < im.hi {
					out = append(out, ref{at: i, target: t, kind: refAbs64})
					i += 4
					continue
				}
			}
			out = arm64Ref(out, b, i, v+uint64(i-lo))
		}
	case im.mach == machX86, im.mach == mach386:
		return im.x86Refs(out, b, lo, hi, v)
	case im.mach == machARM:
		for i := lo + int(-v&1); i < hi; i += 2 {
			if r, ok := armRef(b, i, v+uint64(i-lo)); ok && r.target >= im.lo && r.target < im.hi {
				out = append(out, r)
				i += 2
			}
		}
	case im.mach == machRISCV:
		return im.riscvRefs(out, b, lo, hi, v)
	}
	return out
}

// x86Refs is refs for code of x86.
func (im *image) x86Refs(out []ref, b []byte, lo, hi int, v uint64) []ref {
	narrow := im.mach == mach386
	for i := max(lo, 2); i < hi; i++ {
		w := binary.LittleEndian.Uint32(b[i:])
		p, q := b[i-1], b[i-2]
		if p == 0xe8 || p == 0xe9 || q == 0x0f && p&0xf0 == 0x80 || p&0xc7 == 0x05 && !narrow {
			t := v + uint64(i-lo) + 4 + signed(w, 32)
			if narrow {
				t &= 1<<32 - 1
			}
			if t >= im.lo && t < im.hi && w != 0 {
				out = append(out, ref{at: i, target: t, kind: refRel32})
				i += 3
				continue
			}
		}
		if t := uint64(w); narrow && im.lo >= fixedLow && t >= im.lo && t < im.hi {
			out = append(out, ref{at: i, target: t, kind: refAbs32})
			i += 3
		}
	}
	return out
}

// fixedLow is what programs lie above that are linked to fixed addresses.
const fixedLow = 1 << 16

// dataRefs is refs for data.
func (im *image) dataRefs(out []ref, b []byte, lo, hi int, v uint64) []ref {
	for i := lo + int(-v&3); i < hi; i += 4 {
		pc := v + uint64(i-lo)
		w := binary.LittleEndian.Uint32(b[i:])
		if r, ok := im.pointer(b, i, pc); ok {
			out = append(out, r)
			i += r.width() - 4
			continue
		}
		if im.mach == machARM {
			continue
		}
		if t, ok := im.leadsToCode(w, pc); ok {
			out = append(out, ref{at: i, target: t, kind: refSelf32})
			continue
		}
		// In .eh_frame the distance to what functions have in common is in front of
		// where a function begins, and what it does about exceptions behind its size.
		if t := pc - uint64(w); w&3 == 0 && w > 4 && w < 1<<28 && t >= im.lo {
			if _, ok := im.leadsToCode(binary.LittleEndian.Uint32(b[i+4:]), pc+4); ok {
				out = append(out, ref{at: i, target: t, kind: refBack32})
			}
		} else if b[i] == 4 && i >= 8 && i+1 < hi {
			if _, ok := im.leadsToCode(binary.LittleEndian.Uint32(b[i-8:]), pc-8); ok {
				if t := pc + 1 + signed(binary.LittleEndian.Uint32(b[i+1:]), 32); t >= im.lo && t < im.hi {
					out = append(out, ref{at: i + 1, target: t, kind: refSelf32})
					i += 4
				}
			}
		}
	}
	return out
}

func (im *image) narrow() bool { return im.mach == machARM || im.mach == mach386 }

// pointer returns the pointer at b[i:], which is at pc, if it looks like one.
func (im *image) pointer(b []byte, i int, pc uint64) (ref, bool) {
	r := ref{at: i, target: uint64(binary.LittleEndian.Uint32(b[i:])), kind: refAbs32}
	if !im.narrow() {
		if pc&7 != 0 {
			return r, false
		}
		r.target, r.kind = binary.LittleEndian.Uint64(b[i:]), refAbs64
	}
	return r, r.target >= im.lo+4096 && r.target < im.hi
}

// leadsToCode returns the target of word w at pc, if it is relative to itself, and
// whether there is code.
func (im *image) leadsToCode(w uint32, pc uint64) (uint64, bool) {
	t := pc + signed(w, 32)
	return t, t >= im.codeLo && t < im.codeHi
}

func armRef(b []byte, i int, pc uint64) (ref, bool) {
	h, l := binary.LittleEndian.Uint16(b[i:]), binary.LittleEndian.Uint16(b[i+2:])
	if h&0xf800 == 0xf000 && l&0xd000 == 0xd000 {
		return ref{at: i, target: thumbTarget(h, l, pc), kind: refThumb}, true
	}
	if pc&3 == 0 && l&0x0e00 == 0x0a00 && l>>12 >= 0xe {
		return ref{at: i, target: pc + 8 + signed(binary.LittleEndian.Uint32(b[i:]), 24)*4, kind: refARM}, true
	}
	return ref{}, false
}

func thumbTarget(h, l uint16, pc uint64) uint64 {
	s, j1, j2 := uint32(h>>10&1), uint32(l>>13&1), uint32(l>>11&1)
	return pc + 4 + signed(s<<24|(1^j1^s)<<23|(1^j2^s)<<22|uint32(h&0x3ff)<<12|uint32(l&0x7ff)<<1, 25)
}

func arm64Ref(out []ref, b []byte, i int, pc uint64) []ref {
	le := binary.LittleEndian
	w := le.Uint32(b[i:])
	switch {
	case w&0x7c000000 == 0x14000000:
		return append(out, ref{at: i, target: pc + signed(w, 26)*4, kind: refB26})
	case w&0xff000010 == 0x54000000, w&0x7e000000 == 0x34000000:
		return append(out, ref{at: i, target: pc + branch19(w), kind: refB19})
	case w&0x7e000000 == 0x36000000:
		return append(out, ref{at: i, target: pc + signed(w>>5, 14)*4, kind: refB14})
	case w&0x9f000000 == 0x10000000:
		return append(out, ref{at: i, target: pc + pageOf(w), kind: refADR})
	case w&0x9f000000 == 0x90000000:
		t := pc&^4095 + pageOf(w)<<12
		for k := i + 4; k <= i+32 && k+4 <= len(b); k += 4 {
			if lo, ok := low12(le.Uint32(b[k:]), w&31); ok {
				t += lo
				break
			}
		}
		return append(out, ref{at: i, target: t, kind: refPage})
	case w&0xffc00000 == 0x91000000 || w&0x3b000000 == 0x39000000:
		rn := w >> 5 & 31
		for k := 4; k <= 32 && i >= k; k += 4 {
			q := le.Uint32(b[i-k:])
			if q&0x9f00001f != 0x90000000|rn {
				continue
			}
			if lo, ok := low12(w, rn); ok {
				out = append(out, ref{at: i, target: (pc-uint64(k))&^4095 + pageOf(q)<<12 + lo, kind: refLow, back: k})
			}
			break
		}
	}
	return out
}

// low12 returns the offset that w adds to register rn.
func low12(w, rn uint32) (uint64, bool) {
	if w>>5&31 != rn {
		return 0, false
	}
	if w&0xffc00000 == 0x91000000 {
		return uint64(w >> 10 & 4095), true
	}
	if w&0x3b000000 == 0x39000000 {
		lo := uint64(w>>10&4095) << lowShift(w)
		return lo, lo < 4096
	}
	return 0, false
}

func lowShift(w uint32) uint32 {
	if w&0xffc00000 == 0x91000000 {
		return 0
	}
	if w&0x04800000 == 0x04800000 {
		return w>>30 + 4
	}
	return w >> 30
}

// width returns the bytes of the field.
func (r *ref) width() int {
	if r.kind == refAbs64 {
		return 8
	}
	return 4
}

// put writes target t of a reference of r's kind at address pc into e, 8 bytes that
// hold the base's.
func (r *ref) put(e []byte, pc, t uint64) {
	le := binary.LittleEndian
	w, d := le.Uint32(e), uint32(t-pc)
	switch r.kind {
	case refB26:
		w = w&0xfc000000 | d>>2&0x03ffffff
	case refB19:
		w = w&^0x00ffffe0 | d>>2&0x7ffff<<5
	case refB14:
		w = w&^0x0007ffe0 | d>>2&0x3fff<<5
	case refPage, refADR:
		if r.kind == refPage {
			d = uint32(t>>12 - pc>>12)
		}
		w = w&^0x60ffffe0 | d&3<<29 | d>>2&0x7ffff<<5
	case refLow:
		w = w&^0x003ffc00 | uint32(t&4095)>>lowShift(w)&4095<<10
	case refRel32:
		w = d - 4
	case refSelf32, refBase32:
		w = d
	case refBack32:
		w = -d
	case refRow:
		w = d / rowLen
	case refSelf31:
		w = w&(1<<31) | d&(1<<31-1)
	case refJAL, refBranch, refUpper, refLower, refStore:
		w = riscvPut(w, r, d)
	case refAbs32:
		w = uint32(t)
	case refAbs64:
		le.PutUint64(e, t)
		return
	case refARM:
		w = w&0xff000000 | (d-8)>>2&0xffffff
	case refThumb:
		d -= 4
		s, i1, i2 := d>>24&1, d>>23&1, d>>22&1
		w = 0xf000 | s<<10 | d>>12&0x3ff | (w>>16&0xd000|(i1^1^s)<<13|(i2^1^s)<<11|d>>1&0x7ff)<<16
	}
	le.PutUint32(e, w)
}

// read returns the target that out[q:] has, if it is still of r's kind. Kinds whose
// fields are small are not worth learning from.
func (r *ref) read(out []byte, q int, pc uint64) (uint64, bool) {
	le := binary.LittleEndian
	w := le.Uint32(out[q:])
	switch r.kind {
	case refB26:
		return pc + signed(w, 26)*4, w&0x7c000000 == 0x14000000
	case refLow:
		if q < r.back {
			return 0, false
		}
		a := le.Uint32(out[q-r.back:])
		lo, ok := low12(w, a&31)
		return (pc-uint64(r.back))&^4095 + pageOf(a)<<12 + lo, ok && a&0x9f000000 == 0x90000000
	case refRel32:
		return pc + 4 + signed(w, 32), true
	case refSelf32, refBase32:
		return pc + signed(w, 32), true
	case refBack32:
		return pc - uint64(w), true
	case refRow:
		return pc + rowLen*uint64(w), true
	case refSelf31:
		return pc + signed(w, 31), w>>31 == 0
	case refJAL:
		return pc + jalOffset(w), w&0x7f == 0x6f
	case refLower, refStore:
		return riscvRead(out, q, pc, r)
	case refAbs32:
		return uint64(w), true
	case refAbs64:
		return le.Uint64(out[q:]), true
	case refARM:
		return pc + 8 + signed(w, 24)*4, true
	case refThumb:
		return thumbTarget(uint16(w), uint16(w>>16), pc), w&0xf800 == 0xf000 && w>>16&0xd000 == 0xd000
	}
	return 0, false
}
