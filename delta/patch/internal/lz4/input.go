package lz4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// input reads a part of a source, block by block: within a block it ends where the
// block does.
type input struct {
	src      io.ReaderAt
	off, end int64 // what of src is not in buf yet
	buf      [inputSize]byte
	r, w, f  int    // buf[r:w] is the block's, buf[w:f] lies behind it
	lim      int64  // bytes of the block behind buf[:f]
	sum      *xxh32 // takes the bytes of the block, unless it is nil
	mark     int    // buf[:mark] is in sum
}

func (in *input) reset(src io.ReaderAt, off, end int64) {
	in.src, in.off, in.end = src, off, end
	in.r, in.w, in.f, in.lim = 0, 0, 0, 0
	in.sum, in.mark = nil, 0
}

// pos is where in the source the next byte is.
func (in *input) pos() int64 { return in.off - int64(in.f-in.r) }

// rest is how many bytes of the source follow.
func (in *input) rest() int64 { return in.end - in.pos() }

// left is how many bytes of the block follow.
func (in *input) left() int64 { return int64(in.w-in.r) + in.lim }

// open begins a block of n bytes, which the source has; sum takes them.
func (in *input) open(n int64, sum *xxh32) {
	k := min(n, int64(in.f-in.r))
	in.w, in.lim = in.r+int(k), n-k
	in.sum, in.mark = sum, in.r
}

// close ends the block, the last byte of which was read.
func (in *input) close() {
	in.hash()
	in.sum = nil
}

func (in *input) hash() {
	if in.sum != nil {
		in.sum.write(in.buf[in.mark:in.r])
	}
	in.mark = in.r
}

// fill makes in.r < in.w, or fails at the end of the block.
func (in *input) fill() error {
	if in.r < in.w {
		return nil
	}
	if in.lim == 0 {
		return fmt.Errorf("%w: block ends early", ErrFormat)
	}
	in.hash()
	// All of buf[:f] was read: what lies behind the block is there only if lim is 0.
	n := min(int64(len(in.buf)), in.end-in.off)
	k, err := in.src.ReadAt(in.buf[:n], in.off)
	if int64(k) < n {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: source ends early", ErrFormat)
		}
		return err
	}
	in.off += n
	in.r, in.mark, in.f = 0, 0, int(n)
	in.w = int(min(n, in.lim))
	in.lim -= int64(in.w)
	return nil
}

func (in *input) byte() (byte, error) {
	if in.r >= in.w {
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	b := in.buf[in.r]
	in.r++
	return b, nil
}

// fixed reads a little-endian number of n bytes that is outside of blocks.
func (in *input) fixed(n int) (uint64, error) {
	if in.rest() < int64(n) {
		return 0, fmt.Errorf("%w: ends early", ErrFormat)
	}
	in.open(int64(n), nil)
	var b [8]byte
	if err := in.read(b[:n]); err != nil {
		return 0, err
	}
	in.close()
	return binary.LittleEndian.Uint64(b[:]), nil
}

// read fills b from the block.
func (in *input) read(b []byte) error {
	for len(b) > 0 {
		if err := in.fill(); err != nil {
			return err
		}
		k := copy(b, in.buf[in.r:in.w])
		in.r += k
		b = b[k:]
	}
	return nil
}

// skip passes n bytes of the block.
func (in *input) skip(n int64) error {
	for n > 0 {
		if err := in.fill(); err != nil {
			return err
		}
		k := min(n, int64(in.w-in.r))
		in.r += int(k)
		n -= k
	}
	return nil
}

// length reads what a length v of a token is extended by; the result is at most most.
func (in *input) length(v, most uint32) (uint32, error) {
	if v != 15 {
		return v, nil
	}
	for {
		b, err := in.byte()
		if err != nil {
			return 0, err
		}
		v += uint32(b)
		if v > most {
			return 0, fmt.Errorf("%w: run of more than %d", ErrFormat, most)
		}
		if b != 255 {
			return v, nil
		}
	}
}
