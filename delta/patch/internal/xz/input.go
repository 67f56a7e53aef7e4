package xz

import (
	"errors"
	"fmt"
	"io"
)

// slack is how many bytes the range decoder may read beyond a chunk before this is
// noticed: more than one symbol takes.
const slack = 64

// input is a window over a part of a source.
type input struct {
	src      io.ReaderAt
	off, end int64 // what of src is not in buf yet
	buf      [2*chunkPacked + slack]byte
	r, w     int // buf[r:w] was read from src, and not used yet
}

func (in *input) reset(src io.ReaderAt, off, end int64) {
	in.src, in.off, in.end = src, off, max(off, end)
	in.r, in.w = 0, 0
}

// pos is where in the source the next byte is.
func (in *input) pos() int64 { return in.off - int64(in.w-in.r) }

// take returns the next n bytes, at most chunkPacked, valid until the next call.
func (in *input) take(n int) ([]byte, error) {
	if in.w-in.r < n {
		if err := in.fill(n); err != nil {
			return nil, err
		}
	}
	b := in.buf[in.r : in.r+n]
	in.r += n
	return b, nil
}

func (in *input) fill(n int) error {
	if int64(n) > in.end-in.pos() {
		return fmt.Errorf("%w: ends early", ErrFormat)
	}
	in.w = copy(in.buf[:], in.buf[in.r:in.w])
	in.r = 0
	k := int(min(int64(len(in.buf)-slack-in.w), in.end-in.off))
	got, err := in.src.ReadAt(in.buf[in.w:in.w+k], in.off)
	if got < k {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: source ends early", ErrFormat)
		}
		return err
	}
	in.w += k
	in.off += int64(k)
	return nil
}
