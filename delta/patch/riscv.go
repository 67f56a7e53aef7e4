package patch

import "encoding/binary"

// How far around an instruction the other half of an address is looked for, and in
// front of it where instructions begin.
const riscvLook = 40

// riscvRefs is refs for code of RISC-V.
func (im *image) riscvRefs(out []ref, b []byte, lo, hi int, v uint64) []ref {
	le := binary.LittleEndian
	// Instructions are of 2 or 4 bytes: to know where they begin takes a few in front.
	i := max(lo-riscvLook, 0)
	i += int(-(v - uint64(lo-i)) & 1)
	for i < lo {
		i += riscvLen(b[i])
	}
	for ; i < hi; i += riscvLen(b[i]) {
		pc := v + uint64(i-lo)
		r, w := ref{at: i}, le.Uint32(b[i:])
		switch w & 0x7f {
		case 0x6f:
			r.kind, r.target = refJAL, pc+jalOffset(w)
		case 0x63:
			r.kind, r.target = refBranch, pc+branchOffset(w)
		case 0x17:
			r.kind, r.target = refUpper, pc+upperOffset(w)+riscvUse(b, i, w>>7&31)
		default:
			low, kind, ok := lower(w, w>>15&31)
			if !ok {
				continue
			}
			back, upper := riscvUpper(b, i, w>>15&31)
			if back == 0 {
				continue
			}
			r.kind, r.back, r.target = kind, back, pc-uint64(back)+upperOffset(upper)+low
		}
		if r.target >= im.lo && r.target < im.hi {
			out = append(out, r)
		}
	}
	return out
}

// riscvLen returns how many bytes the instruction has whose first byte is c.
func riscvLen(c byte) int {
	if c&3 == 3 {
		return 4
	}
	return 2
}

func jalOffset(w uint32) uint64 {
	return signed(w>>31<<20|w>>12&0xff<<12|w>>20&1<<11|w>>21&0x3ff<<1, 21)
}

func branchOffset(w uint32) uint64 {
	return signed(w>>31<<12|w>>7&1<<11|w>>25&0x3f<<5|w>>8&15<<1, 13)
}

func upperOffset(w uint32) uint64 { return signed(w&^0xfff, 32) }

// lower returns what w adds to register rs, and which kind of reference that is.
func lower(w, rs uint32) (uint64, uint8, bool) {
	if w>>15&31 != rs || rs == 0 {
		return 0, 0, false
	}
	switch op := w & 0x7f; {
	case op == 0x13 && w>>12&7 == 0, op == 0x03, op == 0x07, op == 0x67:
		return signed(w>>20, 12), refLower, true
	case op == 0x23, op == 0x27:
		return signed(w>>25<<5|w>>7&31, 12), refStore, true
	}
	return 0, 0, false
}

// riscvUse returns the low bits that the first instruction behind the AUIPC at i adds to
// its register rd, or 0.
func riscvUse(b []byte, i int, rd uint32) uint64 {
	for k := i + 4; k+4 <= len(b) && k < i+riscvLook; k += riscvLen(b[k]) {
		if low, _, ok := lower(binary.LittleEndian.Uint32(b[k:]), rd); ok {
			return low
		}
	}
	return 0
}

// riscvUpper returns how far in front of i an AUIPC of register rd is, and what it is; 0:
// there is none.
func riscvUpper(b []byte, i int, rd uint32) (int, uint32) {
	for k := 4; k < riscvLook && k <= i; k += 2 {
		if w := binary.LittleEndian.Uint32(b[i-k:]); w&0xfff == rd<<7|0x17 {
			return k, w
		}
	}
	return 0, 0
}

// riscvPut returns w with displacement d as r has it.
func riscvPut(w uint32, r *ref, d uint32) uint32 {
	switch r.kind {
	case refJAL:
		return w&0xfff | d>>20&1<<31 | d>>1&0x3ff<<21 | d>>11&1<<20 | d>>12&0xff<<12
	case refBranch:
		return w&0x01fff07f | d>>12&1<<31 | d>>5&0x3f<<25 | d>>1&15<<8 | d>>11&1<<7
	case refUpper:
		return w&0xfff | (d+0x800)&^0xfff
	}
	d += uint32(r.back)
	if r.kind == refLower {
		return w&0xfffff | d<<20
	}
	return w&0x01fff07f | d>>5&0x7f<<25 | d&31<<7
}

// riscvRead returns the target of r, which is at out[q:] and address pc.
func riscvRead(out []byte, q int, pc uint64, r *ref) (uint64, bool) {
	if q < r.back {
		return 0, false
	}
	upper := binary.LittleEndian.Uint32(out[q-r.back:])
	low, _, ok := lower(binary.LittleEndian.Uint32(out[q:]), upper>>7&31)
	return pc - uint64(r.back) + upperOffset(upper) + low, ok && upper&0x7f == 0x17
}
