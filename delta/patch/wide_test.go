package patch_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"updraft/delta/patch"
)

// grown returns a program of a machine, and one with so many more words of code, of a small vocabulary.
func grown(mach uint16, words int) (old, fresh []byte) {
	r := rand.New(rand.NewPCG(8, 61))
	var vocabulary [40][4]byte
	for i := range vocabulary {
		binary.LittleEndian.PutUint32(vocabulary[i][:], r.Uint32()&0x1fffffff|0x80000000)
	}
	b := make([]byte, 4096)
	for i := range 5000 + words {
		if i == 5000 {
			old = append(bytes.Clone(b), random(r, 64)...)
		}
		b = append(b, vocabulary[r.IntN(len(vocabulary))][:]...)
	}
	elfHeader(old, mach, len(old)-64)
	fresh = append(b, old[len(old)-64:]...)
	elfHeader(fresh, mach, len(fresh)-64)
	return old, fresh
}

// TestWide: many literals are in segments of a kind of its own, which knows where in an instruction a byte is.
func TestWide(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	sizes := map[uint16]int{}
	for _, mach := range []uint16{3, 40, 62, 183, 243} {
		old, fresh := grown(mach, 20<<10)
		p := create(t, old, fresh, patch.Options{Profile: patch.Dense})
		in, err := patch.Inspect(bytes.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		if patch.Kinds(p)[5] != 1 {
			t.Errorf("%d: segments of kinds %v", mach, patch.Kinds(p))
		}
		if in.Memory > 32<<20 || in.Memory < 24<<20 {
			t.Errorf("%d: %d bytes of memory", mach, in.Memory)
		}
		sizes[mach] = len(p)
	}
	for _, mach := range []uint16{40, 183, 243} {
		if sizes[mach] >= sizes[62] {
			t.Errorf("%d bytes for machine %d, %d where instructions are not aligned", sizes[mach], mach, sizes[62])
		}
	}
	old, fresh := grown(183, 10<<10)
	if p := create(t, old, fresh, patch.Options{Profile: patch.Dense}); patch.Kinds(p)[5] != 0 || patch.Kinds(p)[3] != 1 {
		t.Errorf("few literals: segments of kinds %v", patch.Kinds(p))
	}
}

func TestWideGolden(t *testing.T) {
	old, fresh := grown(183, 18<<10)
	golden(t, "testdata/golden-wide.patch", create(t, old, fresh, patch.Options{}), old, fresh)
}
