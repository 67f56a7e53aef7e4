package patch

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"
)

// encode makes the payloads of e's pieces, the index first, and fills in the table. Without programs
// no segment is dense.
func encode(ctx context.Context, e *encoding, programs *moves, h *header, o job) ([][]byte, error) {
	pieces := e.pieces
	if n := len(h.segs) + len(pieces); n > maxSegs {
		return nil, fmt.Errorf("%w: %d segments", ErrTooLarge, n)
	}
	e.codings = make([]coding, len(pieces))
	e.parses, e.header = e.new.Size(), h
	for i, p := range pieces {
		if ofParse(p.region) {
			e.parses = min(e.parses, int64(p.lo))
		}
		if p.kind == kindCopy {
			e.codings[i].plain = binary.AppendUvarint(nil, uint64(e.from+int64(p.from)))
		}
	}
	index, err := e.index(programs)
	if err != nil {
		return nil, err
	}
	share, size := 1.0, e.coded()
	if e.moves != nil {
		share = sharePlain
	}
	e.meter.stage(share, size)
	if err := e.each(ctx, o.Jobs, e.plainly); err != nil {
		return nil, err
	}
	if e.moves != nil {
		dropStreamEncoder()
		giveBack(int(min(e.old.Size(), math.MaxInt32)))
		e.meter.stage(1, size)
		e.room = maxMemory - e.memory - denseMemory - wideMemory - int64(len(index)) - tableMemory(len(pieces))
		if err := e.each(ctx, o.Jobs, e.densely); err != nil {
			return nil, err
		}
		if err := e.narrow(ctx, o); err != nil {
			return nil, err
		}
	}
	saved := -len(index)
	for i := range pieces {
		if e.pays(i, o.Profile) {
			saved += len(e.codings[i].plain) - len(e.codings[i].dense)
		}
	}
	if saved > 0 {
		beside := e.memory + denseMemory + int64(len(index))
		if e.wide() {
			beside += wideMemory
		}
		if err := e.halve(ctx, o, beside); err != nil {
			return nil, err
		}
		if pieces = e.pieces; len(h.segs)+len(pieces) > maxSegs {
			return nil, fmt.Errorf("%w: %d segments", ErrTooLarge, len(pieces))
		}
	}
	payloads := make([][]byte, 1, len(pieces)+1)
	if saved > 0 {
		payloads[0], h.index = index, int64(len(index))
	}
	for i, p := range pieces {
		c := &e.codings[i]
		s := segment{kind: p.kind, region: p.region, at: int64(p.lo), size: int64(p.hi - p.lo), sum: c.sum}
		b := c.plain
		if saved > 0 && e.pays(i, o.Profile) {
			s.kind, b = c.kind, c.dense
		}
		s.payload = int64(len(b))
		h.segs = append(h.segs, s)
		payloads = append(payloads, b)
	}
	return payloads, nil
}

// encoding makes payloads, of both kinds where that is wanted.
type encoding struct {
	old     Source
	from    int64 // where that begins in the base
	new     Source
	cs      []cover
	others  []cover // that plain segments may have instead; nil: none
	pieces  []piece
	moves   *moves // nil: no dense segments
	parses  int64  // where in new they begin
	header  *header
	memory  int64 // that a decoder takes beside segments and index
	workers sync.Pool
	meter   *meter
	codings []coding // of pieces
	room    int64    // that a decoder has for a dense segment and its payload, where one is of kindWide
}

// coding is how a piece is coded.
type coding struct {
	plain, dense []byte
	kind         byte // of dense
	sum          [sumLen]byte
}

// pays reports whether piece i is to be dense: with Auto only where it saves a
// twentieth, since it costs a decoder much more.
func (e *encoding) pays(i int, p Profile) bool {
	d, b := int64(len(e.codings[i].dense)), int64(len(e.codings[i].plain))
	if d == 0 || d > int64(e.pieces[i].hi-e.pieces[i].lo) {
		return false
	}
	if p == Auto {
		b -= b / 20
	}
	return d < b
}

