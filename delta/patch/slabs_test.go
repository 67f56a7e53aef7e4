package patch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"updraft/delta/patch"
)

// TestSlabs: streams in slabs come back, and what moves a little costs little.
func TestSlabs(t *testing.T) {
	if underRace {
		t.Skip("slow with the race detector, and runs without it")
	}
	r := rand.New(rand.NewPCG(1, 60))
	old := random(r, 3<<20)
	grown := append(append(bytes.Clone(old[:1<<20]), random(r, 70<<10)...), old[1<<20:]...)
	for _, c := range []struct {
		name       string
		old, fresh []byte
		limit      int
	}{
		{"edits", old, edit(r, old, 20), 6 << 10},
		{"grown", old, grown, 80 << 10},
		{"shrunk", grown, old, 8 << 10},
		{"cut short", old, old[:900<<10], 1 << 10},
		{"from nothing", nil, old[:300<<10], 301 << 10},
		{"to nothing", old, nil, 200},
		{"longer by a slab", old, append(bytes.Clone(old), old[:512<<10]...), 600 << 10},
	} {
		p, err := patch.CreateSlabs(t.Context(), bytes.NewReader(c.old), bytes.NewReader(c.fresh), 256<<10)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got, err := decode(t.Context(), p, c.old)
		if err != nil || !bytes.Equal(got, c.fresh) {
			t.Errorf("%s: the output differs: %v", c.name, err)
		}
		if len(p) > c.limit {
			t.Errorf("%s: %d bytes, want %d at most", c.name, len(p), c.limit)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := patch.CreateSlabs(ctx, bytes.NewReader(old), bytes.NewReader(grown), 256<<10); err == nil {
		t.Error("goes on when cancelled")
	}
}

// sparse is a stream of zeros with something in it.
type sparse struct {
	size int64
	at   []int64
	b    []byte
}

func (s *sparse) Size() int64 { return s.size }

func (s *sparse) ReadAt(b []byte, off int64) (int, error) {
	n := int(min(int64(len(b)), max(0, s.size-off)))
	clear(b[:n])
	for _, at := range s.at {
		if lo, hi := max(at, off), min(at+int64(len(s.b)), off+int64(n)); lo < hi {
			copy(b[lo-off:hi-off], s.b[lo-at:])
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// compared compares what is written to it with a stream.
type compared struct {
	with *sparse
	at   int64
	buf  []byte
}

func (c *compared) Write(b []byte) (int, error) {
	c.buf = append(c.buf[:0], b...)
	if _, err := c.with.ReadAt(c.buf, c.at); err != nil || !bytes.Equal(c.buf, b) {
		return 0, fmt.Errorf("at %d: other bytes (%w)", c.at, err)
	}
	c.at += int64(len(b))
	return len(b), nil
}

// TestLarge32 gives a machine of 32 bits streams that it cannot have in memory.
func TestLarge32(t *testing.T) {
	if math.MaxInt > math.MaxInt32 {
		t.Skip("for machines of 32 bits")
	}
	large, small := &sparse{size: 1<<31 + 1<<20}, bytes.NewReader([]byte("small"))
	for _, p := range [][2]patch.Source{{large, small}, {small, large}} {
		if _, err := patch.Create(t.Context(), p[0], p[1], io.Discard, patch.Options{}); !errors.Is(err, patch.ErrTooLarge) {
			t.Errorf("from %d to %d bytes: %v", p[0].Size(), p[1].Size(), err)
		}
	}
}

// TestBeyond4GiB makes and applies the patch of streams of more than that.
func TestBeyond4GiB(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("takes half a minute")
	}
	b := random(rand.New(rand.NewPCG(2, 61)), 1<<20)
	old := &sparse{4<<30 + 64<<20, []int64{4096, 3 << 30, 4<<30 + 1<<24}, b}
	fresh := &sparse{4<<30 + 64<<20 + 12345, []int64{8192, 3<<30 + 777, 4<<30 + 1<<24 + 99}, b}
	var p bytes.Buffer
	st, err := patch.Create(t.Context(), old, fresh, &p, patch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := &compared{with: fresh}
	if _, err := patch.Decode(t.Context(), bytes.NewReader(p.Bytes()), old, got, patch.DecodeOptions{}); err != nil || got.at != fresh.size {
		t.Errorf("output of %d bytes, want %d: %v", got.at, fresh.size, err)
	}
	t.Logf("%d bytes, %d segments", p.Len(), len(st.Segments))
	if p.Len() > 4<<10 {
		t.Errorf("%d bytes", p.Len())
	}
}
