package zstd

import (
	"encoding/binary"

	"updraft/delta/patch/internal/parse"
)

// Sizes of records; all are multiples of a row.
const (
	rowSize     = parse.RowSize
	frameRecord = 16
	blockRecord = 8
	codeRecord  = 8
)

// Fields of the first byte of a block's record.
const (
	kindMask = 3
	lastBit  = 4
)

// Fields of the second: how literals are packed.
const (
	literalsMask = 3
	fourBit      = 4
	widthShift   = 3 // 0: as expected, else which of the three widths of the sizes, from 1
	widthMask    = 3 << widthShift
)

// Bits of the fourth byte.
const (
	longCountBit = 1 << 0 // the number of sequences takes two bytes though one were enough
	statesBit    = 1 << 1 // a record has the states that encoding began with
	givenBit     = 1 << 4 // a record has the description of the tree; then of the tables, in their order
)

// block is how a block is packed, but for its sequences and its descriptions.
type block struct {
	kind      byte // with lastBit
	literals  byte
	modes     byte // as it stands in front of the tables
	flags     byte
	size      uint32 // of the plain bytes
	sequences uint32
	logs      [4]uint8 // of the tree and the tables, unless they are given
}

// append writes the record.
func (b *block) append(p []byte) []byte {
	p = append(p, b.kind, b.literals, b.modes, b.flags)
	p = binary.LittleEndian.AppendUint32(p, b.size)
	if b.kind&kindMask == blockPacked {
		p = binary.LittleEndian.AppendUint32(p, b.sequences)
		p = append(p, b.logs[:]...)
	}
	return p
}

// appendGiven writes a description, with its length in front.
func appendGiven(p, description []byte) []byte {
	p = append(p, uint8(len(description)))
	p = append(p, description...)
	for len(p)%rowSize > 0 {
		p = append(p, 0)
	}
	return p
}

// sequence is a run of literals and the match behind it: lengths and offset. Of a match
// that is not resolved yet, what the length lacks and the choice.
type sequence uint64

func newSequence(run, match, offset uint32) sequence {
	return sequence(run) | sequence(match)<<17 | sequence(offset)<<35
}

func (q sequence) run() uint32    { return uint32(q & (1<<17 - 1)) }
func (q sequence) match() uint32  { return uint32(q >> 17 & (1<<18 - 1)) }
func (q sequence) offset() uint32 { return uint32(q >> 35) }

// at returns the sequence no i of those that b begins with; put sets it.
func at(b []byte, i int) sequence { return sequence(binary.LittleEndian.Uint64(b[8*i:])) }

func put(b []byte, i int, q sequence) { binary.LittleEndian.PutUint64(b[8*i:], uint64(q)) }

// Choices as rows have them: a candidate's index, where 1 to 3 are offsets used before.
const (
	indexShift = 3
	choiceFar  = 255 // the offset is in the row
	choiceHigh = 1 << 24
)

// appendRow writes a row, and one in front of it if lengths need it.
func appendRow(p []byte, q sequence) []byte {
	run, lacks, choice := q.run(), q.match(), q.offset()
	if run>>16 != 0 || lacks>>8 != 0 {
		p = binary.LittleEndian.AppendUint32(p, run>>16|lacks>>8<<16)
		p = binary.LittleEndian.AppendUint32(p, choiceHigh)
	}
	offset := uint32(0)
	switch {
	case choice == candidate:
		choice = 0
	case choice > candidate:
		choice = choice - candidate + indexShift
	case choice > 3:
		choice, offset = choiceFar, choice
	}
	p = binary.LittleEndian.AppendUint32(p, run&0xffff|lacks&0xff<<16|choice<<24)
	return binary.LittleEndian.AppendUint32(p, offset)
}

// upper has the upper parts of the lengths in the row that follows.
type upper struct{ run, lacks uint32 }

// row reads a row. If it is not complete, it is the upper parts for the next.
func (u *upper) row(p []byte) (q sequence, complete, ok bool) {
	v, offset := binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:])
	if offset == choiceHigh {
		ok = u.run|u.lacks == 0 && v != 0 && v&0xfffe == 0 && v>>25 == 0
		*u = upper{v & 1 << 16, v >> 16 << 8}
		return 0, false, ok
	}
	choice := v >> 24
	switch {
	case choice == choiceFar:
		choice, ok = offset, offset > 3 && offset < candidate
	case choice == 0 || choice > 3:
		choice, ok = candidate|max(choice, indexShift)-indexShift, offset == 0 && choice <= indexShift+tries
	default:
		ok = offset == 0
	}
	q = newSequence(v&0xffff|u.run, v>>16&0xff|u.lacks, choice)
	*u = upper{}
	return q, true, ok
}

// expectedWidth returns which of three widths the sizes of literals take: the least
// that libzstd thinks of.
func expectedWidth(literals int, packed bool) byte {
	small, large := 32, 4096
	if packed {
		small, large = 1<<10, 16<<10
	}
	switch {
	case literals < small:
		return 1
	case literals < large:
		return 2
	}
	return 3
}

// record writes the header's record.
func (h *header) record(p []byte) []byte {
	p = append(p, h.descriptor, h.window, 0, 0, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint64(p, h.size)
}

// setRecord reads the header's record, false if no header has it.
func (h *header) setRecord(p []byte) bool {
	*h = header{descriptor: p[0], window: p[1], size: binary.LittleEndian.Uint64(p[8:])}
	return zeros(p[2:8]) && (h.sizeWidth() > 0 || h.size == 0)
}

// zeros reports whether p has nothing else.
func zeros(p []byte) bool {
	for _, c := range p {
		if c != 0 {
			return false
		}
	}
	return true
}

// setFirst reads what the records of all blocks have, setSecond what follows for packed
// ones.
func (b *block) setFirst(p []byte) bool {
	*b = block{kind: p[0], literals: p[1], modes: p[2], flags: p[3], size: binary.LittleEndian.Uint32(p[4:])}
	ok := b.kind <= lastBit|kindMask && b.kind&kindMask <= blockPacked && b.size <= maxBlock
	if b.kind&kindMask != blockPacked {
		return ok && b.literals|b.modes|b.flags == 0
	}
	return ok && b.literals>>5 == 0 && b.modes&3 == 0 && b.flags&0xc == 0
}

func (b *block) setSecond(p []byte) bool {
	b.sequences = binary.LittleEndian.Uint32(p)
	b.logs = [4]uint8(p[4:])
	return b.sequences <= maxSequences
}