// halve cuts plain pieces in two that take a decoder too much memory beside what it takes
// for dense ones: mostly those of 4 MiB that do not compress.
func (e *encoding) halve(ctx context.Context, o job, beside int64) error {
	room := maxMemory - beside - plainMemory - tableMemory(len(e.pieces))
	if room < 1<<20 {
		return nil // that is no matter of pieces
	}
	old := &encoding{pieces: e.pieces, codings: e.codings}
	e.pieces, e.codings = nil, nil
	for i, p := range old.pieces {
		n := p.hi - p.lo
		whole := p.kind == kindCopy || old.pays(i, o.Profile) || int64(2*n+len(old.codings[i].plain)) <= room
		if !whole {
			e.pieces, e.codings = append(e.pieces, p.to(p.lo+n/2, p.region)), append(e.codings, coding{})
			p = p.behind(p.lo + n/2)
			old.codings[i] = coding{}
		}
		e.pieces, e.codings = append(e.pieces, p), append(e.codings, old.codings[i])
	}
	if len(e.pieces) == len(old.pieces) {
		return nil
	}
	return e.each(ctx, o.Jobs, func(i int, w *worker) error {
		if e.codings[i].plain != nil {
			return nil
		}
		return e.plainly(i, w)
	})
}

// worker is what a goroutine needs to encode pieces.
type worker struct {
	dense *denseCoder // nil until it is wanted
	old   pages
	new   []byte // of the piece
	lit   []byte
}

// index makes the index of m, whose runs become the covers, or nothing if there are to
// be no dense segments. Where there are more covers than it can say, it has the longest.
func (e *encoding) index(m *moves) ([]byte, error) {
	if m == nil {
		return nil, nil
	}
	for keep := min(len(e.cs), maxCovers); ; {
		m.set(longest(e.cs, keep))
		if err := m.trim(e.old, e.new); err != nil {
			return nil, err
		}
		c := newEncoder()
		if err := m.code(c, e.header.baseView, e.header.newView, e.header.appendix); err != nil {
			return nil, nil //nolint:nilerr // what no index can say is not dense
		}
		b := c.finish()
		if len(b) <= maxIndex {
			e.moves = m
			return b, nil
		}
		keep = int(int64(len(m.runs)) * maxIndex / int64(len(b)) * 15 / 16)
	}
}

// longest returns the n longest covers, of those that are as long as the last the first.
func longest(cs []cover, n int) []cover {
	switch {
	case len(cs) <= n:
		return cs
	case n <= 0:
		return nil
	}
	lengths := make([]uint64, len(cs))
	for i, c := range cs {
		lengths[i] = uint64(c.l)
	}
	slices.Sort(lengths)
	last := int(lengths[len(cs)-n])
	ties := n - (len(cs) - sort.Search(len(cs), func(i int) bool { return int(lengths[i]) > last }))
	out := make([]cover, 0, n)
	for _, c := range cs {
		if c.l == last {
			ties--
		}
		if c.l > last || c.l == last && ties >= 0 {
			out = append(out, c)
		}
	}
	return out
}

// coded returns how many bytes are not copied.
func (e *encoding) coded() (n int64) {
	for _, p := range e.pieces {
		if p.kind != kindCopy {
			n += int64(p.hi - p.lo)
		}
	}
	return n
}

// each calls f for all pieces, with a worker that has the bytes of the piece, but for
// copies.
func (e *encoding) each(ctx context.Context, jobs int, f func(i int, w *worker) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for i, p := range e.pieces {
		if p.kind == kindCopy {
			continue
		}
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			w, _ := e.workers.Get().(*worker)
			if w == nil {
				w = &worker{old: pages{src: e.old, size: e.old.Size()}}
			}
			defer e.workers.Put(w)
			w.new = grow(w.new, p.hi-p.lo)
			if err := readWhole(e.new, w.new, int64(p.lo)); err != nil {
				return err
			}
			return f(i, w)
		})
	}
	return g.Wait()
}

