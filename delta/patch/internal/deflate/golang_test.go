package deflate_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"testing"

	"updraft/delta/patch/internal/deflate"
)

// TestGo analyses what Go's own compressor makes.
func TestGo(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	t.Parallel()
	for name, plain := range corpus(t) {
		for level := 2; level <= 9; level++ {
			if !some(name, level) && level != 6 {
				continue
			}
			t.Run(fmt.Sprintf("%s-%d", name, level), func(t *testing.T) {
				var b bytes.Buffer
				w, err := flate.NewWriter(&b, level)
				if err != nil {
					t.Fatal(err)
				}
				w.Write(plain)
				w.Close()
				r := check(t, b.Bytes(), plain, deflate.Options{})
				if len(r.Corrections) > 0 {
					t.Errorf("%v: %d bytes of corrections for %d", r.Params, len(r.Corrections), b.Len())
				}
				p := deflate.Params{Family: deflate.Golang, Level: uint8(level), Memory: 8, Window: 15}
				r = check(t, b.Bytes(), plain, deflate.Options{Hints: []deflate.Params{p}})
				if r.Params != p {
					t.Errorf("hint not taken: %v", r.Params)
				}
			})
		}
	}
}
