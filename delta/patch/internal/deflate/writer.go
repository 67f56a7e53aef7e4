package deflate

import (
	"errors"
	"io"
)

// Writer makes the stream from its plain bytes. It holds less than 1 MiB beside the
// corrections. Not safe for concurrent use.
type Writer struct {
	out   bitWriter
	m     matcher
	c     composer
	fix   fixes
	block blockFix // of the block that is being made
	fired bool     // the compressor would end the block here
	ended bool     // the final block was written
	err   error
}

// NewWriter returns a Writer to w; ErrCorrupt if p or the corrections are malformed.
// It keeps a reference to corrections.
func NewWriter(w io.Writer, p Params, corrections []byte) (*Writer, error) {
	z := new(Writer)
	return z, z.Reset(w, p, corrections)
}

// Reset makes z write another stream, and keeps its memory.
func (z *Writer) Reset(w io.Writer, p Params, corrections []byte) error {
	if z.err = p.check(); z.err != nil {
		return z.err
	}
	z.out.w, z.out.size, z.out.err = w, 0, nil
	z.out.reset()
	z.m.reset(p)
	z.c.reset(p)
	z.fired, z.ended, z.block = false, false, blockFix{}
	if z.err = z.fix.parse(corrections); z.err == nil {
		z.block, z.err = z.fix.block()
	}
	return z.err
}

// Size returns the bytes written so far; all of the stream after Close.
func (z *Writer) Size() int64 { return z.out.size }

// Write takes plain bytes. ErrCorrupt: the corrections do not go with them.
func (z *Writer) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) && z.err == nil {
		n += z.m.fill(b[n:])
		if z.m.full() {
			z.run()
		}
	}
	return n, z.err
}

// Close writes what is left. It does not close the underlying writer.
func (z *Writer) Close() error {
	if z.err == nil {
		z.m.finish()
		z.run()
	}
	if z.err == nil {
		z.out.align()
		z.err = z.out.flush(true)
	}
	if z.err != nil {
		return z.err
	}
	z.err = errors.New("deflate: write after close")
	return nil
}

// run writes tokens until the window must be filled, or all is written.
func (z *Writer) run() {
	for z.err == nil && !(z.ended && z.m.done()) {
		switch {
		case z.ended:
			z.err = corrupt("final block before the end")
		case z.m.p == z.m.end && !z.m.eof:
			return
		case z.atEnd():
			z.err = z.endBlock()
		case z.m.done():
			z.err = corrupt("block beyond the end")
		case !z.step():
			return
		}
	}
}

// atEnd reports whether the block ends here.
func (z *Writer) atEnd() bool {
	switch {
	case z.block.flags&flagTokens != 0:
		return len(z.c.tokens) == z.block.count
	case z.block.flags&flagBytes != 0:
		return z.c.size == int64(z.block.count)
	}
	return z.fired || z.m.done()
}

// step writes one token; false: the window must be filled first, or z.err is set.
func (z *Writer) step() bool {
	m := &z.m
	t, ok := m.predict()
	if !ok {
		return false
	}
	if z.block.flags&flagBytes != 0 {
		if int64(t.size()) > int64(z.block.count)-z.c.size {
			t = token(m.win[m.p])
		}
	} else if t, z.err = z.fix.token(t, m.win[m.p], m.end-m.p); z.err != nil {
		return false
	}
	if len(z.c.tokens) == maxTokens {
		z.err = corrupt("too many tokens")
		return false
	}
	z.fired = z.c.add(t, m.win[m.p:m.p+t.size()], m.place())
	m.commit(t)
	return true
}

// endBlock writes the block and begins the next.
func (z *Writer) endBlock() error {
	kind := z.c.plan(z.m.block < 0)
	if z.block.flags&flagKind != 0 {
		kind = int(z.block.flags >> kindShift)
	}
	final := z.c.final(z.m.done(), z.fired && z.block.flags&(flagTokens|flagBytes) == 0)
	if z.block.flags&flagFinal != 0 {
		final = !final
	}
	code, bits := z.c.header.buf, z.c.headerBits
	if z.block.flags&flagCode != 0 {
		code, bits = z.block.code, z.block.bits
	}
	if err := z.c.emit(&z.out, kind, final, code, bits); err != nil {
		return corrupt("block cannot be written")
	}
	z.c.begin()
	z.m.block, z.fired, z.ended = z.m.p, false, final
	if err := z.out.flush(false); err != nil || final {
		return err
	}
	var err error
	z.block, err = z.fix.block()
	return err
}
