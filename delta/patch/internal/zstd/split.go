package zstd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"updraft/delta/patch/internal/parse"
)

// SplitMemory bounds what Split holds; frames of 128 KiB take less than 3/2 MiB.
const SplitMemory = MaxWindow + 4<<20

// How the history grows: small and medium frames take the first two sizes, others the
// whole window.
const (
	smallHistory  = 256 << 10
	mediumHistory = 1664 << 10
	spareHistory  = 448 << 10 // above the window, so that it moves seldom
)

var splitters = sync.Pool{New: func() any { return new(splitter) }}

// splitter is the state of Split. It is used again, so nothing is cleared that is
// written before it is read.
type splitter struct {
	parse.Output
	src      io.ReaderAt
	off, end int64

	in      [maxBlock + 8 + slack]byte // a block and what stands in front of the next
	literal [maxBlock]byte
	work    [8 * maxSequences]byte // sequences
	rows    []byte                 // of the parse, not written yet
	history []byte                 // plain bytes: what matches may reach, and the block's
	block   int                    // where in history the block begins

	header  header
	reach   int    // bytes that are kept of the history
	size    uint64 // plain bytes so far
	sum     xxh64
	recent  recent
	finder  finder
	tree    huffman
	planted bool // the tree is there
	weights stateTable
	own     [kinds]stateTable
	tables  [kinds]*stateTable // those of the last block; nil: none yet
}

// Split reads the frame that begins at off of src and ends at or before end, and writes
// its bytes to plain and how they are packed to rows; either may be nil: all is checked
// nevertheless. It calls unit, unless nil, when all of a block has been written to both,
// and once more at the end of the frame. It returns the bytes that the frame takes.
//
// Errors wrap ErrFormat or ErrUnsupported, or are those of src, plain, rows or unit.
func Split(src io.ReaderAt, off, end int64, plain, rows io.Writer, unit func() error) (packed int64, err error) {
	s := splitters.Get().(*splitter)
	defer s.free()
	s.src, s.off, s.end = src, off, end
	s.Output = parse.Output{Plain: plain, Parse: rows, Unit: unit}
	s.history, s.block = s.history[:0], 0
	s.size, s.recent, s.planted = 0, recent{1, 4, 8}, false
	s.tables = [kinds]*stateTable{}
	s.sum.reset()
	s.finder.reset()
	if err := s.frame(); err != nil {
		return 0, err
	}
	return s.off - off, nil
}

// free gives the state back, without what few frames need.
func (s *splitter) free() {
	s.src, s.Output = nil, parse.Output{}
	if cap(s.history) > smallHistory {
		s.history = nil
	}
	splitters.Put(s)
}

// read reads n bytes to the beginning of in, and up to ahead bytes more if they are
// there; it returns how many those are.
func (s *splitter) read(n, ahead int) (int, error) {
	all := int(min(int64(n+ahead), s.end-s.off))
	if all < n {
		return 0, fmt.Errorf("%w: cut short", ErrFormat)
	}
	if got, err := s.src.ReadAt(s.in[:all], s.off); got < all {
		if errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("%w: cut short", ErrFormat)
		}
		return 0, fmt.Errorf("zstd: read: %w", err)
	}
	s.off += int64(n)
	return all - n, nil
}

// frame takes the frame apart.
func (s *splitter) frame() error {
	ahead, err := s.read(0, maxHeader)
	if err != nil {
		return err
	}
	n, err := s.header.parse(s.in[:ahead])
	if err != nil {
		return err
	}
	s.reach = max(int(min(s.header.reach(), MaxWindow)), near)
	s.off += int64(n)
	s.rows = s.header.record(s.rows[:0])
	if ahead, err = s.read(0, 4); err != nil {
		return err
	}
	for last := false; !last; {
		if ahead < 3 {
			return fmt.Errorf("%w: cut short", ErrFormat)
		}
		s.off += 3
		head := uint32(s.in[0]) | uint32(s.in[1])<<8 | uint32(s.in[2])<<16
		last = head&1 != 0
		if ahead, err = s.next(head); err != nil {
			return err
		}
		if err := s.emit(); err != nil {
			return err
		}
	}
	if err := s.close(ahead); err != nil {
		return err
	}
	return s.End()
}

