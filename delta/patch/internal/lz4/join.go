package lz4

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"updraft/delta/patch/internal/parse"
)

// Join writes the frame that Split read. It reads the parse of each unit, from rows, first, then
// the unit's plain bytes, and nothing behind the end of the frame. What it writes when
// plain and rows are not from Split is not a frame, or another one.
func Join(w io.Writer, plain, rows io.Reader) error {
	j := joiners.Get().(*joiner)
	defer joiners.Put(j)
	j.w, j.Input = w, parse.Input{Plain: plain, Parse: rows, Corrupt: ErrCorrupt}
	j.frame, j.out = frame{}, j.out[:0]
	j.open, j.held, j.token, j.told = false, false, false, false
	j.r, j.n, j.due = 0, 0, 0
	j.content.reset()
	defer func() { j.w, j.Input = nil, parse.Input{} }()
	if err := j.begin(); err != nil {
		return err
	}
	for {
		more, err := j.record()
		if err != nil {
			return err
		}
		if !more {
			return j.flush()
		}
	}
}

// joiner is the state of one Join.
type joiner struct {
	frame
	parse.Input
	w io.Writer

	rows [unitRows * rowSize]byte
	// Plain bytes are in buf; buf[r:n] were not used yet. Of the block's, if it is told by
	// what is expected, the last are kept in front of these, and buf[0] has the place first.
	buf   [window + unitPlain]byte
	r, n  int
	first int
	due   uint64 // plain bytes of the unit that are not in buf yet
	told  bool
	guess guess
	row   [rowSize]byte

	out            []byte // packed bytes
	content, check xxh32

	// Of the compressed block that is open, if one is: room is how many plain bytes it
	// may still have, packed how many bytes it has, and written those that were flushed.
	open    bool
	token   bool   // that token is written
	held    bool   // out has the whole block, its size in front
	nibble  uint32 // 1 + lower half of the token whose match the next row has; 0: none
	room    uint32
	packed  int64
	written int64
}

var joiners = sync.Pool{New: func() any { return new(joiner) }}

// begin reads the first record.
func (j *joiner) begin() error {
	h, err := j.Head(kindEnd)
	if err != nil {
		return err
	}
	switch h.Kind {
	case kindFrame:
		if err := j.descriptor(h.A, h.B); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if j.has(flgSize) != (h.N == 1) || h.N > 1 {
			return fmt.Errorf("%w: frame with %d sizes", ErrCorrupt, h.N)
		}
		if h.N == 1 {
			if j.size, err = j.Number(); err != nil {
				return err
			}
		}
		j.out = append(j.out, j.header()...)
	case kindLegacy:
		j.legacy()
		j.out = binary.LittleEndian.AppendUint32(j.out, magicLegacy)
	case kindBare:
		j.bare()
	default:
		return fmt.Errorf("%w: begins with kind %d", ErrCorrupt, h.Kind)
	}
	return nil
}

// record reads a record and what it announces; it reports false behind the last.
func (j *joiner) record() (bool, error) {
	h, err := j.Head(kindEnd)
	if err != nil {
		return false, err
	}
	if j.open != (h.Kind == kindMore) {
		return false, fmt.Errorf("%w: kind %d, block open: %v", ErrCorrupt, h.Kind, j.open)
	}
	switch h.Kind {
	case kindBlock:
		if err := j.start(h.A != wayRows); err != nil {
			return false, err
		}
		return true, j.sequences(h)
	case kindMore:
		return true, j.sequences(h)
	case kindStored:
		return true, j.stored(h.N)
	case kindEnd:
		if j.flg&flgVersion != 0 {
			j.out = binary.LittleEndian.AppendUint32(j.out, 0)
			if j.has(flgSum) {
				j.out = binary.LittleEndian.AppendUint32(j.out, j.content.sum())
			}
		}
		return false, nil
	}
	return false, fmt.Errorf("%w: kind %d in a frame", ErrCorrupt, h.Kind)
}

// stored writes a block that is not compressed.
func (j *joiner) stored(n uint32) error {
	if n > j.max || j.flg&flgVersion == 0 {
		return fmt.Errorf("%w: stored block of %d", ErrCorrupt, n)
	}
	j.out = binary.LittleEndian.AppendUint32(j.out, n|1<<31)
	if err := j.flush(); err != nil {
		return err
	}
	j.check.reset()
	j.told = false
	j.due = uint64(n)
	if err := j.literals(n); err != nil {
		return err
	}
	return j.sum()
}

// start begins a compressed block; told: by what is expected.
func (j *joiner) start(told bool) error {
	if err := j.flush(); err != nil {
		return err
	}
	if j.told = told; told {
		j.guess.begin()
		j.r, j.n, j.first = 0, 0, 0
	}
	j.check.reset()
	j.open, j.token, j.room, j.nibble, j.written, j.packed = true, false, j.max, 0, 0, 0
	j.held = !j.sized && !j.unbounded
	if j.unbounded {
		return nil
	}
	if j.sized {
		n, err := j.Number()
		if err != nil {
			return err
		}
		if n > uint64(j.packedMax()) {
			return fmt.Errorf("%w: block of %d bytes", ErrCorrupt, n)
		}
		j.packed = int64(n)
	}
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(j.packed))
	if j.held {
		j.out = append(j.out, b[:]...)
		return nil
	}
	_, err := j.w.Write(b[:])
	return wrote(err)
}

func wrote(err error) error {
	if err != nil {
		return fmt.Errorf("write packed: %w", err)
	}
	return nil
}
