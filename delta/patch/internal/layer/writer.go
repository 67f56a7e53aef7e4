package layer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/adler32"
	"hash/crc32"
	"io"

	"updraft/delta/patch/internal/deflate"
)

// WriterMemory bounds what a Writer holds where it deflates, in bytes.
const WriterMemory = 1 << 20

// Class is how members are made that have much in common.
type Class struct {
	Wrap   Wrap
	Head   [2]byte // Zlib: what is in front
	Params deflate.Params
}

// Output is a member to be made.
type Output struct {
	Gap         int64 // bytes of the view between the member before and this one
	Plain       int64
	Parse       int64 // bytes of it in the queue; 0 for deflate
	Class       *Class
	Corrections []byte
}

// Writer makes a stream from its view. Not safe for concurrent use.
type Writer struct {
	// Queue takes the parses of frames, which must be there before their plain bytes.
	Queue Queue

	w    io.Writer
	next func() (o Output, ok bool)
	o    Output
	more bool  // o is to be made, or being made
	gap  int64 // bytes in front of it
	left int64 // bytes of it that are to come, once gap is 0
	z    deflate.Writer
	sum  hash.Hash32
	join *joiner // a frame that is being made; nil: none
	err  error
}

// NewWriter returns a Writer to w of the members that next gives, in order.
func NewWriter(w io.Writer, next func() (Output, bool)) *Writer {
	z := &Writer{w: w, next: next}
	z.advance()
	return z
}

func (z *Writer) advance() {
	if z.o, z.more = z.next(); z.more {
		z.gap, z.left = z.o.Gap, z.o.Plain
		if z.gap == 0 {
			z.begin()
		}
	}
}

// Write takes the next bytes of the view. ErrCorrupt: the members do not go with them.
func (z *Writer) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) && z.err == nil {
		p := b[n:]
		switch {
		case !z.more:
			_, z.err = z.w.Write(p)
		case z.gap > 0:
			p = p[:min(int64(len(p)), z.gap)]
			_, z.err = z.w.Write(p)
			if z.gap -= int64(len(p)); z.gap == 0 && z.err == nil {
				z.begin()
			}
		default:
			p = p[:min(int64(len(p)), z.left)]
			z.member(p)
		}
		n += len(p)
	}
	if z.err != nil {
		return 0, z.err
	}
	return n, nil
}

// Close checks that all members are made. It does not close the underlying writer.
func (z *Writer) Close() error {
	if z.err == nil && (z.more || z.Queue.Len() > 0) {
		z.err = fmt.Errorf("%w: view ends early", ErrCorrupt)
	}
	z.Stop()
	return z.err
}

// Stop gives up a member that is not complete; a Writer that is not closed must be stopped.
func (z *Writer) Stop() {
	if z.join != nil {
		z.join.stop()
		z.join = nil
	}
}

// begin begins the member at hand.
func (z *Writer) begin() {
	c := z.o.Class
	if c.Wrap.Parsed() {
		if len(z.o.Corrections) > 0 {
			z.err = fmt.Errorf("%w: a frame with corrections", ErrCorrupt)
			return
		}
		z.Queue.limit(z.o.Parse)
		z.join = newJoiner(c.Wrap, z.w, &z.Queue)
		return
	}
	z.sum = nil
	switch c.Wrap {
	case Zlib:
		z.sum = adler32.New()
		if _, z.err = z.w.Write(c.Head[:]); z.err != nil {
			return
		}
	case Gzip:
		z.sum = crc32.NewIEEE()
	}
	z.fail(z.z.Reset(z.w, c.Params, z.o.Corrections))
}

// fail keeps an error of deflate.
func (z *Writer) fail(err error) {
	if errors.Is(err, deflate.ErrCorrupt) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	z.err = err
}

// frame writes plain bytes of the frame at hand, and ends it after the last.
func (z *Writer) frame(p []byte) {
	z.left -= int64(len(p))
	z.err = z.join.write(p, z.left == 0)
	if z.err != nil || z.left > 0 {
		return
	}
	z.Stop()
	if n := z.Queue.unread(); n > 0 {
		z.err = fmt.Errorf("%w: %d bytes of parse are left", ErrCorrupt, n)
		return
	}
	z.advance()
}

// member writes plain bytes of the member at hand, and ends it after the last.
func (z *Writer) member(p []byte) {
	if z.join != nil {
		z.frame(p)
		return
	}
	if z.sum != nil {
		z.sum.Write(p)
	}
	_, err := z.z.Write(p)
	if z.fail(err); err != nil {
		return
	}
	if z.left -= int64(len(p)); z.left > 0 {
		return
	}
	if z.fail(z.z.Close()); z.err != nil {
		return
	}
	var tail []byte
	switch z.o.Class.Wrap {
	case Zlib:
		tail = binary.BigEndian.AppendUint32(nil, z.sum.Sum32())
	case Gzip:
		tail = binary.LittleEndian.AppendUint32(nil, z.sum.Sum32())
		tail = binary.LittleEndian.AppendUint32(tail, uint32(z.o.Plain))
	}
	if len(tail) > 0 {
		if _, z.err = z.w.Write(tail); z.err != nil {
			return
		}
	}
	z.advance()
}
