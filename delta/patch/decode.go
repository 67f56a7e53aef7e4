package patch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

// DecodeOptions configure Decode. The zero value is usable.
type DecodeOptions struct {
	Scratch string // directory for temporary files; empty: the system's
	Memory  int64  // bound on the decoder's heap in bytes; 0: none but the format's
}

// Info describes a patch.
type Info struct {
	BaseSize, NewSize int64
	BaseSum, NewSum   [32]byte
	Profile           string
	Memory            int64 // bytes that a decoder needs, about
	Work              int64 // bytes that a decoder has to make from differences; dense ones count 16 times
	HeaderBytes       int64 // header, table and index
	Segments          []SegmentInfo
}

// SegmentInfo describes one segment.
type SegmentInfo struct {
	Kind   string // copy, plain or dense
	Offset int64  // of its output
	Size   int64  // bytes of output
	Bytes  int64  // in the patch
}

func (h *header) info(head int64) Info {
	in := Info{BaseSize: h.baseSize, NewSize: h.newSize, BaseSum: h.baseSum, NewSum: h.newSum, Profile: Plain.String(), Memory: 1 << 20, HeaderBytes: head}
	in.HeaderBytes += h.index
	var off int64
	if h.index > 0 {
		in.Profile = Dense.String()
		in.Memory += denseMemory + h.index
	}
	extra := in.Memory
	for _, s := range h.segs {
		si := SegmentInfo{Kind: "copy", Offset: off, Size: s.size, Bytes: s.payload}
		switch s.kind {
		case kindPlain:
			si.Kind = "plain"
			in.Work += s.size
			in.Memory = max(in.Memory, extra+s.size*9/4+s.payload)
		case kindDense:
			si.Kind = "dense"
			in.Work += denseWork * s.size
			in.Memory = max(in.Memory, extra+s.size+s.payload)
		}
		off += s.size
		in.Segments = append(in.Segments, si)
	}
	return in
}

// denseWork is how much more a byte of a dense segment costs than one of a plain one.
const denseWork = 16

// Inspect describes a patch from its header.
func Inspect(p Source) (Info, error) {
	h, head, err := readHeader(p, p.Size())
	if err != nil {
		return Info{}, err
	}
	return h.info(head), nil
}

// copyPiece is how much of a copy segment is in memory at once.
const copyPiece = 256 << 10

// Decode makes the output of patch p from base and writes it to w, in order and
// piece by piece. The patch is read once from front to back, and its ReadAt may
// wait for bytes to arrive. Errors wrap ErrBase when the base is at fault,
// ErrCorrupt when the patch is.
func Decode(ctx context.Context, p, base Source, w io.Writer, o DecodeOptions) (Info, error) {
	h, off, err := readHeader(p, p.Size())
	if err != nil {
		return Info{}, err
	}
	info := h.info(off)
	if base.Size() != h.baseSize {
		return info, fmt.Errorf("%w: it has %d bytes, not %d", ErrBase, base.Size(), h.baseSize)
	}
	if o.Memory > 0 && info.Memory > o.Memory {
		return info, fmt.Errorf("%w: the decoder needs %d bytes of memory, %d are allowed", ErrTooLarge, info.Memory, o.Memory)
	}
	d := &decoder{base: base, baseSize: h.baseSize, w: w, whole: sha256.New()}
	if d.z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true)); err != nil {
		return info, fmt.Errorf("patch: decoder: %w", err)
	}
	defer d.z.Close()
	if h.index > 0 {
		if err := d.readIndex(p, off, h); err != nil {
			return info, err
		}
		off += h.index
	}
	at := int64(0)
	for i, s := range h.segs {
		if err := ctx.Err(); err != nil {
			return info, err
		}
		d.payload = grow(d.payload, int(s.payload))
		if n, err := p.ReadAt(d.payload, off); n < len(d.payload) {
			return info, fmt.Errorf("patch: read segment %d: %w", i, errors.Join(err, ctx.Err()))
		}
		off += s.payload
		switch s.kind {
		case kindCopy:
			err = d.copy(ctx, s)
		case kindPlain:
			err = d.plain(s)
		case kindDense:
			err = d.decodeDense(s, at)
		}
		at += s.size
		if err != nil {
			return info, d.blame(ctx, h, fmt.Errorf("segment %d: %w", i, err))
		}
	}
	if sum := d.whole.Sum(nil); !bytes.Equal(sum, h.newSum[:]) {
		return info, d.blame(ctx, h, fmt.Errorf("%w: output does not have its digest", ErrCorrupt))
	}
	return info, nil
}

type decoder struct {
	base     Source
	baseSize int64
	w        io.Writer
	whole    hash.Hash
	z        *zstd.Decoder

	moves *moves      // the index, if there is one
	dense *denseCoder // nil until the first dense segment

	payload, out           []byte
	ctl, gaps, values, lit []byte // streams of a plain segment
}

// grow returns b with length n.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// blame finds out whether the base is the cause of a wrong output.
func (d *decoder) blame(ctx context.Context, h *header, cause error) error {
	if !errors.Is(cause, ErrCorrupt) {
		return cause
	}
	sum := sha256.New()
	buf := make([]byte, copyPiece)
	for off := int64(0); off < d.baseSize && ctx.Err() == nil; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), d.baseSize-off)]
		if n, err := d.base.ReadAt(b, off); n < len(b) {
			return fmt.Errorf("%w: read: %w", ErrBase, err)
		}
		sum.Write(b)
	}
	if ctx.Err() == nil && !bytes.Equal(sum.Sum(nil), h.baseSum[:]) {
		return fmt.Errorf("%w: its digest differs (%w)", ErrBase, cause)
	}
	return cause
}

func (d *decoder) emit(b []byte) error {
	d.whole.Write(b)
	if _, err := d.w.Write(b); err != nil {
		return fmt.Errorf("patch: write output: %w", err)
	}
	return nil
}

func (d *decoder) readBase(b []byte, off int64) error { return readFull(d.base, b, off) }

// readIndex reads the index at offset off of the patch.
func (d *decoder) readIndex(p Source, off int64, h *header) error {
	b := make([]byte, h.index)
	if n, err := p.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("patch: read index: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	d.moves = new(moves)
	return d.moves.code(newDecoder(b), h.baseSize, h.newSize)
}

// decodeDense decodes a dense segment, at offset at of the output, from d.payload.
func (d *decoder) decodeDense(s segment, at int64) error {
	if d.dense == nil {
		d.dense = newDenseCoder(d.base)
	}
	out, err := d.dense.segment(newDecoder(d.payload), d.moves, at, s.size, nil, grow(d.out, int(s.size)))
	if err != nil {
		return err
	}
	d.out = out
	return d.verified(s)
}

func (d *decoder) copy(ctx context.Context, s segment) error {
	f := &fields{b: d.payload}
	from := f.size(d.baseSize - s.size)
	if f.err == nil && len(f.b) > 0 {
		f.fail("%d bytes after a copy", len(f.b))
	}
	if f.err != nil {
		return f.err
	}
	d.out = grow(d.out, copyPiece)
	for end := from + s.size; from < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := d.out[:min(int64(copyPiece), end-from)]
		if err := d.readBase(b, from); err != nil {
			return err
		}
		if err := d.emit(b); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return nil
}
