package patch

import (
	"errors"
	"fmt"
	"io"
)

// windowSize is how much of a stream is in memory while it is passed through.
const windowSize = 4 << 20

// window is the part of a stream that is in memory: it moves from front to back. What
// it says depends on the stream alone, not on who reads when.
type window struct {
	src  Source
	size int // of the stream
	buf  []byte
	lo   int // where buf begins in the stream
}

func newWindow(src Source) *window {
	n := src.Size()
	return &window{src: src, size: int(n), buf: make([]byte, 0, min(n, windowSize))}
}

// hi returns where the part in memory ends.
func (w *window) hi() int { return w.lo + len(w.buf) }

// move drops what is in front of keep, which is at most hi, and reads on.
func (w *window) move(keep int) error {
	n := copy(w.buf, w.buf[keep-w.lo:])
	w.lo = keep
	w.buf = w.buf[:min(cap(w.buf), w.size-w.lo)]
	if err := readWhole(w.src, w.buf[n:], int64(w.lo+n)); err != nil {
		w.buf = w.buf[:n]
		return err
	}
	return nil
}

// from returns what is in memory of the stream from off on, which is not in front of
// any off before: at least one byte, unless the stream ends there.
func (w *window) from(off int) ([]byte, error) {
	if off >= w.hi() && off < w.size {
		w.lo, w.buf = off, w.buf[:0]
		if err := w.move(off); err != nil {
			return nil, err
		}
	}
	return w.buf[off-w.lo:], nil
}

// readWhole reads all of b; a stream that ends within is an error.
func readWhole(s io.ReaderAt, b []byte, off int64) error {
	if n, err := s.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("patch: read: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}
