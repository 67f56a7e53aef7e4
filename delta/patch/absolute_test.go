package patch

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestAbsolute: what is read by pieces is what is read at once, wherever they meet, and
// says targets.
func TestAbsolute(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 20))
	b := make([]byte, 300_000)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for i := 0; i < len(b); i += 5 + r.IntN(9) { // calls in code of x86
		copy(b[i:], []byte{0xe8, b[i], b[i], 0, 0})
	}
	for _, mach := range []uint64{mach386, machARM, machX86, machARM64, machRISCV} {
		im := image{off: 100, mach: mach, loads: []load{
			{off: 100, n: 200_001, v: 1 << 20, mem: 200_001, exec: true},
			{off: 200_200, n: 99_000, v: 2 << 20, mem: 100_000},
		}}
		im.bounds()
		a := newAbsolute(bytes.NewReader(b), &im, func(uint64) uint64 { return 0x123456 })
		whole := make([]byte, a.Size())
		if n, err := a.ReadAt(whole, 0); n < len(whole) {
			t.Fatal(n, err)
		}
		if bytes.Equal(whole, b[im.off:im.end]) {
			t.Errorf("machine %d: nothing is absolute", mach)
		}
		cuts := []int{0, 1, absoluteStep - 3, absoluteStep, absoluteStep + 5, 3 * absoluteStep, 200_001, 200_100, len(whole)}
		for range 60 {
			cuts = append(cuts, r.IntN(len(whole)))
		}
		slices.Sort(cuts)
		for i, lo := range cuts[:len(cuts)-1] {
			p := make([]byte, cuts[i+1]-lo)
			if n, err := a.ReadAt(p, int64(lo)); n < len(p) {
				t.Fatal(n, err)
			}
			if !bytes.Equal(p, whole[lo:cuts[i+1]]) {
				t.Fatalf("machine %d: %d bytes at %d are others", mach, len(p), lo)
			}
		}
	}
}
