package xz

import (
	"fmt"
	"io"
	"sync"

	"updraft/delta/patch/internal/parse"
)

// Join writes the stream that Split read. It reads the parse of each unit, from rows, first, then
// the unit's plain bytes, and nothing behind the end of the stream. What it writes when
// plain and rows are not from Split is not a stream, or another one.
func Join(w io.Writer, plain, rows io.Reader) error {
	j := joiners.Get().(*joiner)
	defer j.release()
	j.w, j.Input = w, parse.Input{Plain: plain, Parse: rows, Corrupt: ErrCorrupt}
	j.enc.out, j.blocks = j.enc.out[:0], j.blocks[:0]
	j.written, j.at = 0, 0
	j.finder.reset()
	j.inBlock, j.inChunk = false, false
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
	parse.Input
	w io.Writer

	kind    byte // of the check
	check   check
	header  blockHeader
	blocks  []sizes
	written int64 // packed bytes that were flushed

	// Of the block: where its header begins and ends, and its plain bytes.
	inBlock     bool
	start, data int64
	total       uint64

	rows [unitRows * rowSize]byte
	// The last plain bytes are buf[:at], and pos were read since the dictionary was
	// reset.
	buf [keep + unitPlain]byte
	at  int
	pos uint64

	model
	relation
	enc rangeEncoder // enc.out is what was not flushed

	// Of the chunk: its first record, where its header is in enc.out, its plain bytes.
	inChunk bool
	ready   bool // the model has properties
	first   parse.Head
	from    int
	size    int
}

// flushAt is how many packed bytes are collected before they are written.
const flushAt = 32 << 10

var joiners = sync.Pool{New: func() any { return new(joiner) }}

func (j *joiner) release() {
	j.w, j.Input = nil, parse.Input{}
	joiners.Put(j)
}

// size64 reads a size.
func (j *joiner) size64() (uint64, error) {
	n, err := j.Number()
	if err == nil && n > maxVLI {
		err = fmt.Errorf("%w: size %d", ErrCorrupt, n)
	}
	return n, err
}

// begin reads the first record.
func (j *joiner) begin() error {
	h, err := j.Head(kindStreamEnd)
	if err != nil {
		return err
	}
	if _, known := checkSize(h.A); h.Kind != kindStream || !known {
		return fmt.Errorf("%w: begins with kind %d, check %d", ErrCorrupt, h.Kind, h.A)
	}
	j.kind = h.A
	j.enc.out = appendHeader(j.enc.out, j.kind)
	return nil
}

// pos64 is how many packed bytes there are.
func (j *joiner) pos64() int64 { return j.written + int64(len(j.enc.out)) }

// record reads a record and what it announces; it reports false behind the last.
func (j *joiner) record() (bool, error) {
	h, err := j.Head(kindStreamEnd)
	if err != nil {
		return false, err
	}
	if j.inChunk && h.Kind != kindMore {
		if err := j.chunkEnd(); err != nil {
			return false, err
		}
	}
	switch {
	case h.Kind == kindBlock && !j.inBlock:
		return true, j.block(h)
	case h.Kind == kindChunk && j.inBlock:
		if err := j.chunk(h); err != nil {
			return false, err
		}
		return true, j.unit(h.N)
	case h.Kind == kindMore && j.inChunk:
		return true, j.unit(h.N)
	case h.Kind == kindStored && j.inBlock:
		return true, j.stored(h)
	case h.Kind == kindBlockEnd && j.inBlock:
		return true, j.blockEnd(h)
	case h.Kind == kindStreamEnd && !j.inBlock:
		from := len(j.enc.out)
		j.enc.out = appendIndex(j.enc.out, j.blocks)
		j.enc.out = appendFooter(j.enc.out, j.kind, len(j.enc.out)-from)
		return false, nil
	}
	return false, fmt.Errorf("%w: kind %d out of place", ErrCorrupt, h.Kind)
}

// block writes the header of a block.
func (j *joiner) block(h parse.Head) (err error) {
	b := &j.header
	b.size, b.flags = h.A, h.B
	if h.N > 1024 || len(j.blocks) == maxBlocks {
		return fmt.Errorf("%w: filters of %d bytes, %d blocks", ErrCorrupt, h.N, len(j.blocks))
	}
	if b.flags&hasPacked != 0 {
		if b.packed, err = j.size64(); err != nil {
			return err
		}
	}
	if b.flags&hasPlain != 0 {
		if b.plain, err = j.size64(); err != nil {
			return err
		}
	}
	list, err := j.bytes(h.N)
	if err != nil {
		return err
	}
	b.filters = append(b.filters[:0], list...)
	j.start = j.pos64()
	out, err := b.append(j.enc.out)
	if err != nil {
		return err
	}
	j.enc.out = out
	j.data = j.pos64()
	j.inBlock, j.ready, j.total, j.pos = true, false, 0, 0
	j.check.reset(j.kind)
	return nil
}

// bytes reads n bytes of parse, and the zeros behind them.
func (j *joiner) bytes(n uint32) ([]byte, error) {
	b := j.rows[:(n+rowSize-1)&^(rowSize-1)]
	return b[:n], j.ReadParse(b)
}

// blockEnd writes what ends a block.
func (j *joiner) blockEnd(h parse.Head) error {
	n, _ := checkSize(j.kind)
	want := uint32(0)
	if j.header.filtered() {
		want = uint32(n)
	}
	if h.N != want {
		return fmt.Errorf("%w: check of %d bytes", ErrCorrupt, h.N)
	}
	j.enc.out = append(j.enc.out, controlEnd)
	packed := j.pos64() - j.data
	zeros := int(-packed & 3)
	j.enc.out = append(j.enc.out, make([]byte, zeros)...)
	if j.header.filtered() {
		b, err := j.bytes(h.N)
		if err != nil {
			return err
		}
		j.enc.out = append(j.enc.out, b...)
	} else {
		j.enc.out = j.check.sum(j.enc.out)
	}
	j.blocks = append(j.blocks, sizes{uint64(j.pos64()-j.start) - uint64(zeros), j.total})
	j.inBlock = false
	return j.spill()
}

// spill writes packed bytes if there are many; not within a chunk, whose header is
// written last.
func (j *joiner) spill() error {
	if len(j.enc.out) < flushAt {
		return nil
	}
	return j.flush()
}

func (j *joiner) flush() error {
	_, err := j.w.Write(j.enc.out)
	j.written += int64(len(j.enc.out))
	j.enc.out = j.enc.out[:0]
	if err != nil {
		return fmt.Errorf("write packed: %w", err)
	}
	return nil
}
