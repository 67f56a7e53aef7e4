package patch

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// relocatable makes an object: functions, relocations in them, and a symbol for each.
// Some functions are left out.
func relocatable(skip ...int) []byte {
	const funcs = 300
	le := binary.LittleEndian
	r := rand.New(rand.NewPCG(38, 38))
	b := make([]byte, headLen64)
	names := []byte{0}
	symbols, relocs := make([]byte, 2*rowLen), []byte(nil)
	symbols[rowLen+4] = 3
	le.PutUint16(symbols[rowLen+6:], 1)
	for i := range funcs {
		f := make([]byte, 4*(20+r.IntN(60)))
		for k := range f {
			f[k] = byte(r.Uint32())
		}
		other, name := r.IntN(funcs), make([]byte, 5+r.IntN(20))
		for k := range name {
			name[k] = byte('a' + r.IntN(26))
		}
		if slices.Contains(skip, i) {
			continue
		}
		start := len(b) - headLen64
		for k, v := range []int{8, 40} {
			relocs = le.AppendUint64(relocs, uint64(start+v))
			relocs = le.AppendUint32(relocs, 283)
			relocs = le.AppendUint32(relocs, uint32(1+k*(len(symbols)/rowLen-1)))
			relocs = le.AppendUint64(relocs, uint64((1-k)*(start+4*(other%16))))
		}
		symbols = le.AppendUint32(symbols, uint32(len(names)))
		symbols = append(symbols, 0x12, 0, 1, 0)
		symbols = le.AppendUint64(symbols, uint64(start))
		symbols = le.AppendUint64(symbols, uint64(len(f)))
		names = append(append(names, name...), 0)
		b = append(b, f...)
	}
	heads := make([]byte, headLen64)
	section := func(kind uint32, flags, link, info int, from, to int) {
		heads = append(heads, make([]byte, headLen64)...)
		h := heads[len(heads)-headLen64:]
		le.PutUint32(h[4:], kind)
		le.PutUint64(h[8:], uint64(flags))
		le.PutUint64(h[24:], uint64(from))
		le.PutUint64(h[32:], uint64(to-from))
		le.PutUint32(h[40:], uint32(link))
		le.PutUint32(h[44:], uint32(info))
	}
	text := len(b)
	section(1, shfAlloc|shfExec, 0, 0, headLen64, text)
	b = append(b, symbols...)
	section(shtSymbols, 0, 4, 2, text, len(b))
	at := len(b)
	b = append(b, relocs...)
	section(shtRela, 0, 2, 1, at, len(b))
	at = len(b)
	b = append(b, names...)
	section(3, 0, 0, 0, at, len(b))
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], etRel)
	le.PutUint16(b[18:], machARM64)
	le.PutUint64(b[40:], uint64(len(b)))
	le.PutUint16(b[58:], headLen64)
	le.PutUint16(b[60:], uint16(len(heads)/headLen64))
	return append(b, heads...)
}

// trip makes a dense patch, or a plain one, and applies it.
func trip(t *testing.T, old, fresh []byte, p Profile) int {
	t.Helper()
	var b, out bytes.Buffer
	if _, err := Create(context.Background(), bytes.NewReader(old), bytes.NewReader(fresh), &b, Options{Profile: p}); err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(context.Background(), bytes.NewReader(b.Bytes()), bytes.NewReader(old), &out, DecodeOptions{}); err != nil || !bytes.Equal(out.Bytes(), fresh) {
		t.Fatal("does not come back", err)
	}
	return b.Len()
}

// TestObjects: what tables of an object say of its code and its symbols follows them,
// and headers that lie cost no more than bytes.
func TestObjects(t *testing.T) {
	if testing.Short() {
		t.Skip("matches programs")
	}
	gone := []int{3, 40, 77, 78, 120, 133, 151, 166, 190, 201, 213, 240, 251, 262, 277, 290}
	front := bytes.Repeat([]byte("something else "), 5)
	old := slices.Concat(front, relocatable(), relocatable(5))
	fresh := slices.Concat(front[3:], relocatable(gone...), relocatable(5, 6, 8))
	plain, dense := trip(t, old, fresh, Plain), trip(t, old, fresh, Dense)
	if dense*3 > plain*2 {
		t.Errorf("dense %d bytes, plain %d", dense, plain)
	}
	r := rand.New(rand.NewPCG(39, 39))
	for range 40 {
		o, n := relocatable(), relocatable(gone[:2]...)
		for range 1 + r.IntN(10) {
			o[16+r.IntN(48)] = byte(r.Uint32())
			o[len(o)-1-r.IntN(320)] = byte(r.Uint32())
			n[16+r.IntN(48)] = byte(r.Uint32())
		}
		trip(t, o, n, Dense)
	}
}
