package patch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"updraft/delta/patch/internal/layer"
)

// DecodeOptions configure Decode. The zero value is usable.
type DecodeOptions struct {
	Scratch string // directory for temporary files; empty: the system's
	Memory  int64  // bound on the decoder's heap in bytes; 0: none but the format's
	File    int64  // bound on the temporary file in bytes; 0: none
	// Account is told what runs of the output take of the patch, in their order: what
	// segments have, all together. It may be nil.
	Account func(Cost)
}

// Info describes a patch.
type Info struct {
	BaseSize, NewSize int64
	BaseSum, NewSum   [32]byte
	Profile           string
	Memory            int64 // bytes that a decoder needs, about
	File              int64 // bytes that it may write to a temporary file
	Work              int64 // bytes that a decoder has to make from differences, and to unpack and pack: each of the base once; dense ones count 16 times, packed ones 8 times
	HeaderBytes       int64 // header, table, recipe and index
	RecipeBytes       int64 // of these, of the recipe; 0: nothing is seen through compression
	IndexBytes        int64 // and of the index of dense segments
	Packed            int   // compressed streams that a decoder has to make
	Segments          []SegmentInfo
}

// SegmentInfo describes one segment.
type SegmentInfo struct {
	Kind   string // copy, plain or dense
	Offset int64  // of its output; with a recipe, in the view of the output
	Parse  bool   // how frames are packed, not what is in them
	Shared bool   // not of the output, but what that has several times; Offset is behind the view's end
	Size   int64  // bytes of output
	Bytes  int64  // in the patch
}

// info describes a patch; r is its recipe, or nil.
func (h *header) info(head int64, r *recipe) Info {
	in := Info{BaseSize: h.baseSize, NewSize: h.newSize, BaseSum: h.baseSum, NewSum: h.newSum, Profile: Plain.String(), Memory: 1 << 20, HeaderBytes: head}
	in.HeaderBytes += h.recipe + h.index
	in.RecipeBytes, in.IndexBytes = h.recipe, h.index
	if r != nil {
		n := r.needs()
		in.Memory += n.Memory
		in.File = n.File
		in.Work += r.work()
		for i := range r.layers {
			in.Packed += r.layers[i].outputs
		}
	}
	if h.index > 0 {
		in.Profile = Dense.String()
		in.Memory += denseMemory + h.index
	}
	if h.wide() {
		in.Memory += wideMemory
	}
	if h.appendix > 0 {
		in.Memory += layer.SpoolMemory
	}
	if h.appendix >= layer.SpoolMemory {
		in.File += h.appendix
	}
	in.Memory += tableMemory(len(h.segs))
	extra := in.Memory
	in.Segments = make([]SegmentInfo, 0, len(h.segs))
	for _, s := range h.segs {
		si := SegmentInfo{Kind: "copy", Offset: s.at, Parse: ofParse(s.region), Shared: s.region == regionAppendix, Size: s.size, Bytes: s.payload}
		switch s.kind {
		case kindPlain:
			si.Kind = "plain"
			in.Work += s.size
			in.Memory = max(in.Memory, extra+s.size*2+s.payload+plainMemory)
		case kindDense, kindRows, kindWide:
			si.Kind = "dense"
			in.Work += denseWork * s.size
			in.Memory = max(in.Memory, extra+s.size+s.payload)
		}
		in.Segments = append(in.Segments, si)
	}
	if r != nil {
		in.Memory = max(in.Memory, 1<<20+r.needs().Once)
	}
	return in
}

// tableMemory returns what a table of n segments takes beyond half of the first MiB.
func tableMemory(n int) int64 { return max(0, segmentMemory*int64(n)-512<<10) }

// segmentMemory is what a segment takes in tables.
const segmentMemory = 100

// denseWork is how much more a byte of a dense segment costs than one of a plain one.
const denseWork = 16

// Inspect describes a patch from what is in front of its segments.
func Inspect(p Source) (Info, error) {
	o, err := openPatch(p)
	if err != nil {
		return Info{}, err
	}
	defer o.z.Close()
	return o.info, nil
}

// opened is a patch of which everything in front of the index is read.
type opened struct {
	*header
	recipe *recipe // nil: none
	info   Info
	off    int64 // of what follows
	z      *zstd.Decoder
}

