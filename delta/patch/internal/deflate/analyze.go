package deflate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// Result is how to make a stream.
type Result struct {
	Params      Params
	Corrections []byte // nil: none
	Packed      int64  // bytes of the stream
	Plain       int64  // bytes it stands for
}

// Options of Analyze. The zero value is usable.
type Options struct {
	Hints  []Params // tried first, in this order; taken if they need no corrections
	Window uint8    // bits of the window, where the container tells; 0: 15
}

// Shares of the stream that corrections may take: enough to be worth it.
const (
	maxShare   = 8  // 1/8 at most
	slack      = 64 // bytes that are always allowed
	firstTrial = 1 << 14
)

// Analyze reads the stream that begins at off of src and ends at end at the latest,
// and finds out how to make it. It has made it and compared when it returns without
// error. ErrFormat: no deflate stream, or a damaged one; ErrForeign: cannot be made
// cheaply. It stops when ctx ends.
func Analyze(ctx context.Context, src io.ReaderAt, off, end int64, o Options) (Result, error) {
	a := analysis{stopped: ctx.Err, src: src, off: off, end: end, plain: NewReader(src, off, end), p: newParser(src, off, end)}
	for _, h := range o.Hints {
		if h.check() != nil {
			continue
		}
		r, err := a.whole(h, 0)
		if err == nil || !errors.Is(err, ErrForeign) {
			return r, err
		}
	}
	best, err := a.search(o)
	if err != nil {
		return Result{}, err
	}
	return a.whole(best, maxShare)
}

// analysis runs the compressor beside the stream.
type analysis struct {
	stopped  func() error // the context's
	src      io.ReaderAt
	off, end int64
	plain    *Reader // runs ahead of p
	p        *parser
	m        matcher
	c        composer
	w        *Writer
	note     noter
	tokens   int64
	size     int64
	early    bool // the compressor would have ended the block before
	fired    bool // it would end it here
	// limits
	most  int64 // tokens; 0: all
	share int64 // corrections may be 1/share of the stream; 0: none
	cost  int   // of the best so far: give up beyond
}

var errEnough = errors.New("trial ends")

// whole analyses all of the stream under p and checks that it can be made.
func (a *analysis) whole(p Params, share int64) (Result, error) {
	a.most, a.share, a.cost = 0, share, 0
	if err := a.run(p); err != nil {
		return Result{}, err
	}
	r := Result{Params: p, Corrections: a.note.bytes(), Packed: a.p.offset() - a.off, Plain: a.size}
	return r, a.verify(r)
}

// verify makes the stream and compares.
func (a *analysis) verify(r Result) error {
	if a.w == nil {
		a.w = new(Writer)
	}
	same := &comparer{src: a.src, off: a.off, end: a.off + r.Packed, buf: make([]byte, flushAt)}
	if err := a.w.Reset(same, r.Params, r.Corrections); err != nil {
		return err
	}
	a.plain.Reset(a.src, a.off, a.end)
	_, err := io.Copy(struct{ io.Writer }{a.w}, stopReader{a.stopped, a.plain})
	if err == nil {
		err = a.w.Close()
	}
	if err == nil && same.off != same.end {
		err = errDiffers
	}
	if errors.Is(err, errDiffers) || errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("deflate: %w: does not come out the same", ErrForeign)
	}
	return err
}

var errDiffers = errors.New("differs")

// comparer is a writer that fails where src has other bytes.
type comparer struct {
	src      io.ReaderAt
	off, end int64
	buf      []byte
}

func (c *comparer) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		k := min(len(b)-n, len(c.buf))
		if int64(k) > c.end-c.off {
			return n, errDiffers
		}
		if _, err := c.src.ReadAt(c.buf[:k], c.off); err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		if !bytes.Equal(c.buf[:k], b[n:n+k]) {
			return n, errDiffers
		}
		n += k
		c.off += int64(k)
	}
	return n, nil
}

// stopReader ends reading when the context ends.
type stopReader struct {
	stopped func() error
	r       io.Reader
}

func (s stopReader) Read(b []byte) (int, error) {
	if err := s.stopped(); err != nil {
		return 0, err
	}
	return s.r.Read(b)
}

// run compares the stream with what the compressor does under p.
func (a *analysis) run(p Params) error {
	a.plain.Reset(a.src, a.off, a.end)
	a.p.reset(a.src, a.off, a.end)
	a.m.reset(p)
	a.c.reset(p)
	a.note = noter{tokens: a.note.tokens[:0], blocks: a.note.blocks[:0]}
	a.tokens, a.size = 0, 0
	for {
		b, err := a.p.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.fill(); err != nil {
			return err
		}
		a.early, a.fired = false, false
		if b.kind == kindStored {
			err = a.stored(b.stored)
		} else {
			err = a.coded()
		}
		if err != nil {
			return err
		}
		a.endBlock(b)
		if err := a.check(); err != nil {
			return err
		}
	}
}

