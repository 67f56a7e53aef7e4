package patch

import (
	"context"
	"slices"
	"sort"
)

// making is a patch in the making, up to its pieces.
type making struct {
	job
	h        *header
	from, to Source // base and output, or their views, and behind both the appendix
	view     Source // to without it
	base     []byte // all of from, but while programs are matched
	cs       []cover
	before   []cover  // in front of what programs add; nil: as cs
	programs *moves   // nil: no dense segments
	appendix *excerpt // nil: none
}

// cover finds where the output comes from.
func (k *making) cover(ctx context.Context) (err error) {
	if err := k.search(ctx, nil); err != nil {
		return err
	}
	k.programs = &moves{}
	if k.Profile != Plain {
		k.programs, err = findPrograms(ctx, k.base, k.view)
	}
	return err
}

// search reads from, and finds covers of the view; own are those of the appendix.
func (k *making) search(ctx context.Context, own []cover) (err error) {
	if k.base, err = readAll(ctx, k.from); err != nil {
		return err
	}
	k.meter.stage(shareCovers, k.h.newView)
	if k.cs, err = covers(ctx, k.base, k.view, k.Memory, k.meter); err != nil {
		return err
	}
	k.cs = append(k.cs, own...)
	return k.prune()
}

// share makes an appendix of what the output has several times, if that pays.
func (k *making) share(ctx context.Context) error {
	x, err := findRepeats(ctx, k.base, k.view, k.cs, k.programs.new, k.SegmentSize, k.Memory)
	if x == nil || err != nil {
		return err
	}
	k.appendix, k.h.appendix = x, x.Size()
	k.from, k.to = &joint{k.from, x}, &joint{k.view, x}
	own := x.covers(k.cs, int(k.h.newView))
	k.base = nil
	giveBack(int(k.from.Size()))
	if err := k.search(ctx, own); err != nil {
		return err
	}
	if k.Profile != Plain {
		k.programs.new, err = findMore(ctx, k.programs.new, k.to, int(k.h.newView))
	}
	return err
}

// match matches programs again, if there may be dense segments.
func (k *making) match(ctx context.Context) (err error) {
	if k.Profile == Plain || max(k.h.baseView, k.h.newView)+k.h.appendix > maxDense {
		k.programs = nil
		return nil
	}
	if len(k.programs.old) > 0 && len(k.programs.new) > 0 {
		k.base = nil // what is matched takes its place
		giveBack(int(k.from.Size()))
		k.before = slices.Clone(k.cs)
		if k.cs, err = matchPrograms(ctx, k.programs, k.from, k.to, k.cs, k.job); err != nil {
			return err
		}
		if k.base, err = readAll(ctx, k.from); err != nil {
			return err
		}
	}
	return k.prune()
}

// prune is prune for the view, and for the appendix, which is made from the base alone.
func (k *making) prune() error {
	own := k.own()
	first, err := prune(k.base, k.to, k.cs[:own])
	if err != nil || own == len(k.cs) {
		k.cs = first
		return err
	}
	rest, err := prune(k.base[:k.h.baseView], k.to, k.cs[own:])
	k.cs = append(first, rest...)
	return err
}

// own returns where the covers of the appendix begin, which come last.
func (k *making) own() int {
	return sort.Search(len(k.cs), func(i int) bool { return int64(k.cs[i].n) >= k.h.newView })
}

// cut cuts the output into pieces in the order in which they are decoded; u: of its views. It needs the base no more.
func (k *making) cut(u *unpacking) ([]piece, error) {
	if u != nil {
		k.cs, k.before = near(k.cs), near(k.before)
	}
	own := k.own()
	pieces, err := cut(k.base, newWindow(k.view), k.cs[:own], k.SegmentSize, k.h.newView)
	if err == nil && u != nil {
		pieces, err = u.arrange(pieces, k.h.newView)
	}
	if err != nil {
		return nil, err
	}
	if k.appendix != nil {
		first, err := k.appendix.cut(k.base[:k.h.baseView], k.cs[own:], k.SegmentSize, int(k.h.newView))
		if err != nil {
			return nil, err
		}
		pieces = append(first, pieces...)
	}
	k.cs = slices.Clone(k.cs) // there was room for many more
	n := len(k.base)
	k.base = nil
	giveBack(n)
	return pieces, nil
}