func openPatch(p Source) (*opened, error) {
	h, off, err := readHeader(p, p.Size())
	if err != nil {
		return nil, err
	}
	o := &opened{header: h, off: off}
	if o.z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true)); err != nil {
		return nil, fmt.Errorf("patch: decoder: %w", err)
	}
	if h.recipe > 0 {
		if o.recipe, err = readRecipe(p, off, h.recipe, o.z); err != nil {
			o.z.Close()
			return nil, err
		}
	}
	if err := h.place(o.recipe); err != nil {
		o.z.Close()
		return nil, err
	}
	o.info = h.info(off, o.recipe)
	if o.recipe != nil && o.info.Memory-tableMemory(len(h.segs)) > maxMemory {
		o.z.Close()
		return nil, fmt.Errorf("%w: a decoder would need %d bytes", ErrCorrupt, o.info.Memory)
	}
	o.off += h.recipe
	return o, nil
}

// readPatch reads all of b, which is a part of a patch.
func readPatch(p io.ReaderAt, b []byte, off int64, part string) error {
	if n, err := p.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("patch: read %s: %w", part, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// copyPiece is how much of a copy segment is in memory at once.
const copyPiece = 256 << 10

// Decode makes the output of patch p from base and writes it to w, in order and
// piece by piece. The patch is read once from front to back, and its ReadAt may
// wait for bytes to arrive. Errors wrap ErrBase when the base is at fault,
// ErrCorrupt when the patch is, ErrFile when the disk is.
func Decode(ctx context.Context, p, base Source, w io.Writer, o DecodeOptions) (Info, error) {
	h, err := openPatch(p)
	if err != nil {
		return Info{}, err
	}
	defer h.z.Close()
	if base.Size() != h.baseSize {
		return h.info, fmt.Errorf("%w: it has %d bytes, not %d", ErrBase, base.Size(), h.baseSize)
	}
	if o.Memory > 0 && h.info.Memory > o.Memory {
		return h.info, fmt.Errorf("%w: the decoder needs %d bytes of memory, %d are allowed", ErrTooLarge, h.info.Memory, o.Memory)
	}
	if o.File > 0 && h.info.File > o.File {
		return h.info, fmt.Errorf("%w: the decoder needs one of %d bytes, there is room for %d: %w", ErrFile, h.info.File, o.File, syscall.ENOSPC)
	}
	out := &sink{w: w, whole: sha256.New(), left: h.newSize}
	d := &decoder{base: base, whole: out, z: h.z}
	d.account = newAccount(o.Account, h.header, out)
	if h.recipe == nil {
		err = d.decode(ctx, p, h, o.Scratch)
	} else {
		memory := int64(maxMemory)
		if o.Memory > 0 {
			memory = min(memory, o.Memory)
		}
		err = d.seen(ctx, p, h, spareOf(memory, h.info.Memory), o.Scratch)
	}
	if err != nil && ctx.Err() != nil {
		return h.info, ctx.Err()
	}
	if err == nil && (out.left != 0 || !bytes.Equal(out.whole.Sum(nil), h.newSum[:])) {
		err = fmt.Errorf("%w: output does not have its digest", ErrCorrupt)
	}
	if errors.Is(err, layer.ErrCorrupt) && !errors.Is(err, layer.ErrFile) {
		err = fmt.Errorf("%w: %s", ErrCorrupt, err.Error())
	}
	if errors.Is(err, errReadBase) {
		err = fmt.Errorf("%w: %w", ErrBase, err)
	}
	if err != nil {
		return h.info, blame(ctx, h.header, base, err)
	}
	d.account.settle(true)
	return h.info, nil
}

// spareOf returns what a decoder that takes so many bytes may take besides to have less to do: not all that it has,
// since what it takes is said of it only about.
func spareOf(most, takes int64) int64 { return most - takes - 4<<20 }

// seen makes what the segments say of views, which may take spare bytes of memory more than they must.
func (d *decoder) seen(ctx context.Context, p Source, h *opened, spare int64, scratch string) error {
	budget := unpackMost*h.info.Work + 2*unpackFree
	view, end, err := h.recipe.view(ctx, d.base, spare, &budget, scratch)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && !errors.Is(err, layer.ErrCorrupt) && !errors.Is(err, layer.ErrFile):
		return fmt.Errorf("%w: %w", errReadBase, err)
	case err != nil:
		return err
	}
	defer end()
	if view.Size() != h.baseView {
		return fmt.Errorf("%w: view of %d bytes, not %d", ErrCorrupt, view.Size(), h.baseView)
	}
	d.base = view
	d.packer = h.recipe.packer(d.whole)
	defer d.packer.stop()
	if err := d.decode(ctx, p, h, scratch); err != nil {
		return err
	}
	return d.packer.end()
}

// decode makes what the segments say.
func (d *decoder) decode(ctx context.Context, p Source, h *opened, scratch string) error {
	if h.appendix > 0 {
		d.appendix = layer.NewSpool(scratch)
		defer d.appendix.Close()
		d.base = &joint{d.base, d.appendix}
	}
	d.pages = pages{src: d.base}
	off := h.off
	if h.index > 0 {
		if err := d.readIndex(p, off, h.header); err != nil {
			return err
		}
		off += h.index
	}
	d.room(h.segs)
	for i, s := range h.segs {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.enter(s.region, h.base(s.region))
		d.payload = grow(d.payload, int(s.payload))
		if n, err := p.ReadAt(d.payload, off); n < len(d.payload) {
			return fmt.Errorf("patch: read segment %d: %w", i, errors.Join(err, ctx.Err()))
		}
		off += s.payload
		d.account.begin(int(s.payload), s.region)
		var err error
		switch s.kind {
		case kindCopy:
			err = d.copy(ctx, s)
		case kindPlain:
			err = d.plain(s, s.at)
		case kindDense, kindRows, kindWide:
			err = d.decodeDense(s, h.header)
		}
		if err != nil {
			return fmt.Errorf("segment %d: %w", i, err)
		}
	}
	return nil
}

// enter makes d ready for segments of the region, which are made from so many bytes.
func (d *decoder) enter(region byte, from int64) {
	switch d.w = d.whole; {
	case region == regionAppendix:
		d.w = d.appendix
	case d.packer != nil:
		d.w = d.packer.region(region)
	}
	if d.baseSize != from {
		d.baseSize = from
		d.pages.resize(from)
	}
}

// room makes the buffers as large as any of segs wants them, at once: each time that they
// grow they might make the garbage collector run.
func (d *decoder) room(segs []segment) {
	out, payload := int64(0), int64(0)
	for _, s := range segs {
		if s.kind != kindCopy {
			out, payload = max(out, s.size), max(payload, s.payload)
		}
	}
	d.out, d.payload = grow(d.out, int(out)), grow(d.payload, int(payload))
}

// sink is where the output goes.
type sink struct {
	w     io.Writer
	whole hash.Hash
	left  int64 // bytes that are to come
}

func (s *sink) Write(b []byte) (int, error) {
	if int64(len(b)) > s.left {
		return 0, fmt.Errorf("%w: output is too long", ErrCorrupt)
	}
	s.left -= int64(len(b))
	s.whole.Write(b)
	if _, err := s.w.Write(b); err != nil {
		return 0, fmt.Errorf("patch: write output: %w", err)
	}
	return len(b), nil
}

type decoder struct {
	base     Source // or its view, and behind that the appendix
	pages    pages  // of base
	baseSize int64  // of what the segment is made from
	w        io.Writer
	whole    io.Writer    // for the output
	packer   packer       // for its view; nil: without a recipe
	appendix *layer.Spool // nil: there is none
	z        *zstd.Decoder

	moves *moves      // the index, if there is one
	dense *denseCoder // nil until the first dense segment

	payload, out, lit []byte

	account *account
}

// grow returns b with length n.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// blame finds out whether the base is the cause of a wrong output.
func blame(ctx context.Context, h *header, base Source, cause error) error {
	if !errors.Is(cause, ErrCorrupt) || errors.Is(cause, ErrBase) {
		return cause
	}
	sum := sha256.New()
	buf := make([]byte, copyPiece)
	for off := int64(0); off < h.baseSize && ctx.Err() == nil; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), h.baseSize-off)]
		if n, err := base.ReadAt(b, off); n < len(b) {
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
	if d.account != nil {
		return d.account.emit(d.w, b)
	}
	_, err := d.w.Write(b)
	return err
}

// readIndex reads the index at offset off of the patch.
func (d *decoder) readIndex(p Source, off int64, h *header) error {
	b := make([]byte, h.index)
	if err := readPatch(p, b, off, "index"); err != nil {
		return err
	}
	d.moves = new(moves)
	return d.moves.code(newDecoder(b), h.baseView, h.newView, h.appendix)
}

// decodeDense decodes a dense segment from d.payload.
func (d *decoder) decodeDense(s segment, h *header) error {
	if d.dense == nil {
		d.dense = newDenseCoder(d.base, h.baseView, h.wide())
		d.dense.account = d.account
	}
	d.dense.enter(s.kind, d.baseSize, h.parses)
	out, err := d.dense.segment(newDecoder(d.payload), d.moves, s.at, s.size, nil, grow(d.out, int(s.size)))
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
	d.account.upTo(Copies, int(min(copyPiece, s.size)), len(d.payload))
	for end := from + s.size; from < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := d.out[:min(int64(copyPiece), end-from)]
		if err := d.pages.read(b, from); err != nil {
			return err
		}
		if err := d.emit(b); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return nil
}
