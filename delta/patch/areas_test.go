package patch

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// unwound makes an arm64 program that is mapped as a whole to be executed: functions,
// what says where they are as .eh_frame does, and a table like .eh_frame_hdr of both.
// Some functions are left out.
func unwound(skip ...int) []byte {
	const funcs, head = 600, 4096
	le := binary.LittleEndian
	r := rand.New(rand.NewPCG(36, 36))
	b := make([]byte, head)
	var starts, sizes []int
	for i := range funcs {
		f := make([]byte, 4*(20+r.IntN(60)))
		for k := range f {
			f[k] = byte(r.Uint32())
		}
		if !slices.Contains(skip, i) {
			starts, sizes = append(starts, len(b)), append(sizes, len(f))
			b = append(b, f...)
		}
	}
	code := len(b)
	for i, s := range starts {
		b = le.AppendUint32(b, 20)
		b = le.AppendUint32(b, uint32(len(b)-code))
		b = le.AppendUint32(b, uint32(s-len(b)))
		b = le.AppendUint32(b, uint32(sizes[i]))
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	table := len(b)
	for i, s := range starts {
		b = le.AppendUint32(b, uint32(s-table))
		b = le.AppendUint32(b, uint32(code+24*i-table))
	}
	end := len(b)
	for _, s := range [][3]int{{head, code - head, 6}, {code, table - code, 2}, {table, end - table, 2}} {
		h := make([]byte, 64)
		le.PutUint32(h[4:], 1)
		for k, v := range []int{s[2], 0x10000 + s[0], s[0], s[1]} {
			le.PutUint64(h[8+8*k:], uint64(v))
		}
		b = append(b, h...)
	}
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[18:], machARM64)
	le.PutUint64(b[32:], 64)
	le.PutUint64(b[40:], uint64(end))
	le.PutUint16(b[56:], 2)
	le.PutUint16(b[60:], 3)
	for i, p := range [][3]int{{1, 0, end}, {ptEhFrame, table, end - table}} {
		h := b[64+56*i:]
		le.PutUint32(h, uint32(p[0]))
		le.PutUint32(h[4:], 5)
		for k, v := range []int{p[1], 0x10000 + p[1], 0, p[2], p[2]} {
			le.PutUint64(h[8+8*k:], uint64(v))
		}
	}
	return b
}

// TestAreas: what is in a program is told apart by its sections and headers.
func TestAreas(t *testing.T) {
	b := unwound()
	ims, err := findImages(t.Context(), bytes.NewReader(b))
	if err != nil || len(ims) != 1 {
		t.Fatal(ims, err)
	}
	im, le := &ims[0], binary.LittleEndian
	code := int64(4096 + le.Uint64(b[len(b)-192+32:]))
	table := int64(le.Uint64(b[64+56+8:]))
	want := []area{{off: code, n: table - code}, {table, im.end - table, areaRelated, 0x10000 + uint64(table)}}
	if !slices.Equal(im.areas, want) {
		t.Errorf("areas %v, want %v", im.areas, want)
	}
	if im.codeLo != 0x10000 || im.codeHi != 0x10000+uint64(code) {
		t.Errorf("code from %x to %x", im.codeLo, im.codeHi)
	}
	for _, n := range []int{60, len(b) - 192, len(b) - 20} { // without all of its headers
		if ims, err := findImages(t.Context(), bytes.NewReader(b[:n])); err != nil || len(ims) > 0 && len(ims[0].areas) > 2 {
			t.Errorf("of %d bytes: %v, %v", n, ims, err)
		}
	}
}

// TestUnwinding: where functions went, the tables about them follow.
func TestUnwinding(t *testing.T) {
	if testing.Short() {
		t.Skip("matches programs")
	}
	var gone []int
	for i := 7; i < 600; i += 23 {
		gone = append(gone, i)
	}
	old, fresh := unwound(), unwound(gone...)
	plain, dense := trip(t, old, fresh, Plain), trip(t, old, fresh, Dense)
	if dense*6 > plain {
		t.Errorf("dense %d bytes, plain %d", dense, plain)
	}
}

// FuzzRefs: what is read as a reference, written with its own target, gives the same
// bytes, whatever they are.
func FuzzRefs(f *testing.F) {
	r := rand.New(rand.NewPCG(37, 37))
	for _, mach := range []uint64{mach386, machARM, machX86, machARM64, machRISCV} {
		for kind := range uint8(areaKinds) {
			b := make([]byte, 2048)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			f.Add(b, mach, kind, uint64(0x200000), uint16(300))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, mach uint64, kind uint8, v uint64, at uint16) {
		im := &image{mach: mach, loads: []load{{n: int64(len(b)), v: v, mem: 1 << 24, exec: true}}}
		for k := range uint8(areaKinds) {
			im.areas = append(im.areas, area{kind: k, base: v / 2, n: 1})
		}
		im.bounds()
		at = min(at, uint16(len(b)/2))
		for _, r := range im.refs(nil, b, int(at), len(b), v+uint64(at), area{kind: kind, base: v / 2}) {
			pc := v + uint64(r.at)
			if r.kind == refBase32 {
				pc, _ = im.partner(r.rel)
			}
			var e [8]byte
			copy(e[:], b[r.at:])
			r.put(e[:], pc, r.target)
			if !bytes.Equal(e[:], b[r.at:r.at+8]) {
				t.Errorf("kind %d at %d: %x, put %x", r.kind, r.at, b[r.at:r.at+8], e)
			}
			if got, ok := r.read(b, r.at, pc); ok && uint32(got) != uint32(r.target) {
				t.Errorf("kind %d at %d: target %x, read %x", r.kind, r.at, r.target, got)
			}
		}
	})
}
