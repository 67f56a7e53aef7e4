package patch_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"updraft/delta/patch"
)

// TestProgress: Create says often how far it is, while it encodes as well, never goes back,
// and says once that all is done, at the end.
func TestProgress(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 9))
	old, other := text(r, 320<<10), text(r, 320<<10)
	fresh := edit(r, old, 50)
	for _, c := range []struct {
		name       string
		old, fresh []byte
		o          patch.Options
	}{
		{"covers", old, fresh, patch.Options{Profile: patch.Dense}},
		{"literals", old[:1<<10], other, patch.Options{Profile: patch.Dense}},
		{"segments at once", old, fresh, patch.Options{SegmentSize: 128 << 10, Jobs: 4}},
		{"plain", old, other, patch.Options{Profile: patch.Plain, SegmentSize: 32 << 10}},
		{"seen and not", gz(level(6), old), gz(level(6), fresh), patch.Options{}},
		{"nothing", old, nil, patch.Options{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			size := int64(len(c.fresh))
			calls, last := int64(0), int64(-1)
			c.o.Progress = func(done, total int64) {
				if done <= last || done > total || total != size || done-last > size/3+1 {
					t.Errorf("%d of %d after %d", done, total, last)
				}
				last = done
				calls++
			}
			if _, err := patch.Create(t.Context(), bytes.NewReader(c.old), bytes.NewReader(c.fresh), io.Discard, c.o); err != nil {
				t.Fatal(err)
			}
			if least := 1 + size/(64<<10); last != size || calls < least {
				t.Errorf("ends with %d of %d bytes, told %d times, want %d at least", last, size, calls, least)
			}
		})
	}
}