// check ends a trial, or what costs too much.
func (a *analysis) check() error {
	if a.tokens&0xfff == 0 {
		if err := a.stopped(); err != nil {
			return err
		}
	}
	n := int64(a.note.len())
	if a.most > 0 {
		if a.tokens >= a.most || int(n) > a.cost {
			return errEnough
		}
		return nil
	}
	if a.share == 0 && n > 0 || a.share > 0 && n > slack+(a.p.offset()-a.off)/a.share {
		return fmt.Errorf("deflate: %w", ErrForeign)
	}
	return nil
}

// fill brings plain bytes to the matcher if it needs them to go on.
func (a *analysis) fill() error {
	if a.m.full() && a.m.p < a.m.end {
		return nil
	}
	for !a.m.full() {
		n, err := a.plain.Read(a.m.room())
		a.m.grown(n)
		if errors.Is(err, io.EOF) {
			a.m.finish()
		} else if err != nil {
			return err
		}
	}
	return nil
}

// predict returns what the compressor does next; ok is false at the end of the plain
// bytes.
func (a *analysis) predict() (t token, ok bool, err error) {
	for {
		if a.m.done() {
			return 0, false, nil
		}
		if t, ok = a.m.predict(); ok {
			return t, true, nil
		}
		if err := a.fill(); err != nil {
			return 0, false, err
		}
	}
}

func (a *analysis) add(t token) error {
	a.early = a.early || a.fired
	m := &a.m
	if len(a.c.tokens) == maxTokens {
		return fmt.Errorf("deflate: %w: long block", ErrForeign)
	}
	a.fired = a.c.add(t, m.win[m.p:m.p+t.size()], m.place())
	m.commit(t)
	a.tokens++
	a.size += int64(t.size())
	return a.check()
}

// coded follows a block with tokens.
func (a *analysis) coded() error {
	for {
		want, err := a.p.token()
		if err != nil {
			return err
		}
		if want == tokenEnd {
			return nil
		}
		t, ok, err := a.predict()
		if err != nil {
			return err
		}
		if !ok || want.size() > a.m.end-a.m.p {
			return fmt.Errorf("deflate: %w", ErrFormat)
		}
		if t != want {
			a.note.token(want)
		} else {
			a.note.right++
		}
		if err := a.add(want); err != nil {
			return err
		}
	}
}

// stored follows a block of n plain bytes, of which the tokens are not known.
func (a *analysis) stored(n int) error {
	var buf [512]byte
	for left := n; left > 0; {
		k, err := a.p.bytes(buf[:min(left, len(buf))])
		if err != nil {
			return err
		}
		left -= k
	}
	cut := false
	right := a.note.right
	for n > 0 {
		t, ok, err := a.predict()
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("deflate: %w", ErrFormat)
		}
		if t.size() > n {
			t, cut = token(a.m.win[a.m.p]), true
		}
		n -= t.size()
		a.note.right++
		if err := a.add(t); err != nil {
			return err
		}
	}
	a.early = a.early || cut
	if a.explicit() {
		a.note.right = right // a Writer takes no corrections within this block
	}
	return nil
}

// explicit reports whether the block ended elsewhere than the compressor would end it.
func (a *analysis) explicit() bool { return a.early || !a.fired && !a.m.done() }

// endBlock notes what of the block differs from what the compressor would write.
func (a *analysis) endBlock(b block) {
	var f blockFix
	ends := a.c.final(a.m.done(), a.fired && !a.explicit())
	if a.explicit() {
		f.flags, f.count = flagTokens, len(a.c.tokens)
		if b.kind == kindStored {
			f.flags, f.count = flagBytes, b.stored
		}
	}
	if kind := a.c.plan(a.m.block < 0); kind != b.kind {
		f.flags |= flagKind | byte(b.kind)<<kindShift
	}
	if ends != b.final {
		f.flags |= flagFinal
	}
	if b.kind == kindDynamic && (b.bits != a.c.headerBits || !bytes.Equal(b.code, a.c.header.buf)) {
		f.flags |= flagCode
		f.code, f.bits = b.code, b.bits
	}
	if f.flags != 0 {
		a.note.block(f)
	} else {
		a.note.rightB++
	}
	a.c.begin()
	a.m.block = a.m.p
}
