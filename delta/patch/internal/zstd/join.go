package zstd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// JoinMemory bounds what Join holds.
const JoinMemory = 5 << 18

var joiners = sync.Pool{New: func() any { return new(joiner) }}

// joiner is the state of Join. It is used again, so nothing is cleared that is written
// before it is read.
type joiner struct {
	plain, parse io.Reader

	bytes     [maxBlock]byte // of the block
	literal   [maxBlock]byte // those that no match has
	sequences [maxSequences]sequence
	rows      [4 << 10]byte
	given     [1 + kinds][256]byte
	lengths   [1 + kinds]int // of descriptions
	states    [rowSize]byte

	out     bitWriter // the packed block
	sum     xxh64
	tree    huffman
	planted bool // the tree is there
	weights stateTable
	own     [kinds]stateTable
	tables  [kinds]*stateTable // those of the last block; nil: none yet
}

// Join makes a frame again and writes it to w: that of which Split wrote these plain
// bytes and this parse. It reads the parse of a block first, then its plain bytes, and
// nothing behind the last block's.
//
// Errors wrap ErrCorrupt, or are those of w, plain or parse; the end of either within
// the frame is ErrCorrupt.
func Join(w io.Writer, plain, parse io.Reader) error {
	j := joiners.Get().(*joiner)
	defer joiners.Put(j)
	j.plain, j.parse = plain, parse
	if j.out.b == nil {
		j.out.b = make([]byte, maxHeader+maxBlock+256+2*slack)
	}
	j.planted = false
	j.tables = [kinds]*stateTable{}
	j.sum.reset()
	err := j.frame(w)
	j.plain, j.parse = nil, nil
	return err
}

// corrupt is ErrCorrupt with what is wrong.
func corrupt(what string) error { return fmt.Errorf("%w: %s", ErrCorrupt, what) }

// fill reads all of p from one of the two.
func (j *joiner) fill(r io.Reader, p []byte) error {
	if _, err := io.ReadFull(r, p); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt("cut short")
	} else if err != nil {
		return fmt.Errorf("zstd: read: %w", err)
	}
	return nil
}

// frame makes the frame.
func (j *joiner) frame(w io.Writer) error {
	if err := j.fill(j.parse, j.rows[:frameRecord]); err != nil {
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
			j.sum.write(j.bytes[:b.size])
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
	if err := j.fill(j.parse, j.rows[:blockRecord]); err != nil {
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
	p := j.bytes[:b.size]
	if err := j.fill(j.plain, p); err != nil {
		return err
	}
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
	head := uint32(size)<<3 | uint32(b.kind&kindMask)<<1
	if b.kind&lastBit != 0 {
		head |= 1
	}
	j.out.b[front], j.out.b[front+1], j.out.b[front+2] = byte(head), byte(head>>8), byte(head>>16)
	return nil
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
	if err := j.fill(j.parse, j.rows[:codeRecord]); err != nil {
		return err
	}
	if !b.setSecond(j.rows[:codeRecord]) {
		return corrupt("block")
	}
	for i := range j.given {
		if b.flags&(givenBit<<i) == 0 {
			continue
		}
		g := j.given[i][:]
		if err := j.fill(j.parse, g[:rowSize]); err != nil {
			return err
		}
		n := int(g[0])
		all := (n + rowSize) &^ (rowSize - 1)
		if all > len(g) {
			return corrupt("description")
		}
		if err := j.fill(j.parse, g[rowSize:all]); err != nil {
			return err
		}
		if !zeros(g[1+n : all]) {
			return corrupt("description")
		}
		j.lengths[i] = n
	}
	if b.flags&statesBit != 0 {
		if err := j.fill(j.parse, j.states[:]); err != nil {
			return err
		}
	}
	return j.readRows(int(b.sequences))
}

// description returns the one given.
func (j *joiner) description(i int) []byte { return j.given[i][1 : 1+j.lengths[i]] }

// readRows reads n sequences.
func (j *joiner) readRows(n int) error {
	var high uint64 // halves of the lengths in the row that follows
	for at := 0; at < n; {
		p := j.rows[:min(len(j.rows), (n-at)*rowSize)]
		if err := j.fill(j.parse, p); err != nil {
			return err
		}
		for ; len(p) > 0; p = p[rowSize:] {
			v := binary.LittleEndian.Uint64(p)
			if v>>32 == 0 {
				if v == 0 || high != 0 || v&^0x3_0001 != 0 {
					return corrupt("row")
				}
				high = v
				continue
			}
			run := uint32(v&0xffff | high&0xffff<<16)
			match := uint32(v>>16&0xffff | high&0xffff_0000)
			if match < 3 || match >= 3+1<<17 {
				return corrupt("row")
			}
			j.sequences[at] = sequence{
				run:    uint32(runCode(run))<<lengthBits | run,
				match:  uint32(matchCode(match))<<lengthBits | match,
				offset: uint32(v >> 32),
			}
			high = 0
			at++
		}
	}
	return nil
}