// close checks what the header says, and the checksum, of which ahead bytes were read.
func (s *splitter) close(ahead int) error {
	if s.header.sizeWidth() > 0 && s.size != s.header.size {
		return fmt.Errorf("%w: %d plain bytes instead of %d", ErrFormat, s.size, s.header.size)
	}
	if s.header.descriptor&checksumBit == 0 {
		return nil
	}
	if ahead < 4 || binary.LittleEndian.Uint32(s.in[:]) != s.sum.sum() {
		return fmt.Errorf("%w: checksum", ErrFormat)
	}
	s.off += 4
	return nil
}

// next takes the block of this header apart. It returns how many bytes behind it stand
// at the beginning of in.
func (s *splitter) next(head uint32) (ahead int, err error) {
	b := block{kind: byte(head >> 1 & 3)}
	if head&1 != 0 {
		b.kind |= lastBit
	}
	n := int(head >> 3)
	if n > maxBlock {
		return 0, fmt.Errorf("%w: block of %d bytes", ErrFormat, n)
	}
	s.reserve()
	size := n
	if b.kind&kindMask == blockRun {
		size = 1
	}
	if ahead, err = s.read(size, 4); err != nil {
		return 0, err
	}
	switch b.kind & kindMask {
	case blockRaw:
		s.history = append(s.history, s.in[:n]...)
	case blockRun:
		if n == 0 {
			return 0, fmt.Errorf("%w: empty run", ErrUnsupported)
		}
		s.history = s.history[:s.block+n]
		fill(s.history[s.block:], s.in[0])
	case blockPacked:
		// The bytes behind the block are moved to its place by then.
		if err := s.packed(&b, n); err != nil {
			return 0, err
		}
	default:
		return 0, fmt.Errorf("%w: reserved kind of block", ErrFormat)
	}
	if b.kind&kindMask != blockPacked {
		b.size = uint32(n)
		s.rows = b.append(s.rows)
		s.finder.set(s.history, s.block, s.size)
	}
	s.finder.enter(len(s.history))
	copy(s.in[:4], s.in[size:size+4])
	return ahead, nil
}

// fill sets all bytes of p to v.
func fill(p []byte, v byte) {
	for i := range p {
		p[i] = v
	}
}

// reserve makes room for a block behind the history.
func (s *splitter) reserve() {
	at := len(s.history)
	if at+maxBlock > cap(s.history) {
		full := s.reach + spareHistory
		switch {
		case at+maxBlock > full || cap(s.history) >= full:
			at = copy(s.history, s.history[at-min(at, s.reach):])
			s.history = s.history[:at]
		default:
			size := full
			switch {
			case at+maxBlock <= smallHistory:
				size = smallHistory
			case at+maxBlock <= mediumHistory:
				size = min(full, mediumHistory)
			}
			s.history = append(make([]byte, 0, size), s.history...)
		}
	}
	s.block = at
}

// flushAt is how much of the parse waits, but for what goes with it.
const flushAt = 16 << 10

// flush writes what waits of the parse.
func (s *splitter) flush() error {
	b := s.rows
	s.rows = s.rows[:0]
	return s.WriteParse(b)
}

// emit hands on the plain bytes of a block, and what remains of its parse.
func (s *splitter) emit() error {
	b := s.history[s.block:]
	s.size += uint64(len(b))
	if s.header.sizeWidth() > 0 && s.size > s.header.size {
		return fmt.Errorf("%w: more than %d plain bytes", ErrFormat, s.header.size)
	}
	if s.header.descriptor&checksumBit != 0 {
		s.sum.write(b)
	}
	if err := s.flush(); err != nil {
		return err
	}
	if err := s.WritePlain(b); err != nil {
		return err
	}
	return s.End()
}