// plainly encodes piece i as plain, with the covers that suit it: those which programs
// have moved agree where references are predicted, which plain segments do not do.
func (e *encoding) plainly(i int, w *worker) error {
	p := e.pieces[i]
	defer e.meter.add(int64(p.hi - p.lo))
	c := &e.codings[i]
	c.sum = checksum(w.new)
	first, others := p.covers(e.cs), p.covers(e.others)
	var err error
	c.plain, err = w.encodePlain(e.from, first, p)
	if err != nil || e.others == nil || slices.Equal(first, others) {
		return err
	}
	b, err := w.encodePlain(e.from, others, p)
	if len(b) < len(c.plain) && err == nil {
		c.plain = b
	}
	return err
}

// covers returns those of cs that reach into p.
func (p piece) covers(cs []cover) []cover {
	first := sort.Search(len(cs), func(k int) bool { return cs[k].n+cs[k].l > p.lo })
	end := sort.Search(len(cs), func(k int) bool { return cs[k].n >= p.hi })
	return cs[first:max(first, end)]
}

// densely encodes piece i as dense, too.
func (e *encoding) densely(i int, w *worker) error {
	p := e.pieces[i]
	n := p.hi - p.lo
	if len(e.codings[i].plain) >= n-n/64 {
		e.meter.add(int64(n))
		return nil // what is as noise for one coder is so for the other, and takes it a second for a megabyte
	}
	kind := byte(kindDense)
	switch {
	case ofParse(p.region):
		kind = kindRows
	case e.room >= int64(n) && literalsIn(e.moves.runs, p) >= manyForDense:
		kind = kindWide
	}
	return e.dense(i, w, kind)
}

// manyForDense is how many literals a segment of kindWide has at least.
const manyForDense = 64 << 10

// literalsIn returns how many bytes of p no run gives.
func literalsIn(rs []run, p piece) int {
	n := p.hi - p.lo
	for _, r := range rs[searchRuns(rs, int64(p.lo)):] {
		if int(r.n) >= p.hi {
			break
		}
		n -= min(int(r.n)+int(r.l), p.hi) - max(int(r.n), p.lo)
	}
	return n
}

// dense encodes piece i as a dense segment of the kind.
func (e *encoding) dense(i int, w *worker, kind byte) error {
	if w.dense == nil {
		w.dense = newDenseCoder(e.old, e.header.baseView, e.room > 0)
		w.dense.meter = e.meter
	}
	p, d, c := e.pieces[i], w.dense, newEncoder()
	d.enter(kind, e.header.base(p.region), e.parses)
	out, err := d.segment(c, e.moves, int64(p.lo), int64(p.hi-p.lo), w.new, grow(d.out, p.hi-p.lo))
	if err != nil {
		return err
	}
	if !bytes.Equal(out, w.new) {
		return fmt.Errorf("patch: segment %d does not encode", i)
	}
	e.codings[i].dense, e.codings[i].kind = c.finish(), kind
	return nil
}

// wide reports whether a dense segment is of kindWide.
func (e *encoding) wide() bool {
	return slices.ContainsFunc(e.codings, func(c coding) bool { return c.kind == kindWide })
}

// narrow encodes again what is of kindWide, if that takes a decoder too much memory beside the largest of the other
// segments.
func (e *encoding) narrow(ctx context.Context, o job) error {
	fits := true
	for i, p := range e.pieces {
		n, c := int64(p.hi-p.lo), &e.codings[i]
		switch {
		case p.kind == kindCopy:
		case e.pays(i, o.Profile):
			fits = fits && n+int64(len(c.dense)) <= e.room
		default: // they can be halved
			fits = fits && n+int64(len(c.plain)/2)+plainMemory <= e.room
		}
	}
	if fits || !e.wide() {
		return nil
	}
	return e.each(ctx, o.Jobs, func(i int, w *worker) error {
		if e.codings[i].kind != kindWide {
			return nil
		}
		return e.dense(i, w, kindDense)
	})
}
