package patch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
)

// slabSize is how much of a large stream is matched at once, with twice as much of the
// base: what is around the same place.
const slabSize = 1 << 30

// createSlabs makes the patch of streams that are too large to be matched as a whole: of
// plain segments, and not seen through compression.
func createSlabs(ctx context.Context, old, new Source, slab int64, o job) (*made, error) {
	if n := new.Size() / int64(o.SegmentSize); n > maxSegs {
		return nil, fmt.Errorf("%w: about %d segments", ErrTooLarge, n)
	}
	if int64(int(2*slab)) != 2*slab {
		return nil, fmt.Errorf("%w: for a machine of 32 bits", ErrTooLarge)
	}
	h := &header{baseSize: old.Size(), newSize: new.Size(), baseView: old.Size(), newView: new.Size()}
	m := &made{}
	var err error
	if h.baseSum, err = digest(ctx, old); err != nil {
		return nil, err
	}
	if h.newSum, err = digest(ctx, new); err != nil {
		return nil, err
	}
	if o.Memory <= 0 {
		o.Memory = indexMemory(3 * slab)
	}
	for at := int64(0); at < h.newSize; at += slab {
		from := max(0, min(at-slab/2, h.baseSize-2*slab))
		a := io.NewSectionReader(old, from, min(2*slab, h.baseSize-from))
		to := io.NewSectionReader(new, at, min(slab, h.newSize-at))
		o.meter.attempt(float64(to.Size()) / float64(h.newSize-at))
		if err := m.slab(ctx, h, a, from, to, at, o); err != nil {
			return nil, err
		}
		runtime.GC() // the next one takes the place of this one
	}
	if err := h.place(nil); err != nil {
		return nil, err
	}
	m.head = h.append(nil)
	m.Info = h.info(int64(len(m.head)), nil)
	return m, nil
}

// slab adds segments for to, which begins at at of the output, made from old, which begins
// at from of the base.
func (m *made) slab(ctx context.Context, h *header, old Source, from int64, to Source, at int64, o job) error {
	b, err := readAll(ctx, old)
	if err != nil {
		return err
	}
	o.meter.stage(shareSlab, to.Size())
	cs, err := covers(ctx, b, to, o.Memory, o.meter)
	if err != nil {
		return err
	}
	if cs, err = prune(b, to, cs); err != nil {
		return err
	}
	pieces, err := cut(b, newWindow(to), cs, o.SegmentSize, h.newSize)
	if err != nil {
		return err
	}
	payloads, err := encode(ctx, &encoding{old: bytes.NewReader(b), from: from, new: to, cs: cs, pieces: pieces, meter: o.meter}, nil, h, o)
	if err != nil {
		return err
	}
	m.payloads = append(m.payloads, payloads...)
	m.Covers += len(cs)
	for _, c := range cs {
		m.Covered += int64(c.l)
	}
	return nil
}
