package lz4

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"updraft/delta/patch/internal/parse"
)

// Split reads the frame that begins at off of src and ends at or before end, and
// writes what it holds to plain and how that is packed to rows; either may be nil.
// After at most 256 KiB of plain bytes, when these and their parse have been written,
// it calls unit, unless that is nil, and once more behind the end. It returns the
// length of the frame. A frame that fails late may have been written in part.
func Split(src io.ReaderAt, off, end int64, plain, rows io.Writer, unit func() error) (packed int64, err error) {
	s := newSplitter(src, off, end, parse.Output{Plain: plain, Parse: rows, Unit: unit})
	defer s.free()
	magic, err := s.in.fixed(4)
	if err != nil {
		return 0, err
	}
	switch magic {
	case magicFrame:
		err = s.frames()
	case magicLegacy:
		err = s.legacies()
	default:
		err = fmt.Errorf("%w: magic %08x", ErrFormat, magic)
	}
	if err == nil {
		err = s.finish()
	}
	return s.in.pos() - off, err
}

// free gives the state back, without what it works on.
func (s *splitter) free() {
	s.in.src, s.Output = nil, parse.Output{}
	splitters.Put(s)
}

// SplitBlock does what Split does with the bytes of src from off to end, which are one
// compressed block of at most 8 MiB plain bytes.
func SplitBlock(src io.ReaderAt, off, end int64, plain, rows io.Writer, unit func() error) error {
	s := newSplitter(src, off, end, parse.Output{Plain: plain, Parse: rows, Unit: unit})
	defer s.free()
	s.bare()
	if end-off > legacySize {
		return fmt.Errorf("%w: block of %d bytes", ErrUnsupported, end-off)
	}
	s.record(parse.Head{Kind: kindBare})
	if err := s.block(end - off); err != nil {
		return err
	}
	return s.finish()
}

// splitter is the state of one Split.
type splitter struct {
	frame
	parse.Output
	in input

	// The plain bytes of the unit are buf[from:w], in front of them are those of earlier
	// units. A match may reach back to floor.
	buf            [window + unitPlain]byte
	floor, from, w int
	total          uint64 // plain bytes of the frame
	room           uint32 // plain bytes that the block may still have
	content, check xxh32

	// What the parse has of the unit: records, then rows under a head of the kind rowKind.
	front, rows []byte
	rowKind     byte
	packed      int64 // size of the compressed block, goes with kindBlock
	cut         bool  // the unit begins within a row, which is in the one before

	// How the block is told: whether by what is expected so far, where it begins, and whether
	// it ends with the unit.
	guess guess
	told  bool
	start int
	ends  bool
	half  bool // the unit begins with the second row of a sequence
	spare []byte
}

var splitters = sync.Pool{New: func() any {
	return &splitter{rows: make([]byte, 0, unitRows*rowSize), spare: make([]byte, 0, unitRows*rowSize)}
}}

func newSplitter(src io.ReaderAt, off, end int64, o parse.Output) *splitter {
	s := splitters.Get().(*splitter)
	s.in.reset(src, off, max(off, end))
	s.Output = o
	s.frame = frame{}
	s.floor, s.from, s.w, s.total = 0, 0, 0, 0
	s.front, s.rows, s.rowKind = s.front[:0], s.rows[:0], 0
	s.cut, s.ends = false, false
	s.content.reset()
	return s
}

// frames reads a frame, from behind its magic.
func (s *splitter) frames() error {
	if err := s.begin(); err != nil {
		return err
	}
	for {
		n, err := s.in.fixed(4)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		stored := n>>31 != 0
		n &^= 1 << 31
		if int64(n) > min(s.packedMax(), s.in.rest()) {
			return fmt.Errorf("%w: block of %d bytes", ErrFormat, n)
		}
		if stored {
			err = s.stored(int64(n))
		} else {
			err = s.block(int64(n))
		}
		if err == nil && s.has(flgBlockSum) {
			err = s.verify(&s.check)
		}
		if err != nil {
			return err
		}
	}
	if s.has(flgSum) {
		if err := s.verify(&s.content); err != nil {
			return err
		}
	}
	if s.has(flgSize) && s.size != s.total {
		return fmt.Errorf("%w: %d bytes, not %d", ErrFormat, s.total, s.size)
	}
	return nil
}

// begin reads the descriptor.
func (s *splitter) begin() error {
	d, err := s.in.fixed(2)
	if err == nil {
		err = s.descriptor(byte(d), byte(d>>8))
	}
	if err != nil {
		return err
	}
	h := parse.Head{Kind: kindFrame, A: s.flg, B: s.bd}
	if s.has(flgSize) {
		h.N = 1
		if s.size, err = s.in.fixed(8); err != nil {
			return err
		}
	}
	s.record(h)
	if h.N > 0 {
		s.front = appendSize(s.front, s.size)
	}
	sum, err := s.in.fixed(1)
	if b := s.header(); err == nil && byte(sum) != b[len(b)-1] {
		err = fmt.Errorf("%w: checksum of the header", ErrFormat)
	}
	return err
}

// legacies reads a legacy frame, from behind its magic.
func (s *splitter) legacies() error {
	s.legacy()
	s.record(parse.Head{Kind: kindLegacy})
	for first := true; ; first = false {
		n, err := s.next(first)
		if err != nil || n == 0 {
			return err
		}
		if err := s.block(n); err != nil {
			return err
		}
		if s.room > 0 {
			return nil
		}
	}
}

// next returns the size of the legacy block that begins here, after its size; 0, and
// stays where it is, if what follows is none.
func (s *splitter) next(first bool) (int64, error) {
	at := s.in.pos()
	n, err := s.in.fixed(4)
	if err == nil && (n == 0 || int64(n) > min(s.packedMax(), s.in.rest())) {
		err = fmt.Errorf("%w: block of %d bytes", ErrFormat, n)
	}
	if first {
		return int64(n), err
	}
	behind := s.in.pos()
	if err == nil {
		err = s.scan(int64(n))
	}
	if errors.Is(err, ErrFormat) {
		s.in.reset(s.in.src, at, s.in.end)
		return 0, nil
	}
	s.in.reset(s.in.src, behind, s.in.end)
	return int64(n), err
}
