package patch

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"updraft/delta/patch/internal/layer"
)

const (
	magic   = "UDPATCH1"
	sumLen  = 4  // bytes of a segment's checksum
	headLen = 20 // bytes in front of the table: magic, length, digest
	maxSegs = 1 << 16
	// MaxSize is the largest output and base, in bytes.
	MaxSize = int64(1) << 40
	// MaxSegment is the largest output of a plain segment, in bytes.
	MaxSegment = 4 << 20
	// maxDense is the largest base and output for dense segments, in bytes.
	maxDense = 1<<32 - 1
	// maxParse is the largest output of a segment with a parse, in bytes.
	maxParse = 512 << 10
	// payloadSlack is how much longer than its output a segment's payload may be:
	// literals that do not compress are stored.
	payloadSlack = 64
	// maxHeader bounds the table.
	maxHeader = 128 + maxSegs*(1+10+10+sumLen)
)

// Kinds of segments.
const (
	kindCopy  = 1
	kindPlain = 2
	kindDense = 3
	kindRows  = 4 // dense, of a parse
	kindWide  = 5 // dense, of many literals
)

// regionAppendix is the region of what the output has several times: it comes first, is not written, and is behind
// the base for all that follows.
const regionAppendix = 3

var (
	// ErrCorrupt reports bytes that are not a patch, or a patch that does not give
	// the output it names.
	ErrCorrupt = errors.New("patch: corrupt")
	// ErrVersion reports a patch of a later format.
	ErrVersion = errors.New("patch: format is newer than this program")
	// ErrBase reports a base that is not the one the patch was made from.
	ErrBase = errors.New("patch: base is not the one this patch was made from")
	// ErrFile reports a temporary file of the decoder that could not be written or read,
	// or for which there is no room: nothing is wrong with the patch or the base.
	ErrFile = layer.ErrFile
	// ErrTooLarge reports sizes above the limits.
	ErrTooLarge = errors.New("patch: too large")
)

// segment is a row of the table.
type segment struct {
	kind    byte
	region  byte  // of the view: 0, or 1 and 2 with the parses of a layer; or regionAppendix
	at      int64 // where the output is, or in its view, behind which the appendix is; not in the patch
	size    int64 // bytes of output
	payload int64 // bytes in the patch
	sum     [sumLen]byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum tells a segment made from a wrong base, or wrongly, before it is written. It
// costs next to nothing beside the digest of the whole output, which is what counts.
func checksum(b []byte) (sum [sumLen]byte) {
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum(b, castagnoli))
	return sum
}

// header is what stands in front of the payloads.
type header struct {
	baseSize, newSize int64
	baseSum, newSum   [32]byte
	recipe            int64 // bytes of the recipe, in front of the index; 0: none
	baseView, newView int64 // sizes of what the recipe makes of base and output; without one the same
	index             int64 // bytes of the index of dense segments
	segs              []segment
	parses            int64 // where in the view of the output they begin; not in the patch
	appendix          int64 // bytes of it; not in the patch
}

// base returns how many bytes of the base's view, and the appendix, segments of the region are made from.
func (h *header) base(region byte) int64 {
	if region == regionAppendix {
		return h.baseView
	}
	return h.baseView + h.appendix
}

// wide reports whether there are segments of kindWide.
func (h *header) wide() bool {
	return slices.ContainsFunc(h.segs, func(s segment) bool { return s.kind == kindWide })
}

// append encodes the header:
//
//	magic 8 bytes; length of what follows (uint32, little endian); the first 8
//	bytes of its sha2-256;
//	base size, new size (uvarint); base digest, new digest (32 bytes each);
//	length of the recipe (uvarint; 0: none), and if there is one, sizes of the
//	views of base and new (uvarint);
//	length of the index (uvarint; 0: none);
//	number of segments (uvarint), and for each:
//	kind | region << 4 (1 byte), size, payload (uvarint), checksum (4 bytes; not for copy)
func (h *header) append(b []byte) []byte {
	var t []byte
	t = put(put(t, h.baseSize), h.newSize)
	t = append(t, h.baseSum[:]...)
	t = append(t, h.newSum[:]...)
	t = put(t, h.recipe)
	if h.recipe > 0 {
		t = put(put(t, h.baseView), h.newView)
	}
	t = put(put(t, h.index), int64(len(h.segs)))
	for _, s := range h.segs {
		t = append(t, s.kind|s.region<<4)
		t = put(put(t, s.size), s.payload)
		if s.kind != kindCopy {
			t = append(t, s.sum[:]...)
		}
	}
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t)))
	sum := sha256.Sum256(t)
	b = append(b, sum[:8]...)
	return append(b, t...)
}

// put appends v as a uvarint. In each of its places it would be hundreds of bytes of the program.
//
//go:noinline
func put(b []byte, v int64) []byte { return binary.AppendUvarint(b, uint64(v)) }

