package swarm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"updraft/swarm/wire"
)

// What is worth compressing. A blob that the first look takes for noise is not tried; of an object whose blobs did not
// shrink, fewer and fewer are.
const (
	packLeast  = 1 << 10 // a shorter blob is sent as it is
	packGain   = 16      // a frame must save a sixteenth, or the blob is sent as it is
	packSample = 4 << 10 // bytes that are looked at
	packNoise  = 5       // quarters: bytes that meet less than 5/4 as often as in noise are taken for noise
	packSkip   = 64      // most blobs of an object that are not tried after one that did not shrink
	packWindow = 128 << 10
)

// errPacked says that a frame is not the blob that it should be.
var errPacked = errors.New("swarm: compressed blob cannot be decoded")

// codec compresses and decodes blobs, each by one goroutine at a time: it needs about 1 MiB for either, once it is used.
// The zero value is ready.
type codec struct {
	encoder, decoder sync.Once
	z                *zstd.Encoder
	d                *zstd.Decoder
}

func (c *codec) enc() *zstd.Encoder {
	c.encoder.Do(func() {
		var err error
		c.z, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(packWindow), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // the options are constants
		}
	})
	return c.z
}

func (c *codec) dec() *zstd.Decoder {
	c.decoder.Do(func() {
		var err error
		c.d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(wire.MaxBlob), zstd.WithDecoderMaxWindow(wire.MaxBlob), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err) // the options are constants
		}
	})
	return c.d
}

// packing is what sending the blobs of one object has taught. Guarded by Swarm.mu.
type packing struct {
	misses int // blobs in a row that did not shrink
	skip   int // blobs not to be tried
}

// worthLocked reports whether the next blob of the object should be tried.
func (p *packing) worthLocked() bool {
	if p.skip > 0 {
		p.skip--
		return false
	}
	return true
}

// learnLocked notes how a try went.
func (p *packing) learnLocked(shrunk bool) {
	if shrunk {
		p.misses, p.skip = 0, 0
		return
	}
	p.misses++
	p.skip = min(1<<min(p.misses, 16), packSkip)
}

// noise reports whether b looks as if nothing makes it smaller: whether its bytes are spread as evenly as random ones.
// It looks at four places.
func noise(b []byte) bool {
	var count [256]int
	n := 0
	part := min(packSample, len(b)) / 4
	for k := range 4 {
		at := (len(b) - part) / 3 * k
		for _, c := range b[at : at+part] {
			count[c]++
		}
		n += part
	}
	// Pairs of equal bytes: n·(n-1)/256 ordered ones are expected of noise.
	pairs := 0
	for _, c := range count {
		pairs += c * (c - 1)
	}
	return pairs*256*4 < n*(n-1)*packNoise
}

// pack returns the zstd frame of b, or nil when it is not worth it.
func (c *codec) pack(b []byte) *buffer {
	f := newBuffer(len(b))
	out := c.enc().EncodeAll(b, f.b[:0])
	if len(out) > len(b)-len(b)/packGain || &out[:1][0] != &f.b[:1][0] {
		f.release()
		return nil
	}
	f.b = out
	f.plain = len(b)
	return f
}

// unpack returns the n bytes that a frame holds, when their digest is sum.
func (c *codec) unpack(frame []byte, n int, sum [32]byte) (*buffer, error) {
	f := newBuffer(n)
	out, err := c.dec().DecodeAll(frame, f.b[:0:n])
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", errPacked, err)
	case len(out) != n:
		err = fmt.Errorf("%w: %d bytes instead of %d", errPacked, len(out), n)
	case sha256.Sum256(out) != sum:
		err = fmt.Errorf("%w: other bytes", errPacked)
	default:
		return f, nil
	}
	f.release()
	return nil, err
}
