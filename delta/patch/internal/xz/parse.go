package xz

import (
	"encoding/binary"

	"updraft/delta/patch/internal/parse"
)

const rowSize = parse.RowSize

// Kinds of records.
const (
	kindStream = iota + 1
	kindBlock
	kindChunk
	kindMore
	kindStored
	kindBlockEnd
	kindStreamEnd
)

// padded appends v, and zeros up to a multiple of 8 bytes.
func padded(b, v []byte) []byte {
	b = append(b, v...)
	return append(b, make([]byte, -len(v)&(rowSize-1))...)
}

// Kinds of rows.
const (
	rowLiterals = iota
	rowMatch
	rowRep // and the three behind it: rep0 to rep3
	_
	_
	_
	rowShort
)

// row is a run of literals and the match behind it. Only rowMatch has a distance,
// rowLiterals and rowShort have no length. In a parse, length and distance are what
// relation makes of them.
type row struct {
	kind     byte
	with     byte // the byte to code the first literal with, if it is far back
	literals uint32
	length   uint32
	distance uint32
}

func (r row) append(b []byte) []byte {
	n := uint32(0)
	if r.length > 0 {
		n = r.length - minMatch
	}
	v := r.literals&0xff | n&0xff<<8 | uint32(r.kind)<<16 | n>>8<<19 | r.literals>>8<<20 | uint32(r.with)<<24
	return binary.LittleEndian.AppendUint64(b, uint64(v)|uint64(r.distance)<<32)
}

func parseRow(b []byte) row {
	v := binary.LittleEndian.Uint64(b)
	r := row{
		kind:     byte(v >> 16 & 7),
		with:     byte(v >> 24),
		literals: uint32(v&0xff | v>>20&0xf<<8),
		distance: uint32(v >> 32),
	}
	if r.kind != rowLiterals && r.kind != rowShort {
		r.length = uint32(v>>8&0xff|v>>19&1<<8) + minMatch
	}
	return r
}

// plain returns how many bytes r stands for.
func (r row) plain() uint32 {
	if r.kind == rowShort {
		return r.literals + 1
	}
	return r.literals + r.length
}
