package patch_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"updraft/delta/patch"
)

// fuzzBase is the base that fuzzed patches are decoded with.
func fuzzBase() []byte { return text(rand.New(rand.NewPCG(20, 20)), 8<<10) }

func seeds(f *testing.F) {
	r := rand.New(rand.NewPCG(21, 21))
	old := fuzzBase()
	for range 4 {
		f.Add(create(f, old, edit(r, old, 10), patch.Options{SegmentSize: 4 << 10}))
		f.Add(create(f, old, edit(r, old, 10), patch.Options{Profile: patch.Plain}))
	}
	for _, profile := range []patch.Profile{patch.Plain, patch.Dense} {
		again := append(append(bytes.Clone(old[:2<<10]), text(r, 2<<10)...), old[:2<<10]...)
		again = append(again, again[1<<10:]...)
		f.Add(create(f, old, again, patch.Options{Profile: profile, SegmentSize: 3 << 10}))
	}
	f.Add(create(f, old, text(r, 68<<10), patch.Options{}))
	f.Add([]byte("UDPATCH1"))
}

// maxAlloc bounds what a decoder may allocate, whatever the patch says.
const maxAlloc = 40 << 20

// FuzzDecode looks for patches that crash the decoder or make it allocate. The
// digest of the header is repaired, so that fuzzing reaches what is behind it.
func FuzzDecode(f *testing.F) {
	seeds(f)
	old := fuzzBase()
	f.Fuzz(func(t *testing.T, p []byte) {
		p = patch.FixHeader(p)
		if n := allocated(func() {
			_, _ = patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, patch.DecodeOptions{})
		}); n > maxAlloc {
			t.Errorf("allocated %d bytes", n)
		}
	})
}

func FuzzInspect(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		p = patch.FixHeader(p)
		if n := allocated(func() {
			in, err := patch.Inspect(bytes.NewReader(p))
			if err == nil && (in.Memory > 32<<20 || in.HeaderBytes > int64(len(p))) {
				t.Errorf("%+v", in)
			}
		}); n > maxAlloc {
			t.Errorf("allocated %d bytes", n)
		}
	})
}

// FuzzRoundTrip looks for inputs that do not come back.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("the old bytes"), []byte("the new bytes, more"), uint16(7))
	more := text(rand.New(rand.NewPCG(22, 22)), 3000)
	f.Add([]byte("the old bytes"), append(append(bytes.Clone(more), "between"...), more...), uint16(700))
	f.Fuzz(func(t *testing.T, old, fresh []byte, size uint16) {
		create(t, old, fresh, patch.Options{SegmentSize: int(size)})
	})
}