// readHeader reads and checks the header of a patch of size bytes, and returns
// where the payloads begin.
func readHeader(r io.ReaderAt, size int64) (*header, int64, error) {
	var fixed [headLen]byte
	if size < int64(len(fixed)) {
		return nil, 0, fmt.Errorf("%w: %d bytes", ErrCorrupt, size)
	}
	if n, err := r.ReadAt(fixed[:], 0); n < len(fixed) {
		return nil, 0, fmt.Errorf("patch: read header: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	if !bytes.Equal(fixed[:7], []byte(magic[:7])) {
		return nil, 0, fmt.Errorf("%w: not a patch", ErrCorrupt)
	}
	if fixed[7] != magic[7] {
		return nil, 0, fmt.Errorf("%w: %q", ErrVersion, fixed[:8])
	}
	n := int64(binary.LittleEndian.Uint32(fixed[8:]))
	if n > maxHeader || n > size-headLen {
		return nil, 0, fmt.Errorf("%w: header of %d bytes", ErrCorrupt, n)
	}
	b := make([]byte, n)
	if got, err := r.ReadAt(b, headLen); got < len(b) {
		return nil, 0, fmt.Errorf("patch: read header: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:8], fixed[12:]) {
		return nil, 0, fmt.Errorf("%w: header does not have its digest", ErrCorrupt)
	}
	h, err := parseHeader(b, size-headLen-n)
	return h, headLen + n, err
}

func parseHeader(b []byte, payloads int64) (*header, error) {
	d := &fields{b: b}
	h := &header{baseSize: d.size(MaxSize), newSize: d.size(MaxSize)}
	d.bytes(h.baseSum[:])
	d.bytes(h.newSum[:])
	h.baseView, h.newView = h.baseSize, h.newSize
	longest := int64(MaxSegment)
	if h.recipe = d.size(min(maxRecipe+payloadSlack, payloads)); h.recipe > 0 {
		h.baseView, h.newView = d.size(MaxSize), d.size(MaxSize)
		longest = maxSeen
	}
	payloads -= h.recipe
	h.index = d.size(min(maxIndex, payloads))
	n := d.size(min(maxSegs, int64(len(b))))
	if d.err != nil {
		return nil, d.err
	}
	h.segs = make([]segment, n)
	payloads -= h.index
	var out int64
	for i := range h.segs {
		s := &h.segs[i]
		s.kind = d.byte()
		s.kind, s.region = s.kind&15, s.kind>>4
		if s.region > regionAppendix {
			d.fail("segment of region %d", s.region)
		}
		if s.region == regionAppendix {
			s.size = d.size(h.newView - h.appendix)
			h.appendix += s.size
			if out > 0 {
				d.fail("appendix behind what comes of it")
			}
		} else {
			s.size = d.size(h.newView - out)
			out += s.size
		}
		s.payload = d.size(payloads)
		limit := h.newView
		switch s.kind {
		case kindCopy:
			limit = min(limit, h.base(s.region))
		case kindPlain, kindDense, kindRows, kindWide:
			d.bytes(s.sum[:])
			limit = longest
			if s.kind != kindPlain && h.index == 0 {
				d.fail("dense segment without an index")
			}
		default:
			d.fail("segment of kind %d", s.kind)
		}
		if s.kind == kindRows && !ofParse(s.region) {
			d.fail("rows of no parse")
		}
		if ofParse(s.region) {
			limit = min(limit, maxParse)
			if h.recipe == 0 {
				d.fail("segment of region %d", s.region)
			}
		}
		if d.err == nil && (s.size < 1 || s.size > limit || s.payload > s.size+payloadSlack || s.kind == kindCopy && s.payload > 10) {
			d.fail("segment of %d bytes from %d", s.size, s.payload)
		}
		if d.err != nil {
			return nil, d.err
		}
		payloads -= s.payload
	}
	if h.index > 0 && max(h.baseView, h.newView)+h.appendix > maxDense {
		return nil, fmt.Errorf("%w: index of streams that are too large", ErrCorrupt)
	}
	if out != h.newView || payloads != 0 || len(d.b) != 0 {
		return nil, fmt.Errorf("%w: segments do not add up", ErrCorrupt)
	}
	return h, nil
}

// ofParse reports whether a region has parses.
func ofParse(region byte) bool { return 1 <= region && region <= maxLayers }

// place finds out where segments go: those of each region follow one another.
func (h *header) place(r *recipe) error {
	ends := [regionAppendix + 1]int64{h.newView, h.newView, h.newView, h.newView + h.appendix}
	if r != nil {
		of := r.regions(h.newView)
		copy(ends[:], of[:])
	}
	if ends[0] < 0 {
		return fmt.Errorf("%w: parses are longer than the view", ErrCorrupt)
	}
	var at [regionAppendix + 1]int64
	copy(at[1:], ends[:])
	h.parses = ends[0]
	for i := range h.segs {
		s := &h.segs[i]
		s.at = at[s.region]
		if at[s.region] += s.size; at[s.region] > ends[s.region] {
			return fmt.Errorf("%w: region %d is too long", ErrCorrupt, s.region)
		}
	}
	if at != ends {
		return fmt.Errorf("%w: regions do not add up", ErrCorrupt)
	}
	return nil
}

// fields reads bounded fields and keeps the first error.
type fields struct {
	b   []byte
	err error
}

func (d *fields) fail(format string, a ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, a...)...)
		d.b = nil
	}
}

func (d *fields) size(limit int64) int64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > uint64(max(limit, 0)) {
		d.fail("number above %d", limit)
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

func (d *fields) byte() byte {
	if len(d.b) == 0 {
		d.fail("cut short")
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *fields) bytes(dst []byte) {
	if len(d.b) < len(dst) {
		d.fail("cut short")
		return
	}
	copy(dst, d.b)
	d.b = d.b[len(dst):]
}

func (d *fields) take(n int64) []byte {
	if n > int64(len(d.b)) {
		d.fail("cut short")
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}
