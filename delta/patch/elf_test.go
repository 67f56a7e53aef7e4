package patch_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"updraft/delta/patch"
)

// program makes an ELF file of a machine with functions of random words that call each
// other, and pointers to them; some functions are left out.
func program(mach uint16, skip map[int]bool) []byte {
	const funcs, words = 400, 64
	r := rand.New(rand.NewPCG(30, uint64(mach)))
	le := binary.LittleEndian
	start := make([]int, funcs)
	at := 4096
	for i := range funcs {
		start[i] = at
		if !skip[i] {
			at += 4 * words
		}
	}
	b := make([]byte, at+8*funcs)
	for i := range funcs {
		for k := range words {
			w, to, kind := r.Uint32(), r.IntN(funcs), r.IntN(4)
			if skip[i] {
				continue
			}
			p := b[start[i]+4*k:]
			d := uint32(start[to] - (start[i] + 4*k))
			switch {
			case kind != 0 || (mach == 62 || mach == 3) && k%2 == 0:
				le.PutUint32(p, w&^0x1f000000|0x0a000000)
			case mach == 183:
				le.PutUint32(p, 0x94000000|d>>2&0x03ffffff)
			case mach == 243:
				le.PutUint32(p, 0xef|d>>20&1<<31|d>>1&0x3ff<<21|d>>11&1<<20|d>>12&0xff<<12)
			case mach == 40:
				d -= 4
				le.PutUint16(p, uint16(0xf000|d>>24&1<<10|d>>12&0x3ff))
				s := d >> 24 & 1
				le.PutUint16(p[2:], uint16(0xd000|(d>>23&1^1^s)<<13|(d>>22&1^1^s)<<11|d>>1&0x7ff))
			default:
				b[start[i]+4*k-1] = 0xe8
				le.PutUint32(p, d-4)
			}
		}
		if mach == 40 || mach == 3 {
			le.PutUint32(b[at+8*i:], uint32(0x10000+start[i]))
		} else {
			le.PutUint64(b[at+8*i:], uint64(0x10000+start[i]))
		}
	}
	elfHeader(b, mach, at)
	return b
}

// elfHeader writes headers for code up to text and data behind it.
func elfHeader(b []byte, mach uint16, text int) {
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[18:], mach)
	if mach == 40 || mach == 3 {
		b[4] = 1
		le.PutUint32(b[28:], 64)
		le.PutUint16(b[44:], 2)
		for i, l := range [][5]uint32{{0, 0x10000, uint32(text), uint32(text), 5}, {uint32(text), 0x10000 + uint32(text), uint32(len(b) - text), uint32(len(b)-text) + 4096, 6}} {
			p := b[64+32*i:]
			le.PutUint32(p, 1)
			le.PutUint32(p[4:], l[0])
			le.PutUint32(p[8:], l[1])
			le.PutUint32(p[16:], l[2])
			le.PutUint32(p[20:], l[3])
			le.PutUint32(p[24:], l[4])
		}
		return
	}
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[56:], 2)
	for i, l := range [][4]uint64{{0, uint64(text), uint64(text), 5}, {uint64(text), uint64(len(b) - text), uint64(len(b)-text) + 4096, 6}} {
		p := b[64+56*i:]
		le.PutUint32(p, 1)
		le.PutUint32(p[4:], uint32(l[3]))
		le.PutUint64(p[8:], l[0])
		le.PutUint64(p[16:], 0x10000+l[0])
		le.PutUint64(p[32:], l[1])
		le.PutUint64(p[40:], l[2])
	}
}

// kernel makes an arm64 kernel's image of the same functions; its pointers are to where
// kernels are mapped.
func kernel(skip map[int]bool) []byte {
	b := program(183, skip)
	le := binary.LittleEndian
	text := int(le.Uint64(b[96:]))
	for i := text; i < len(b); i += 8 {
		le.PutUint64(b[i:], le.Uint64(b[i:])-0x10000+0xffff800008000000)
	}
	clear(b[:1024])
	copy(b, "MZ")
	le.PutUint64(b[16:], uint64(len(b)+4096))
	copy(b[56:], "ARM\x64")
	le.PutUint32(b[60:], 64)
	copy(b[64:], "PE\x00\x00")
	le.PutUint16(b[70:], 2)
	le.PutUint16(b[84:], 160)
	for i, l := range [][2]uint32{{4096, uint32(text) - 4096}, {uint32(text), uint32(len(b) - text)}} {
		le.PutUint32(b[64+24+160+40*i+16:], l[1])
		le.PutUint32(b[64+24+160+40*i+20:], l[0])
	}
	return b
}

