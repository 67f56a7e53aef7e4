package lz4

import (
	"encoding/binary"
	"fmt"

	"updraft/delta/patch/internal/parse"
)

const rowSize = parse.RowSize

// Kinds of records.
const (
	kindFrame = iota + 1
	kindLegacy
	kindBare
	kindBlock
	kindMore
	kindStored
	kindEnd
)

// Ways to tell a unit of a compressed block.
const (
	wayRows = iota // by rows
	wayOn          // by what is not expected; the block goes on
	wayEnd         // and it ends with the unit
)

// rowSame is the length of a row that stands for sequences that are as expected.
const rowSame = 17

// row is a sequence of a block; see the package comment for rows with offset 0.
type row struct{ literals, length, offset uint32 }

func (r row) append(b []byte) []byte {
	v := uint64(r.literals&0xffff) | uint64(r.length&0xffff)<<16 | uint64(r.offset)<<32 |
		uint64(r.literals>>16)<<48 | uint64(r.length>>16)<<56
	return binary.LittleEndian.AppendUint64(b, v)
}

func parseRow(b []byte) row {
	v := binary.LittleEndian.Uint64(b)
	return row{
		literals: uint32(v&0xffff | v>>48&0xff<<16),
		length:   uint32(v>>16&0xffff | v>>56<<16),
		offset:   uint32(v >> 32 & 0xffff),
	}
}

// match returns the length of the row's match, 0 if it has none.
func (r row) match() uint32 {
	if r.offset == 0 {
		return 0
	}
	return r.length
}

// valid reports whether the row can be a sequence.
func (r row) valid() bool {
	if r.offset == 0 {
		return r.length <= 16
	}
	return r.length >= minMatch
}

// frame is what the beginning of a frame says.
type frame struct {
	flg, bd   byte
	size      uint64 // of the content, if FLG announces it
	max       uint32 // plain bytes of a block, at most
	sized     bool   // the parse has compressed sizes of blocks
	unbounded bool   // without sizes in front of blocks
}

const (
	flgVersion  = 1 << 6
	flgSolitary = 1 << 5 // blocks are independent
	flgBlockSum = 1 << 4
	flgSize     = 1 << 3
	flgSum      = 1 << 2
	flgReserved = 1 << 1
	flgDict     = 1 << 0
)

func (f *frame) has(flag byte) bool { return f.flg&flag != 0 }

// descriptor sets up f from the FLG and BD bytes.
func (f *frame) descriptor(flg, bd byte) error {
	if flg>>6 != flgVersion>>6 {
		return fmt.Errorf("%w: version %d", ErrFormat, flg>>6)
	}
	if flg&(flgReserved|flgDict) != 0 || bd&0x8f != 0 || bd < 0x40 {
		return fmt.Errorf("%w: descriptor %02x %02x", ErrUnsupported, flg, bd)
	}
	f.flg, f.bd = flg, bd
	f.max = 1 << (8 + 2*(bd>>4))
	f.sized = f.max > sizedAbove
	return nil
}

// header returns magic and descriptor.
func (f *frame) header() []byte {
	b := binary.LittleEndian.AppendUint32(nil, magicFrame)
	b = append(b, f.flg, f.bd)
	if f.has(flgSize) {
		b = binary.LittleEndian.AppendUint64(b, f.size)
	}
	var x xxh32
	x.reset()
	x.write(b[4:])
	return append(b, byte(x.sum()>>8))
}

// legacy sets f up for the legacy format.
func (f *frame) legacy() { *f = frame{flg: flgSolitary, max: legacySize, sized: true} }

// bare sets f up for a block without a frame.
func (f *frame) bare() { *f = frame{flg: flgSolitary, max: legacySize, unbounded: true} }

// packedMax is how large a compressed block may be. Only the legacy format has no way
// to store a block that does not become smaller.
func (f *frame) packedMax() int64 {
	if f.flg&flgVersion == 0 {
		return legacySize + legacySize/255 + 16
	}
	return int64(f.max)
}
