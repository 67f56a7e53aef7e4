package chunk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// window is the number of bytes a gear hash of 64 bits depends on.
const window = 64

// readSize is the size of the reads Split makes.
const readSize = 1 << 20

var (
	// ErrParams reports parameters outside the limits Params states.
	ErrParams = errors.New("chunk: parameters out of range")
	// ErrClosed reports use of a Cutter after Close.
	ErrClosed = errors.New("chunk: cutter is closed")
)

// Params are the sizes, in bytes, that steer the cuts.
// 64 ≤ Min < Normal < Max ≤ MaxLen; Normal is a power of two.
type Params struct {
	Min    int // no chunk but the last is this short or shorter
	Normal int // where the mask becomes easier; about the mean length
	Max    int // a cut is forced here
}

// Default returns the published parameters: 16 KiB, 64 KiB, 256 KiB. They are
// part of the release format: publisher and devices must cut alike.
func Default() Params {
	return Params{Min: 16 << 10, Normal: 64 << 10, Max: 256 << 10}
}

func (p Params) valid() error {
	ok := p.Min >= window && p.Min < p.Normal && p.Normal < p.Max &&
		p.Max <= MaxLen && bits.OnesCount(uint(p.Normal)) == 1
	if !ok {
		return fmt.Errorf("%w: min %d, normal %d, max %d", ErrParams, p.Min, p.Normal, p.Max)
	}
	return nil
}

// masks returns the mask used before Normal bytes and the one used after.
func (p Params) masks() (before, after uint64) {
	n := bits.TrailingZeros(uint(p.Normal))
	return ^uint64(0) << (64 - n - 1), ^uint64(0) << (64 - n + 1)
}

// Chunk names one piece of a stream.
type Chunk struct {
	Sum    [32]byte // sha2-256 of the bytes
	Offset int64    // of the first byte in the stream
	Len    int      // bytes, 1 to MaxLen
}

// gear is the published table; see the package comment.
var gear = makeGear()

func makeGear() *[256]uint64 {
	t := new([256]uint64)
	for i := range t {
		sum := sha256.Sum256(append([]byte("updraft gear 1"), byte(i)))
		t[i] = binary.BigEndian.Uint64(sum[:])
	}
	return t
}

// Cutter cuts what is written to it. It is not safe for concurrent use.
type Cutter struct {
	p             Params
	fn            func(c Chunk, data []byte) error
	before, after uint64
	buf           []byte // start of the current chunk, when it came in an earlier Write
	hash          uint64 // over the bytes of buf from Min-window on
	off           int64  // stream offset of the current chunk
	err           error
}

// NewCutter returns a Cutter that hands every chunk to fn, in stream order. data
// is valid during fn only. An error of fn ends the Cutter and is returned by that
// call and all later ones. Parameters out of range are reported by the first call.
func NewCutter(p Params, fn func(c Chunk, data []byte) error) *Cutter {
	c := &Cutter{p: p, fn: fn, err: p.valid()}
	if c.err == nil {
		c.before, c.after = p.masks()
	}
	return c
}

// Write takes the next bytes of the stream. Chunks that lie wholly in b are
// passed on without a copy.
func (c *Cutter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 && c.err == nil {
		if len(c.buf) > 0 {
			k := c.scan(len(c.buf), b)
			if k < 0 {
				c.buf = append(c.buf, b...)
				return n, nil
			}
			c.buf = append(c.buf, b[:k]...)
			b = b[k:]
			c.emit(c.buf)
			c.buf = c.buf[:0]
			continue
		}
		k := c.scan(0, b)
		if k < 0 {
			if c.buf == nil {
				c.buf = make([]byte, 0, c.p.Max)
			}
			c.buf = append(c.buf, b...)
			return n, nil
		}
		c.emit(b[:k])
		b = b[k:]
	}
	return n - len(b), c.err
}

// Boundary ends the current chunk here. It does nothing at the start of a chunk.
func (c *Cutter) Boundary() error {
	if c.err == nil && len(c.buf) > 0 {
		c.emit(c.buf)
		c.buf = c.buf[:0]
	}
	return c.err
}

// Close ends the last chunk. The Cutter must not be used afterwards.
func (c *Cutter) Close() error {
	err := c.Boundary()
	if err == nil {
		c.err = ErrClosed
	}
	return err
}

// Offset returns how many bytes of the stream have been passed on in chunks.
func (c *Cutter) Offset() int64 { return c.off }

func (c *Cutter) emit(data []byte) {
	ch := Chunk{Sum: sha256.Sum256(data), Offset: c.off, Len: len(data)}
	c.off += int64(len(data))
	c.hash = 0
	c.err = c.fn(ch, data)
}

// scan looks for the end of the current chunk in b, which continues the n bytes
// of the chunk already seen. It returns how many bytes of b belong to the chunk,
// or -1 when the chunk does not end in b.
func (c *Cutter) scan(n int, b []byte) int {
	limit := min(len(b), c.p.Max-n)
	i, h := 0, c.hash
	if warm := c.p.Min - window - n; warm > 0 {
		i = min(warm, limit)
	}
	for end := min(limit, c.p.Min-n); i < end; i++ {
		h = h<<1 + gear[b[i]]
	}
	if end := min(limit, c.p.Normal-n); i < end {
		k, sum := roll(h, c.before, b[i:end])
		if k >= 0 {
			return i + k
		}
		i, h = end, sum
	}
	if i < limit {
		k, sum := roll(h, c.after, b[i:limit])
		if k >= 0 {
			return i + k
		}
		h = sum
	}
	if n+limit == c.p.Max {
		return limit
	}
	c.hash = h
	return -1
}

// roll continues h over b until h&mask is zero; k counts the bytes up to and
// including the one that did it, and is -1 when none did.
func roll(h, mask uint64, b []byte) (k int, sum uint64) {
	g := gear
	for i, v := range b {
		h = h<<1 + g[v]
		if h&mask == 0 {
			return i + 1, h
		}
	}
	return -1, h
}

// Split reads r to its end and hands every chunk to fn, in order; data is valid
// during fn only. It stops at the first error of r, fn or ctx.
func Split(ctx context.Context, r io.Reader, p Params, fn func(c Chunk, data []byte) error) error {
	c := NewCutter(p, fn)
	buf := make([]byte, readSize)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if _, werr := c.Write(buf[:n]); werr != nil {
			return werr
		}
		switch {
		case errors.Is(err, io.EOF):
			return c.Close()
		case err != nil:
			return fmt.Errorf("chunk: read: %w", err)
		}
	}
}