// TestKernel moves functions of a kernel that stands between other things.
func TestKernel(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	front := text(rand.New(rand.NewPCG(33, 33)), 5003)
	stream := func(skip map[int]bool) []byte {
		return append(append(append([]byte("ARM\x64MZ"), front...), kernel(skip)...), program(183, skip)...)
	}
	old, fresh := stream(nil), stream(map[int]bool{7: true, 90: true, 201: true, 202: true, 333: true})
	plain := create(t, old, fresh, patch.Options{Profile: patch.Plain})
	dense := create(t, old, fresh, patch.Options{Profile: patch.Dense})
	if len(dense)*4 > len(plain) {
		t.Errorf("dense %d bytes, plain %d", len(dense), len(plain))
	}
	r := rand.New(rand.NewPCG(34, 34))
	for range 20 { // headers that lie cost bytes
		o, n := kernel(nil)[:40000], kernel(map[int]bool{9: true})[:40000]
		for range 1 + r.IntN(12) {
			o[r.IntN(400)] = byte(r.Uint32())
			n[r.IntN(400)] = byte(r.Uint32())
		}
		create(t, o, n, patch.Options{Profile: patch.Dense})
	}
}

// TestPrograms moves functions: references to them must cost next to nothing, alone
// and inside of a stream of other things.
func TestPrograms(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	gone := map[int]bool{7: true, 90: true, 201: true, 202: true, 333: true}
	for _, mach := range []uint16{183, 62, 40, 3, 243} {
		t.Run(fmt.Sprint(mach), func(t *testing.T) {
			old, fresh := program(mach, nil), program(mach, gone)
			plain := create(t, old, fresh, patch.Options{Profile: patch.Plain})
			dense := create(t, old, fresh, patch.Options{Profile: patch.Dense})
			if len(dense)*5 > len(plain)*2 {
				t.Errorf("dense %d bytes, plain %d", len(dense), len(plain))
			}
			front := text(rand.New(rand.NewPCG(31, 31)), 1001)
			within := create(t, append(front[:500:500], old...), append(front[:1001:1001], fresh...), patch.Options{})
			if len(within)*2 > len(plain) {
				t.Errorf("within a stream %d bytes, plain %d", len(within), len(plain))
			}
			create(t, fresh, old, patch.Options{Profile: patch.Dense, SegmentSize: 10007})
			create(t, old, program(mach^1, gone), patch.Options{Profile: patch.Dense})
		})
	}
}

// TestReorderedProgram: of a program in another order, whose parts do not agree where
// references are predicted, the patch is no longer for what was tried.
func TestReorderedProgram(t *testing.T) {
	const part = 700 // not a whole number of functions
	old := program(183, nil)
	fresh := slices.Clone(old[:4096])
	n := (len(old) - len(fresh)) / part
	for _, i := range rand.New(rand.NewPCG(31, 31)).Perm(n) {
		fresh = append(fresh, old[4096+i*part:][:part]...)
	}
	fresh = append(fresh, old[len(fresh):]...)
	plain := len(create(t, old, fresh, patch.Options{Profile: patch.Plain}))
	for _, p := range []patch.Profile{patch.Auto, patch.Dense} {
		if n := len(create(t, old, fresh, patch.Options{Profile: p})); n > plain {
			t.Errorf("%v: %d bytes; plain takes %d", p, n, plain)
		}
	}
}

// Headers that lie must do no more than cost bytes.
func TestBrokenPrograms(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(32, 32))
	for i := range 60 {
		mach := []uint16{183, 62, 40, 3, 243}[i%5]
		old, fresh := program(mach, nil)[:60000], program(mach, map[int]bool{9: true})[:60000]
		for range 1 + r.IntN(12) {
			old[r.IntN(180)] = byte(r.Uint32())
			fresh[r.IntN(180)] = byte(r.Uint32())
		}
		create(t, old, fresh, patch.Options{Profile: patch.Dense})
	}
}

// TestTables drops entries of a table of pointers to functions that went elsewhere: it
// takes a few bytes for each entry dropped, though none of the others stays as it was.
func TestTables(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	const rows, text = 5000, 64 << 10
	r := rand.New(rand.NewPCG(35, 35))
	code := make([]byte, text)
	for i := range code {
		code[i] = byte(r.Uint32())
	}
	targets := make([]int, rows)
	for i := range targets {
		targets[i] = 4096 + r.IntN(text-4096)&^3
	}
	table := func(gone int, drop map[int]bool) []byte {
		b := append([]byte(nil), code[:4096]...)
		b = append(b, code[4096+gone:]...)
		n := len(b)
		for i, v := range targets {
			if v >= 4096+gone && !drop[i] {
				b = binary.LittleEndian.AppendUint64(b, uint64(0x10000+v-gone))
			}
		}
		elfHeader(b, 183, n)
		return b
	}
	old, fresh := table(0, nil), table(20, map[int]bool{100: true, 2000: true, 3500: true, 3501: true})
	if n := len(create(t, old, fresh, patch.Options{Profile: patch.Dense})); n > 600 {
		t.Errorf("%d bytes", n)
	}
}
