package patch

import (
	"context"
	"errors"
	"sort"

	"updraft/delta/patch/internal/layer"
)

// A decoder unpacks a member of the base again where the output comes back to it and it is no longer at hand.
// What that comes to no table says, so the publisher finds out: nothing is seen through compression in a patch whose
// decoder would unpack more than unpackPays times the bytes that Info.Work has, where each counts once, and unpackFree.
// A decoder gives up after unpackMost times as many and twice unpackFree: who makes a patch could have it work for hours.
const (
	unpackPays = 4
	unpackMost = 16
)

var unpackFree int64 = 128 << 20 // never changed but by tests, which have less to do then

// affordable reports whether a decoder that makes pieces by cs unpacks at most so many bytes.
func (u *unpacking) affordable(ctx context.Context, old Source, pieces []piece, cs []cover, budget int64) (bool, error) {
	view, end, err := u.recipe.view(ctx, old, &budget, u.o.Scratch)
	if err != nil {
		return false, err
	}
	defer end()
	p := pages{src: view, size: view.Size()}
	buf := make([]byte, copyPiece)
	read := func(from, to int) error {
		for from < to {
			n := min(len(buf), to-from)
			if err := p.read(buf[:n], int64(from)); err != nil {
				return err
			}
			from += n
		}
		return nil
	}
	for _, s := range pieces {
		if s.kind == kindCopy {
			err = read(s.from, s.from+s.hi-s.lo)
		}
		first := sort.Search(len(cs), func(i int) bool { return cs[i].n+cs[i].l > s.lo })
		for _, c := range cs[first:] {
			if err != nil || s.kind == kindCopy || c.n >= s.hi {
				break
			}
			lo, hi := max(c.n, s.lo), min(c.n+c.l, s.hi)
			err = read(c.o+lo-c.n, c.o+hi-c.n)
		}
		if errors.Is(err, layer.ErrCorrupt) {
			return false, nil // it is our own recipe: the budget is spent
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}
