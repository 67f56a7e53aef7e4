package zstd

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"updraft/delta/patch/internal/parse"
)

// JoinMemory bounds what Join holds.
const JoinMemory = 3 << 19

var joiners = sync.Pool{New: func() any { return new(joiner) }}

// joiner is the state of Join. It is used again, so nothing is cleared that is written
// before it is read.
type joiner struct {
	parse.Input

	history [near + maxBlock]byte // plain bytes: what candidates are among, and the block's
	block   int                   // where in history the block begins
	bytes   []byte                // of the block
	total   uint64                // of the blocks before
	finder  finder

	work    [workSize]byte // sequences from the beginning, literals to the end
	rows    [4 << 10]byte
	given   [1 + kinds][256]byte
	lengths [1 + kinds]int // of descriptions
	states  [rowSize]byte

	out     bitWriter // the packed block
	sum     xxh64
	tree    huffman
	planted bool // the tree is there
	weights stateTable
	own     [kinds]stateTable
	tables  [kinds]*stateTable // those of the last block; nil: none yet
}

// workSize is enough for sequences and literals of any block: each sequence takes three
// plain bytes, and eight here.
const workSize = maxBlock + (8-3)*maxSequences + 8

// Join makes a frame again and writes it to w: that of which Split wrote these plain
// bytes and this parse, rows. It reads the parse of a block first, then its plain bytes, and
// nothing behind the last block's.
//
// Errors wrap ErrCorrupt, or are those of w, plain or rows; the end of either within
// the frame is ErrCorrupt.
func Join(w io.Writer, plain, rows io.Reader) error {
	j := joiners.Get().(*joiner)
	defer joiners.Put(j)
	j.Input = parse.Input{Plain: plain, Parse: rows, Corrupt: ErrCorrupt}
	if j.out.b == nil {
		j.out.b = make([]byte, maxHeader+maxBlock+256+2*slack)
	}
	j.planted = false
	j.tables = [kinds]*stateTable{}
	j.block, j.total = 0, 0
	j.sum.reset()
	j.finder.reset()
	err := j.frame(w)
	j.Input = parse.Input{}
	return err
}

// corrupt is ErrCorrupt with what is wrong.
func corrupt(what string) error { return fmt.Errorf("%w: %s", ErrCorrupt, what) }

// frame makes the frame.
func (j *joiner) frame(w io.Writer) error {
	if err := j.ReadParse(j.rows[:frameRecord]); err != nil {
		return err
	}
	var h header
	if !h.setRecord(j.rows[:frameRecord]) {
		return corrupt("header")
	}
	head, ok := h.append(j.out.b[:0])
	if !ok {
		return corrupt("header")
	}
	front := len(head)
	for last := false; !last; {
		var b block
		if err := j.next(&b, front); err != nil {
			return err
		}
		last = b.kind&lastBit != 0
		if h.descriptor&checksumBit != 0 {
			j.sum.write(j.bytes)
			if last {
				binary.LittleEndian.PutUint32(j.out.b[j.out.n:], j.sum.sum())
				j.out.n += 4
			}
		}
		if _, err := w.Write(j.out.b[:j.out.n]); err != nil {
			return fmt.Errorf("zstd: write: %w", err)
		}
		front = 0
	}
	return nil
}

// next reads the parse and the plain bytes of a block, and makes it behind the front
// bytes of out.
func (j *joiner) next(b *block, front int) error {
	if err := j.ReadParse(j.rows[:blockRecord]); err != nil {
		return err
	}
	if !b.setFirst(j.rows[:blockRecord]) {
		return corrupt("block")
	}
	if b.kind&kindMask == blockPacked {
		if err := j.read(b); err != nil {
			return err
		}
	}
	if err := j.take(int(b.size)); err != nil {
		return err
	}
	p := j.bytes
	j.out.n, j.out.acc, j.out.cnt = front+3, 0, 0
	size := 0
	switch b.kind & kindMask {
	case blockRaw:
		size = len(p)
		j.out.n += copy(j.out.b[j.out.n:], p)
	case blockRun:
		if !same(p) {
			return corrupt("no run")
		}
		size = len(p)
		j.out.b[j.out.n] = p[0]
		j.out.n++
	case blockPacked:
		if err := j.pack(b); err != nil {
			return err
		}
		if size = j.out.n - front - 3; size > maxBlock {
			return corrupt("packed block above 128 KiB")
		}
	}
	j.finder.enter(len(j.finder.b))
	j.block += len(p)
	j.total += uint64(len(p))
	head := uint32(size)<<3 | uint32(b.kind&kindMask)<<1
	if b.kind&lastBit != 0 {
		head |= 1
	}
	j.out.b[front], j.out.b[front+1], j.out.b[front+2] = byte(head), byte(head>>8), byte(head>>16)
	return nil
}

// take reads the n plain bytes of a block.
func (j *joiner) take(n int) error {
	if j.block+n > len(j.history) {
		copy(j.history[:], j.history[j.block-near:j.block])
		j.block = near
	}
	j.bytes = j.history[j.block : j.block+n]
	j.finder.set(j.history[:j.block+n], j.block, j.total)
	return j.ReadPlain(j.bytes)
}

// same reports whether p is one byte, once or more.
func same(p []byte) bool {
	for _, c := range p {
		if c != p[0] {
			return false
		}
	}
	return len(p) > 0
}

// read reads the parse of a packed block behind the first record.
func (j *joiner) read(b *block) error {
	if err := j.ReadParse(j.rows[:codeRecord]); err != nil {
		return err
	}
	if !b.setSecond(j.rows[:codeRecord]) || b.sequences > b.size/3 {
		return corrupt("block")
	}
	j.lengths = [1 + kinds]int{}
	for i := range j.given {
		if b.flags&(givenBit<<i) == 0 {
			continue
		}
		g := j.given[i][:]
		if err := j.ReadParse(g[:rowSize]); err != nil {
			return err
		}
		n := int(g[0])
		all := (n + rowSize) &^ (rowSize - 1)
		if all > len(g) {
			return corrupt("description")
		}
		if err := j.ReadParse(g[rowSize:all]); err != nil {
			return err
		}
		if !zeros(g[1+n : all]) {
			return corrupt("description")
		}
		j.lengths[i] = n
	}
	if b.flags&statesBit != 0 {
		if err := j.ReadParse(j.states[:]); err != nil {
			return err
		}
	}
	return j.readRows(int(b.sequences))
}

// description returns the one given.
func (j *joiner) description(i int) []byte { return j.given[i][1 : 1+j.lengths[i]] }

// readRows reads n sequences.
func (j *joiner) readRows(n int) error {
	var u upper
	for i := 0; i < n; {
		p := j.rows[:min(len(j.rows), (n-i)*rowSize)]
		if err := j.ReadParse(p); err != nil {
			return err
		}
		for ; len(p) > 0; p = p[rowSize:] {
			q, complete, ok := u.row(p)
			if !ok {
				return corrupt("row")
			}
			if complete {
				put(j.work[:], i, q)
				i++
			}
		}
	}
	return nil
}
