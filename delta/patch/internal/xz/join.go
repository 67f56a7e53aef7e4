package xz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Join writes the stream that Split read. It reads the parse of each unit first, then
// the unit's plain bytes, and nothing behind the end of the stream. What it writes when
// plain and parse are not from Split is not a stream, or another one.
func Join(w io.Writer, plain, parse io.Reader) error {
	j := joiners.Get().(*joiner)
	defer j.release()
	j.w, j.plain, j.parse = w, plain, parse
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
	w            io.Writer
	plain, parse io.Reader

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
	first   head
	from    int
	size    int
}

// flushAt is how many packed bytes are collected before they are written.
const flushAt = 32 << 10

var joiners = sync.Pool{New: func() any { return new(joiner) }}

func (j *joiner) release() {
	j.w, j.plain, j.parse = nil, nil, nil
	joiners.Put(j)
}

func (j *joiner) readParse(b []byte) error {
	_, err := io.ReadFull(j.parse, b)
	return ended(err, "parse")
}

// ended makes the early end of a stream an error of its own.
func ended(err error, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %s ends early", ErrCorrupt, name)
	}
	return fmt.Errorf("read %s: %w", name, err)
}

func (j *joiner) head() (head, error) {
	b := j.rows[:rowSize]
	if err := j.readParse(b); err != nil {
		return head{}, err
	}
	return parseHead(b)
}

func (j *joiner) size64() (uint64, error) {
	b := j.rows[:rowSize]
	err := j.readParse(b)
	n := binary.LittleEndian.Uint64(b)
	if err == nil && n > maxVLI {
		err = fmt.Errorf("%w: size %d", ErrCorrupt, n)
	}
	return n, err
}

// begin reads the first record.
func (j *joiner) begin() error {
	h, err := j.head()
	if err != nil {
		return err
	}
	if _, known := checkSize(h.a); h.kind != kindStream || !known {
		return fmt.Errorf("%w: begins with kind %d, check %d", ErrCorrupt, h.kind, h.a)
	}
	j.kind = h.a
	j.enc.out = appendHeader(j.enc.out, j.kind)
	return nil
}

// pos64 is how many packed bytes there are.
func (j *joiner) pos64() int64 { return j.written + int64(len(j.enc.out)) }

// record reads a record and what it announces; it reports false behind the last.
func (j *joiner) record() (bool, error) {
	h, err := j.head()
	if err != nil {
		return false, err
	}
	if j.inChunk && h.kind != kindMore {
		if err := j.chunkEnd(); err != nil {
			return false, err
		}
	}
	switch {
	case h.kind == kindBlock && !j.inBlock:
		return true, j.block(h)
	case h.kind == kindChunk && j.inBlock:
		if err := j.chunk(h); err != nil {
			return false, err
		}
		return true, j.unit(h.n)
	case h.kind == kindMore && j.inChunk:
		return true, j.unit(h.n)
	case h.kind == kindStored && j.inBlock:
		return true, j.stored(h)
	case h.kind == kindBlockEnd && j.inBlock:
		return true, j.blockEnd(h)
	case h.kind == kindStreamEnd && !j.inBlock:
		from := len(j.enc.out)
		j.enc.out = appendIndex(j.enc.out, j.blocks)
		j.enc.out = appendFooter(j.enc.out, j.kind, len(j.enc.out)-from)
		return false, nil
	}
	return false, fmt.Errorf("%w: kind %d out of place", ErrCorrupt, h.kind)
}

// block writes the header of a block.
func (j *joiner) block(h head) (err error) {
	b := &j.header
	b.size, b.flags = h.a, h.b
	if h.n > 1024 || len(j.blocks) == maxBlocks {
		return fmt.Errorf("%w: filters of %d bytes, %d blocks", ErrCorrupt, h.n, len(j.blocks))
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
	list, err := j.bytes(h.n)
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
	return b[:n], j.readParse(b)
}

// blockEnd writes what ends a block.
func (j *joiner) blockEnd(h head) error {
	n, _ := checkSize(j.kind)
	want := uint32(0)
	if j.header.filtered() {
		want = uint32(n)
	}
	if h.n != want {
		return fmt.Errorf("%w: check of %d bytes", ErrCorrupt, h.n)
	}
	j.enc.out = append(j.enc.out, controlEnd)
	packed := j.pos64() - j.data
	zeros := int(-packed & 3)
	j.enc.out = append(j.enc.out, make([]byte, zeros)...)
	if j.header.filtered() {
		b, err := j.bytes(h.n)
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
