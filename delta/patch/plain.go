package patch

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// How a plain segment's literals are written.
const (
	literalsCoded  = 0 // as the rest
	literalsStream = 1 // as a stream in front: many of them decode faster so
)

// manyLiterals is the part of a segment beyond which literals are a stream.
const manyLiterals = 8

var lightCoders = sync.Pool{New: func() any { return new(lightCoder) }}

// encodePlain encodes w.new, which is what p says, with the covers that reach into it; w.old
// begins at base of the base.
func (w *worker) encodePlain(base int64, cs []cover, p piece) ([]byte, error) {
	var inside []cover
	at, lit := p.lo, w.lit[:0]
	for _, c := range cs {
		if c.n >= p.hi {
			break
		}
		lo, hi := max(c.n, p.lo), min(c.n+c.l, p.hi)
		if lo >= hi {
			continue
		}
		inside = append(inside, cover{lo, c.o + lo - c.n, hi - lo})
		lit = append(lit, w.new[at-p.lo:lo-p.lo]...)
		at = hi
	}
	lit = append(lit, w.new[at-p.lo:]...)
	w.lit = lit
	l := lightCoders.Get().(*lightCoder)
	defer lightCoders.Put(l)
	l.reset(true, nil)
	out := []byte{literalsCoded}
	if len(lit) > (p.hi-p.lo)/manyLiterals {
		out = appendStream([]byte{literalsStream}, lit)
	} else {
		l.num(uint64(len(lit)), numLiterals)
		_ = l.literals(lit) // fails only when decoding
	}
	at = p.lo
	last := int64(0)
	buf := make([]byte, lightRun)
	for _, x := range inside {
		from := base + int64(x.o)
		l.cover(int64(x.n-at), from-last, int64(x.l), 1)
		for k := 0; k < x.l; k += lightRun {
			b := buf[:min(lightRun, x.l-k)]
			if err := w.old.read(b, int64(x.o+k)); err != nil {
				return nil, err
			}
			l.differ(b, w.new[x.n+k-p.lo:], int64(x.n+k))
		}
		at, last = x.n+x.l, from+int64(x.l)
	}
	l.cover(0, 0, 0, 0)
	out = append(out, l.finish()...)
	if len(out) > p.hi-p.lo+payloadSlack {
		l.reset(true, nil)
		l.cover(0, 0, 0, 0)
		out = append(appendStream([]byte{literalsStream}, w.new), l.finish()...)
	}
	return out, nil
}

// streams makes streams, one at a time: its encoder takes 38 MiB. A pool would keep one
// for each processor.
var streams struct {
	sync.Mutex
	encoder *zstd.Encoder // nil until it is wanted
	buf     []byte
}

// dropStreamEncoder gives up the encoder of streams until it is wanted again.
func dropStreamEncoder() {
	streams.Lock()
	streams.encoder, streams.buf = nil, nil
	streams.Unlock()
}

func newStreamEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(MaxSegment), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // options are constants
	}
	return e
}

func appendStream(out, s []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(s)))
	if len(s) == 0 {
		return out
	}
	streams.Lock()
	defer streams.Unlock()
	if streams.encoder == nil {
		streams.encoder = newStreamEncoder()
	}
	z := streams.encoder.EncodeAll(s, streams.buf[:0])
	streams.buf = z
	if len(z) >= len(s) {
		out = binary.AppendUvarint(out, 0)
		return append(out, s...)
	}
	out = binary.AppendUvarint(out, uint64(len(z)))
	return append(out, z...)
}

// plain decodes a plain segment, at offset at of the output, from d.payload and emits it.
func (d *decoder) plain(s segment, at int64) error {
	f := &fields{b: d.payload}
	mode := f.byte()
	l := lightCoders.Get().(*lightCoder)
	defer lightCoders.Put(l)
	switch mode {
	case literalsStream:
		d.lit = d.stream(f, d.lit, s.size)
		l.reset(false, f.b)
	case literalsCoded:
		l.reset(false, f.b)
		n := l.num(0, numLiterals)
		if n > uint64(s.size/manyLiterals) {
			f.fail("%d literals", n)
			break
		}
		d.lit = grow(d.lit, int(n))
		if err := l.literals(d.lit); err != nil {
			return err
		}
	default:
		f.fail("mode %d", mode)
	}
	if f.err != nil {
		return f.err
	}
	if err := d.assemble(l, s, at); err != nil {
		return err
	}
	return d.verified(s)
}

// verified emits d.out if it has the segment's checksum.
func (d *decoder) verified(s segment) error {
	if checksum(d.out) != s.sum {
		return fmt.Errorf("%w: output does not have its checksum", ErrCorrupt)
	}
	d.account.rest()
	return d.emit(d.out)
}

// assemble makes the output in d.out from the literals and what l codes.
func (d *decoder) assemble(l *lightCoder, s segment, at int64) error {
	d.out = grow(d.out, int(s.size))
	out, lit, last := d.out, d.lit, int64(0)
	d.account.plain(l, at, len(lit))
	for {
		gap, step, n, more := l.cover(0, 0, 0, 0)
		if more == 0 {
			break
		}
		from := last + step
		if gap > int64(len(lit)) || n < 1 || n > int64(len(out))-gap || from < 0 || from > d.baseSize-n {
			return fmt.Errorf("%w: cover of %d bytes at %d of the base", ErrCorrupt, n, from)
		}
		d.account.literals(int(gap))
		copy(out, lit[:gap])
		lit, out = lit[gap:], out[gap:]
		at += gap
		if err := d.pages.read(out[:n], from); err != nil {
			return err
		}
		for k := int64(0); k < n; k += lightRun {
			l.differ(out[k:min(k+lightRun, n)], nil, at+k)
		}
		out, at, last = out[n:], at+n, from+n
		d.account.run(n, len(l.buf))
	}
	d.account.literals(len(lit))
	d.account.run(0, len(l.buf))
	if len(lit) != len(out) {
		return fmt.Errorf("%w: literals do not add up", ErrCorrupt)
	}
	if !l.ended() {
		return fmt.Errorf("%w: the input goes on behind the last cover", ErrCorrupt)
	}
	copy(out, lit)
	return nil
}

// stream reads one stream of at most limit bytes.
func (d *decoder) stream(f *fields, buf []byte, limit int64) []byte {
	n := f.size(limit)
	if n == 0 || f.err != nil {
		return buf[:0]
	}
	z := f.size(int64(len(f.b)))
	if z == 0 {
		return append(buf[:0], f.take(n)...)
	}
	out, err := d.z.DecodeAll(f.take(z), grow(buf, int(n))[:0:n])
	if err != nil || int64(len(out)) != n {
		f.fail("stream of %d bytes", n)
		return buf[:0]
	}
	return out
}
