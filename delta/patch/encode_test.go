package patch

import "testing"

// TestMerge: of a large stream only long copies have segments of their own.
func TestMerge(t *testing.T) {
	const short, long = 1100 << 10, 3 << 20
	var in []piece
	for at := 0; at < 100<<20; {
		for _, p := range []piece{{kind: kindCopy, hi: short}, {kind: kindPlain, hi: 4 << 10}, {kind: kindCopy, hi: long}, {kind: kindPlain, hi: 4 << 10}} {
			in = append(in, piece{kind: p.kind, lo: at, hi: at + p.hi})
			at += p.hi
		}
	}
	for total, want := range map[int64]int{100 << 20: short, 4 << 30: short, 40 << 30: long} {
		out := merge(in, MaxSegment, total)
		least, at := long, 0
		for i, p := range out {
			if p.kind == kindCopy && i > 0 && i < len(out)-1 {
				least = min(least, p.hi-p.lo)
			}
			if p.lo != at {
				t.Fatalf("piece %d begins at %d, not %d", i, p.lo, at)
			}
			at = p.hi
		}
		if least != want || at != in[len(in)-1].hi {
			t.Errorf("of %d bytes: copies of %d, want %d", total, least, want)
		}
	}
}
