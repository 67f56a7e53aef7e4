package patch

import (
	"context"
	"errors"

	"updraft/delta/patch/internal/layer"
)

// A decoder unpacks a member of the base again where the output comes back to it and it is no longer at hand.
// What that comes to no table says, so the publisher finds out: nothing is seen through compression in a patch whose
// decoder would unpack more than unpackPays times the bytes that Info.Work has, where each counts once, and unpackFree.
// A decoder gives up after unpackMost times as many and twice unpackFree. That is for accidents: a publisher who means
// ill states what Work he likes, and ends with the context.
const (
	unpackPays = 4
	unpackMost = 16
)

var unpackFree int64 = 128 << 20 // never changed but by tests, which have less to do then

// affordable reports whether a decoder unpacks at most so many bytes. It reads the base as one does that makes
// pieces by cs, and dense segments by runs.
func (u *unpacking) affordable(ctx context.Context, old Source, h *header, pieces []piece, cs []cover, runs []run, spare, budget int64, m *meter) (bool, error) {
	view, end, err := u.recipe.view(ctx, old, spare, &budget, u.o.Scratch)
	if err != nil {
		return false, err
	}
	defer end()
	m.attempt(shareAgain)
	m.stage(1, h.newView)
	r := rereader{view: view, pages: pages{src: view, size: view.Size()}}
	dense := make(map[int64]bool, len(h.segs))
	for _, s := range h.segs {
		dense[s.at] = s.kind == kindDense || s.kind == kindRows
	}
	for _, s := range pieces {
		switch {
		case s.kind == kindCopy:
			err = r.plain(int64(s.from), int64(s.hi-s.lo))
		case dense[int64(s.lo)]:
			err = r.dense(runs, int64(s.lo), int64(s.hi-s.lo))
		default:
			for _, c := range s.covers(cs) {
				lo, hi := max(c.n, s.lo), min(c.n+c.l, s.hi)
				if err = r.plain(int64(c.o+lo-c.n), int64(hi-lo)); err != nil {
					break
				}
			}
		}
		if errors.Is(err, layer.ErrCorrupt) {
			return false, nil // it is our own recipe: the budget is spent
		}
		if err != nil {
			return false, err
		}
		m.add(int64(s.hi - s.lo))
	}
	return true, nil
}

// rereader reads a view as a decoder does.
type rereader struct {
	view  Source
	pages pages
	buf   []byte
}

// plain reads n bytes at from as copies and plain segments do.
func (r *rereader) plain(from, n int64) error {
	r.buf = grow(r.buf, windowLen)
	for ; n > 0; from, n = from+copyPiece, n-copyPiece {
		if err := r.pages.read(r.buf[:min(n, copyPiece)], from); err != nil {
			return err
		}
	}
	return nil
}

// dense reads what the dense segment of size bytes at offset at takes, but for the headers of programs.
func (r *rereader) dense(runs []run, at, size int64) error {
	r.buf = grow(r.buf, windowLen)
	runs = runs[searchRuns(runs, at):]
	if from, n := windowOf(runs, at, size, r.view.Size()); n > 0 {
		if err := readFull(r.view, r.buf[:n], from); err != nil {
			return err
		}
	}
	for _, x := range runs {
		lo, hi := max(int64(x.n), at), min(int64(x.n)+int64(x.l), at+size)
		if lo >= hi {
			break
		}
		d := int64(x.o) - int64(x.n)
		for ; lo < hi; lo += denseRun {
			from, end := max(lo+d-margin, 0), min(lo+d+min(hi-lo, denseRun)+margin, r.view.Size())
			if err := readFull(r.view, r.buf[:end-from], from); err != nil {
				return err
			}
		}
	}
	return nil
}
