package xz

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"updraft/delta/patch/internal/parse"
)

// Split reads the stream that begins at off of src and ends at or before end, and
// writes what it holds to plain and how that is packed to rows; either may be nil.
// After at most 256 KiB of plain bytes, when these and their parse have been written,
// it calls unit, unless that is nil, and once more behind the end. It returns the
// length of the stream. A stream that fails late may have been written in part.
func Split(src io.ReaderAt, off, end int64, plain, rows io.Writer, unit func() error) (packed int64, err error) {
	s := splitters.Get().(*splitter)
	defer s.release()
	s.in.reset(src, off, end)
	s.Output = parse.Output{Plain: plain, Parse: rows, Unit: unit}
	s.front, s.rows, s.blocks = s.front[:0], s.rows[:0], s.blocks[:0]
	s.from, s.w, s.pos = 0, 0, 0
	s.finder.reset()
	if err := s.begin(); err != nil {
		return 0, err
	}
	for {
		more, err := s.block()
		if err != nil {
			return 0, err
		}
		if !more {
			break
		}
	}
	if err := s.finish(); err != nil {
		return 0, err
	}
	return s.in.pos() - off, nil
}

// maxFront is when a unit ends that has no plain bytes: blocks may be empty.
const maxFront = 16 << 10

// splitter is the state of one Split.
type splitter struct {
	parse.Output
	in input

	kind   byte // of the check
	check  check
	header blockHeader
	blocks []sizes
	index  []byte

	// The plain bytes of the unit are buf[from:w], in front of them are those of earlier
	// units; window of these may be looked back to, and there are pos since the dictionary
	// was reset.
	buf     []byte
	from, w int
	window  int
	pos     uint64
	total   uint64 // plain bytes of the block
	large   bool   // the dictionary is larger than window

	model
	rc rangeDecoder
	relation

	// What the parse has of the unit: records, then rows under the head next.
	front, rows []byte
	next        parse.Head
	with        byte // of the row to come
}

var splitters = sync.Pool{New: func() any {
	return &splitter{rows: make([]byte, 0, unitRows*rowSize)}
}}

func (s *splitter) release() {
	s.in.src, s.Output = nil, parse.Output{}
	if len(s.buf) > firstBuf {
		s.buf = nil // few streams need it
	}
	splitters.Put(s)
}

// begin reads the stream's header.
func (s *splitter) begin() error {
	b, err := s.in.take(headerSize)
	if err != nil {
		return err
	}
	if string(b[:len(headerMagic)]) != headerMagic {
		return fmt.Errorf("%w: magic % x", ErrFormat, b[:len(headerMagic)])
	}
	if crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return fmt.Errorf("%w: checksum of the header", ErrFormat)
	}
	s.kind = b[7]
	if _, known := checkSize(s.kind); !known || b[6] != 0 {
		return fmt.Errorf("%w: flags % x", ErrUnsupported, b[6:8])
	}
	s.record(parse.Head{Kind: kindStream, A: s.kind})
	return nil
}

// record puts a head in front of the unit's rows. There are none yet.
func (s *splitter) record(h parse.Head) { s.front = h.Append(s.front) }

// block reads a block; it reports false, and reads nothing, if the index follows.
func (s *splitter) block() (bool, error) {
	start := s.in.pos()
	more, err := s.blockHeader()
	if err != nil || !more {
		return more, err
	}
	data := s.in.pos()
	s.total = 0
	s.check.reset(s.kind)
	if err := s.chunks(); err != nil {
		return true, err
	}
	packed := uint64(s.in.pos() - data)
	h := &s.header
	if h.flags&hasPacked != 0 && h.packed != packed || h.flags&hasPlain != 0 && h.plain != s.total {
		return true, fmt.Errorf("%w: sizes of a block", ErrFormat)
	}
	zeros, err := s.in.take(int(-packed & 3))
	if err != nil {
		return true, err
	}
	for _, c := range zeros {
		if c != 0 {
			return true, fmt.Errorf("%w: padding of a block", ErrFormat)
		}
	}
	if err := s.blockEnd(); err != nil {
		return true, err
	}
	s.blocks = append(s.blocks, sizes{uint64(s.in.pos()-start) - (-packed & 3), s.total})
	if len(s.front) < maxFront {
		return true, nil
	}
	return true, s.flush()
}

