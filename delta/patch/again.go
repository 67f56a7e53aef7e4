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

// affordable reports whether the base pays to be seen through: it reads that as a decoder does, which info describes
// and which makes pieces by the covers of k, and those that its header says are dense by its programs.
func (u *unpacking) affordable(ctx context.Context, old Source, info Info, k *making, pieces []piece) (bool, error) {
	budget := unpackPays*info.Work + unpackFree
	view, end, err := u.recipe.view(ctx, old, spareOf(maxMemory, info.Memory), &budget, u.o.Scratch)
	if err != nil {
		return false, err
	}
	defer end()
	u.o.meter.attempt(shareAgain)
	u.o.meter.stage(1, k.h.newView)
	if k.appendix != nil {
		view = &joint{view, k.appendix}
	}
	r := rereader{view: view, pages: pages{src: view, size: view.Size()}, buf: make([]byte, windowLen)}
	dense := make(map[int64]bool, len(k.h.segs))
	for _, s := range k.h.segs {
		dense[s.at] = s.kind >= kindDense
	}
	for _, s := range pieces {
		if s.kind != kindCopy && dense[int64(s.lo)] {
			err = r.dense(k.programs.runs, int64(s.lo), int64(s.hi-s.lo), k.h.base(s.region))
		} else {
			err = r.plain(s, k.cs)
		}
		if errors.Is(err, layer.ErrCorrupt) {
			return false, nil // it is our own recipe: the budget is spent
		}
		if err != nil {
			return false, err
		}
		u.o.meter.add(int64(s.hi - s.lo))
	}
	return true, nil
}

// rereader reads a view as a decoder does.
type rereader struct {
	view  Source
	pages pages
	buf   []byte // of windowLen bytes
}

// plain reads what a copy or a plain segment takes.
func (r *rereader) plain(s piece, cs []cover) error {
	if s.kind == kindCopy {
		return r.run(int64(s.from), int64(s.hi-s.lo))
	}
	for _, c := range s.covers(cs) {
		lo, hi := max(c.n, s.lo), min(c.n+c.l, s.hi)
		if err := r.run(int64(c.o+lo-c.n), int64(hi-lo)); err != nil {
			return err
		}
	}
	return nil
}

func (r *rereader) run(from, n int64) error {
	for ; n > 0; from, n = from+copyPiece, n-copyPiece {
		if err := r.pages.read(r.buf[:min(n, copyPiece)], from); err != nil {
			return err
		}
	}
	return nil
}

// dense reads what the dense segment of size bytes at offset at takes of base bytes, but for the headers of programs.
func (r *rereader) dense(runs []run, at, size, base int64) error {
	runs = runs[searchRuns(runs, at):]
	if from, n := windowOf(runs, at, size, base); n > 0 {
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
			from, end := max(lo+d-margin, 0), min(lo+d+min(hi-lo, denseRun)+margin, base)
			if err := readFull(r.view, r.buf[:end-from], from); err != nil {
				return err
			}
		}
	}
	return nil
}
