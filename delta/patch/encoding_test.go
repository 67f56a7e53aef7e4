package patch

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestLongest: the longest are kept, in their order, and exactly as many as are asked for.
func TestLongest(t *testing.T) {
	var cs []cover
	for i, l := range []int{3, 9, 3, 5, 9, 5, 3, 5} {
		cs = append(cs, cover{n: i, l: l})
	}
	for n, want := range [][]int{{}, {1}, {1, 4}, {1, 3, 4}, {1, 3, 4, 5}, {1, 3, 4, 5, 7}, {0, 1, 3, 4, 5, 7}, {0, 1, 2, 3, 4, 5, 7}, {0, 1, 2, 3, 4, 5, 6, 7}} {
		got := []int{}
		for _, c := range longest(cs, n) {
			got = append(got, c.n)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
}

// TestMoreCoversThanAnIndexSays: dense segments do with the longest then, plain ones have all.
func TestMoreCoversThanAnIndexSays(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	r := rand.New(rand.NewPCG(1, 3))
	const n = maxCovers + 50_000
	b := make([]byte, 40*n)
	var cs []cover
	for i := range n { // in disorder, so that each takes some bytes of the index
		cs = append(cs, cover{n: 40 * i, o: r.IntN(len(b) - 40), l: 10 + r.IntN(30)})
	}
	e := &encoding{old: bytes.NewReader(b), new: bytes.NewReader(b), cs: cs, header: &header{baseView: int64(len(b)), newView: int64(len(b))}}
	index, err := e.index(&moves{})
	if err != nil {
		t.Fatal(err)
	}
	if len(index) < maxIndex*3/4 || len(index) > maxIndex || e.moves == nil || len(e.moves.runs) < maxCovers/4 {
		t.Fatalf("an index of %d bytes", len(index))
	}
	if len(e.cs) != n {
		t.Errorf("plain segments have %d of %d", len(e.cs), n)
	}
	if m := new(moves); m.code(newDecoder(index), int64(len(b)), int64(len(b)), 0) != nil || len(m.runs) != len(e.moves.runs) {
		t.Errorf("the index says %d covers of %d", len(m.runs), len(e.moves.runs))
	}
}

// TestNarrow: no segment is of kindWide where that, and the largest dense segment, take a decoder too much memory.
func TestNarrow(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 61))
	words, noise := make([]byte, 100<<10), make([]byte, 145<<10)
	for i := range words {
		words[i] = byte(r.IntN(3))
	}
	follows, before := random(7, 1<<13), 0
	for i := range noise { // one of two that follow the three before
		noise[i] = follows[before<<1|r.IntN(2)] & 15
		before = before<<4&0xfff | int(noise[i])
	}
	plain := random(8, 90<<10)
	for _, c := range []struct {
		fresh []byte
		kinds []byte
	}{
		{words, []byte{kindWide}},
		{append(bytes.Clone(words), noise...), []byte{kindDense, kindDense}},
		{append(bytes.Clone(words), noise[:60<<10]...), []byte{kindWide, kindDense}},
		{append(bytes.Clone(words), plain...), []byte{kindDense, kindPlain}},
	} {
		e := &encoding{old: bytes.NewReader(words[:10]), new: bytes.NewReader(c.fresh), memory: maxMemory - denseMemory - wideMemory - 150<<10,
			pieces: []piece{{kind: kindPlain, hi: len(words)}}}
		if len(c.fresh) > len(words) {
			e.pieces = append(e.pieces, piece{kind: kindPlain, lo: len(words), hi: len(c.fresh)})
		}
		h := &header{baseView: 10, newView: int64(len(c.fresh))}
		if _, err := encode(t.Context(), e, &moves{}, h, job{Options: Options{Profile: Dense, Jobs: 2}}); err != nil {
			t.Fatal(err)
		}
		for i, s := range h.segs {
			if h.wide() != (c.kinds[0] == kindWide) {
				t.Errorf("%d bytes: wide %v", len(c.fresh), h.wide())
			}
			if s.kind != c.kinds[i] {
				t.Errorf("%d bytes: segment %d is of kind %d, want %d", len(c.fresh), i, s.kind, c.kinds[i])
			}
		}
	}
}
