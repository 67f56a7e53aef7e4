package patch

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// How a plain segment's differences are written.
const (
	diffBytes  = 0 // one byte for each covered byte
	diffSparse = 1 // those that are not zero, and how many zeros stand in front of each
)

// encodePlain encodes new[p.lo:p.hi] with the covers that reach into it:
//
//	mode (1 byte), control (per cover: literals before it (uvarint), base offset
//	minus the end of the cover before (varint), length (uvarint)), gaps (only when
//	sparse), differences, literals;
//	each stream: length (uvarint), compressed length (uvarint; 0: stored), bytes
func encodePlain(old, new []byte, cs []cover, p piece) []byte {
	var ctl, diff, lit []byte
	at, last := p.lo, 0
	for _, c := range cs {
		if c.n >= p.hi {
			break
		}
		lo, hi := max(c.n, p.lo), min(c.n+c.l, p.hi)
		if lo >= hi {
			continue
		}
		from := c.o + lo - c.n
		ctl = binary.AppendUvarint(ctl, uint64(lo-at))
		ctl = binary.AppendVarint(ctl, int64(from-last))
		ctl = binary.AppendUvarint(ctl, uint64(hi-lo))
		lit = append(lit, new[at:lo]...)
		for i := lo; i < hi; i++ {
			diff = append(diff, new[i]-old[from+i-lo])
		}
		at, last = hi, from+hi-lo
	}
	lit = append(lit, new[at:p.hi]...)
	best := appendStreams([]byte{diffBytes}, ctl, diff, lit)
	if gaps, values := sparse(diff); len(gaps)+len(values) <= len(diff) {
		if b := appendStreams([]byte{diffSparse}, ctl, gaps, values, lit); len(b) < len(best) {
			best = b
		}
	}
	if len(ctl) > (p.hi-p.lo)/4 || len(best) > p.hi-p.lo+payloadSlack {
		return appendStreams([]byte{diffBytes}, nil, nil, new[p.lo:p.hi])
	}
	return best
}

// sparse splits differences into those that are not zero and the zeros before each.
func sparse(diff []byte) (gaps, values []byte) {
	last := 0
	for i, x := range diff {
		if x != 0 {
			gaps = binary.AppendUvarint(gaps, uint64(i-last))
			values = append(values, x)
			last = i + 1
		}
	}
	return gaps, values
}

var encoders = sync.Pool{New: func() any {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(MaxSegment), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // options are constants
	}
	return e
}}

func appendStreams(out []byte, streams ...[]byte) []byte {
	for _, s := range streams {
		out = appendStream(out, s)
	}
	return out
}

func appendStream(out, s []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(s)))
	if len(s) == 0 {
		return out
	}
	e := encoders.Get().(*zstd.Encoder)
	z := e.EncodeAll(s, nil)
	encoders.Put(e)
	if len(z) >= len(s) {
		out = binary.AppendUvarint(out, 0)
		return append(out, s...)
	}
	out = binary.AppendUvarint(out, uint64(len(z)))
	return append(out, z...)
}

// plain decodes a plain segment from d.payload and emits it.
func (d *decoder) plain(s segment) error {
	f := &fields{b: d.payload}
	mode := f.byte()
	d.gaps = d.gaps[:0]
	d.ctl = d.stream(f, d.ctl, s.size/4)
	if mode == diffSparse {
		d.gaps = d.stream(f, d.gaps, s.size)
	} else if mode != diffBytes {
		f.fail("mode %d", mode)
	}
	d.values = d.stream(f, d.values, s.size-int64(len(d.gaps)))
	d.lit = d.stream(f, d.lit, s.size-int64(len(d.values)+len(d.gaps)))
	if f.err == nil && len(f.b) > 0 {
		f.fail("%d bytes after the streams", len(f.b))
	}
	if f.err != nil {
		return f.err
	}
	if err := d.assemble(s, mode == diffSparse); err != nil {
		return err
	}
	return d.verified(s)
}

// verified emits d.out if it has the segment's digest.
func (d *decoder) verified(s segment) error {
	if sum := sha256.Sum256(d.out); !bytes.Equal(sum[:sumLen], s.sum[:]) {
		return fmt.Errorf("%w: output does not have its digest", ErrCorrupt)
	}
	return d.emit(d.out)
}

// assemble makes the output in d.out from the streams.
func (d *decoder) assemble(s segment, sparse bool) error {
	d.out = grow(d.out, int(s.size))
	out, lit := d.out, d.lit
	c := &fields{b: d.ctl}
	add := adder{values: d.values, gaps: fields{b: d.gaps}, sparse: sparse}
	if sparse {
		add.advance()
	}
	last := int64(0)
	for len(c.b) > 0 {
		n := c.size(int64(len(lit)))
		from := last + c.signed()
		l := c.size(int64(len(out)) - n)
		if c.err != nil {
			return c.err
		}
		if from < 0 || from > d.baseSize-l || int64(len(out)) < n+l {
			return fmt.Errorf("%w: cover of %d bytes at %d of the base", ErrCorrupt, l, from)
		}
		copy(out, lit[:n])
		lit, out = lit[n:], out[n:]
		if err := d.readBase(out[:l], from); err != nil {
			return err
		}
		if !add.to(out[:l]) {
			return fmt.Errorf("%w: differences do not add up", ErrCorrupt)
		}
		out = out[l:]
		last = from + l
	}
	if len(lit) != len(out) || len(add.values) != 0 || len(add.gaps.b) != 0 || add.gaps.err != nil {
		return fmt.Errorf("%w: streams do not add up", ErrCorrupt)
	}
	copy(out, lit)
	return nil
}

// adder adds differences to what covers give.
type adder struct {
	values []byte
	gaps   fields
	sparse bool
	zeros  int64 // sparse: before the next value
}

// advance reads how many zeros stand in front of the next value.
func (a *adder) advance() {
	if len(a.values) > 0 {
		a.zeros = a.gaps.size(MaxSegment)
	}
}

// to adds the next differences to b and reports whether there were enough.
func (a *adder) to(b []byte) bool {
	if !a.sparse {
		if len(a.values) < len(b) {
			return false
		}
		for i, x := range a.values[:len(b)] {
			b[i] += x
		}
		a.values = a.values[len(b):]
		return true
	}
	for len(a.values) > 0 && a.zeros < int64(len(b)) && a.gaps.err == nil {
		b[a.zeros] += a.values[0]
		b = b[a.zeros+1:]
		a.values = a.values[1:]
		a.advance()
	}
	a.zeros -= int64(len(b))
	return a.gaps.err == nil
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