// blockHeader reads the header of a block, and puts it to the parse.
func (s *splitter) blockHeader() (bool, error) {
	b, err := s.in.take(1)
	if err != nil {
		return false, err
	}
	s.in.r--
	if b[0] == 0 {
		return false, nil
	}
	if len(s.blocks) == maxBlocks {
		return true, fmt.Errorf("%w: more than %d blocks", ErrUnsupported, maxBlocks)
	}
	if b, err = s.in.take((int(b[0]) + 1) * 4); err != nil {
		return true, err
	}
	dictionary, err := s.header.parse(b)
	if err != nil {
		return true, err
	}
	if dictionary == 0 {
		return true, fmt.Errorf("%w: size of the dictionary", ErrFormat)
	}
	s.window, s.large = int(min(dictionary, maxWindow)), dictionary > maxWindow
	h := &s.header
	s.record(parse.Head{Kind: kindBlock, A: h.size, B: h.flags, N: uint32(len(h.filters))})
	if h.flags&hasPacked != 0 {
		s.front = binary.LittleEndian.AppendUint64(s.front, h.packed)
	}
	if h.flags&hasPlain != 0 {
		s.front = binary.LittleEndian.AppendUint64(s.front, h.plain)
	}
	s.front = padded(s.front, h.filters)
	return true, nil
}

// blockEnd reads the check of a block.
func (s *splitter) blockEnd() error {
	n, _ := checkSize(s.kind)
	b, err := s.in.take(n)
	if err != nil {
		return err
	}
	if s.header.filtered() {
		s.record(parse.Head{Kind: kindBlockEnd, N: uint32(n)})
		s.front = padded(s.front, b)
		return nil
	}
	if !bytes.Equal(b, s.check.sum(nil)) {
		return fmt.Errorf("%w: check of a block", ErrFormat)
	}
	s.record(parse.Head{Kind: kindBlockEnd})
	return nil
}

// finish reads index and footer.
func (s *splitter) finish() error {
	s.index = appendIndex(s.index[:0], s.blocks)
	s.index = appendFooter(s.index, s.kind, len(s.index))
	for want := s.index; len(want) > 0; {
		n := min(len(want), chunkPacked)
		b, err := s.in.take(n)
		if err != nil {
			return err
		}
		if !bytes.Equal(b, want[:n]) {
			return fmt.Errorf("%w: index", ErrFormat)
		}
		want = want[n:]
	}
	s.record(parse.Head{Kind: kindStreamEnd})
	return s.flush()
}

// flush writes what the unit has, and begins another.
func (s *splitter) flush() error {
	if len(s.rows) > 0 {
		s.next.N = uint32(len(s.rows) / rowSize)
		s.record(s.next)
		s.front = binary.LittleEndian.AppendUint64(s.front, uint64(s.w-s.from))
		if s.next.Kind == kindChunk && s.next.A >= resetState {
			s.forget()
		}
		s.next = parse.Head{Kind: kindMore}
	}
	if s.Parse != nil {
		s.relate(s.rows, s.buf[:s.w], s.from, s.w, s.pos-uint64(s.w-s.from))
	}
	if err := s.WriteParse(s.front); err != nil {
		return err
	}
	if err := s.WriteParse(s.rows); err != nil {
		return err
	}
	s.front, s.rows = s.front[:0], s.rows[:0]
	plain := s.buf[s.from:s.w]
	if err := s.WritePlain(plain); err != nil {
		return err
	}
	if !s.header.filtered() {
		s.check.write(plain)
	}
	s.total += uint64(len(plain))
	s.from = s.w
	return s.End()
}
