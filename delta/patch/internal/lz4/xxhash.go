package lz4

import (
	"encoding/binary"
	"math/bits"
)

// xxh32 is the 32-bit xxHash with seed 0.
type xxh32 struct {
	lane  [4]uint32
	total uint64
	buf   [16]byte
	n     int // bytes in buf
}

const (
	prime1 = 2654435761
	prime2 = 2246822519
	prime3 = 3266489917
	prime4 = 668265263
	prime5 = 374761393
)

func (x *xxh32) reset() {
	var p1, p2 uint32 = prime1, prime2
	*x = xxh32{lane: [4]uint32{p1 + p2, p2, 0, -p1}}
}

func (x *xxh32) write(b []byte) {
	x.total += uint64(len(b))
	if x.n > 0 {
		k := copy(x.buf[x.n:], b)
		x.n += k
		b = b[k:]
		if x.n < len(x.buf) {
			return
		}
		x.blocks(x.buf[:])
		x.n = 0
	}
	k := len(b) &^ 15
	x.blocks(b[:k])
	x.n = copy(x.buf[:], b[k:])
}

func (x *xxh32) blocks(b []byte) {
	l0, l1, l2, l3 := x.lane[0], x.lane[1], x.lane[2], x.lane[3]
	for ; len(b) >= 16; b = b[16:] {
		l0 = round32(l0, binary.LittleEndian.Uint32(b))
		l1 = round32(l1, binary.LittleEndian.Uint32(b[4:]))
		l2 = round32(l2, binary.LittleEndian.Uint32(b[8:]))
		l3 = round32(l3, binary.LittleEndian.Uint32(b[12:]))
	}
	x.lane = [4]uint32{l0, l1, l2, l3}
}

func round32(lane, v uint32) uint32 { return bits.RotateLeft32(lane+v*prime2, 13) * prime1 }

func (x *xxh32) sum() uint32 {
	h := x.lane[2] + prime5
	if x.total >= 16 {
		h = bits.RotateLeft32(x.lane[0], 1) + bits.RotateLeft32(x.lane[1], 7) +
			bits.RotateLeft32(x.lane[2], 12) + bits.RotateLeft32(x.lane[3], 18)
	}
	h += uint32(x.total)
	b := x.buf[:x.n]
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*prime3, 17) * prime4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*prime5, 11) * prime1
	}
	h = (h ^ h>>15) * prime2
	h = (h ^ h>>13) * prime3
	return h ^ h>>16
}
