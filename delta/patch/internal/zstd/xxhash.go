package zstd

import (
	"encoding/binary"
	"math/bits"
)

// Primes of XXH64 (the xxHash specification, version 0.1.1).
const (
	prime1 uint64 = 11400714785074694791
	prime2 uint64 = 14029467366897019727
	prime3 uint64 = 1609587929392839161
	prime4 uint64 = 9650029242287828579
	prime5 uint64 = 2870177450012600261
)

// xxh64 is the checksum of frames, with seed 0.
type xxh64 struct {
	acc  [4]uint64
	rest [32]byte // the last size%32 bytes
	size uint64
}

func (h *xxh64) reset() {
	p1, p2 := prime1, prime2 // variables: sums wrap
	*h = xxh64{acc: [4]uint64{p1 + p2, p2, 0, -p1}}
}

func round(acc, v uint64) uint64 { return bits.RotateLeft64(acc+v*prime2, 31) * prime1 }

func (h *xxh64) write(b []byte) {
	held := int(h.size & 31)
	h.size += uint64(len(b))
	if held > 0 {
		n := copy(h.rest[held:], b)
		if b = b[n:]; held+n < 32 {
			return
		}
		h.stripes(h.rest[:])
	}
	whole := len(b) &^ 31
	h.stripes(b[:whole])
	copy(h.rest[:], b[whole:])
}

// stripes takes in pieces of 32 bytes.
func (h *xxh64) stripes(b []byte) {
	v := h.acc
	for ; len(b) >= 32; b = b[32:] {
		v[0] = round(v[0], binary.LittleEndian.Uint64(b))
		v[1] = round(v[1], binary.LittleEndian.Uint64(b[8:]))
		v[2] = round(v[2], binary.LittleEndian.Uint64(b[16:]))
		v[3] = round(v[3], binary.LittleEndian.Uint64(b[24:]))
	}
	h.acc = v
}

// sum returns the checksum of a frame: the lower half.
func (h *xxh64) sum() uint32 {
	p5 := prime5
	v := p5
	if h.size >= 32 {
		v = bits.RotateLeft64(h.acc[0], 1) + bits.RotateLeft64(h.acc[1], 7) + bits.RotateLeft64(h.acc[2], 12) + bits.RotateLeft64(h.acc[3], 18)
		for _, a := range h.acc {
			v = (v^round(0, a))*prime1 + prime4
		}
	}
	v += h.size
	b := h.rest[:h.size&31]
	for ; len(b) >= 8; b = b[8:] {
		v = bits.RotateLeft64(v^round(0, binary.LittleEndian.Uint64(b)), 27)*prime1 + prime4
	}
	if len(b) >= 4 {
		v = bits.RotateLeft64(v^uint64(binary.LittleEndian.Uint32(b))*prime1, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		v = bits.RotateLeft64(v^uint64(c)*p5, 11) * prime1
	}
	v ^= v >> 33
	v *= prime2
	v ^= v >> 29
	v *= prime3
	return uint32(v ^ v>>32)
}
