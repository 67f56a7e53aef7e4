package zstd

import (
	"encoding/binary"
	"math/bits"
)

// slack is what must be readable behind the end of a bit stream, and writable behind
// the limit of a bitWriter: bits come and go in words.
const slack = 16

// bitReader reads a stream that was written for reading backwards: from its end,
// which a one marks, to its beginning.
type bitReader struct {
	b   []byte // with slack behind
	pos int    // bits left; negative after reading too much
}

// newBitReader reads the n bytes at the beginning of b, which has slack behind them.
func newBitReader(b []byte, n int) (bitReader, bool) {
	if n == 0 || b[n-1] == 0 {
		return bitReader{}, false
	}
	return bitReader{b: b, pos: 8*n - 9 + bits.Len8(b[n-1])}, true
}

// take returns the next n bits, at most 57; zeros if there are fewer.
func (r *bitReader) take(n uint8) uint32 {
	r.pos -= int(n)
	if r.pos < 0 {
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b[r.pos>>3:]) >> (r.pos & 7)
	return uint32(v & (1<<n - 1))
}

// forward reads the n lowest bits first, from b, which ends where it ends.
type forward struct {
	b   []byte
	pos int // bits read
}

// peek returns n bits, at most 16, with zeros behind the end.
func (f *forward) peek(n uint8) int {
	v, at := uint32(0), f.pos>>3
	for i := range 4 {
		if at+i < len(f.b) {
			v |= uint32(f.b[at+i]) << (8 * i)
		}
	}
	return int(v >> (f.pos & 7) & (1<<n - 1))
}

// bytes returns how many bytes the bits read take, false if there were fewer.
func (f *forward) bytes() (int, bool) {
	n := (f.pos + 7) >> 3
	return n, n <= len(f.b)
}

// bitWriter writes bits, the lowest first, at n of b. Whoever adds bits makes sure that
// slack bytes of b are left.
type bitWriter struct {
	b   []byte
	n   int
	acc uint64
	cnt uint // bits in acc; at most 7 after flush
}

// add appends bits of which those above the n lowest are 0; between two calls of flush
// at most 57.
func (w *bitWriter) add(v uint64, n uint8) {
	w.acc |= v << (w.cnt & 63)
	w.cnt += uint(n)
}

// flush moves whole bytes to b.
func (w *bitWriter) flush() {
	binary.LittleEndian.PutUint64(w.b[w.n:], w.acc)
	w.n += int(w.cnt >> 3)
	w.acc >>= w.cnt &^ 7
	w.cnt &= 7
}

// close writes the one that marks the end, and zeros to the end of the byte.
func (w *bitWriter) close() {
	w.add(1, 1)
	w.flush()
	if w.cnt > 0 {
		w.n++
	}
	w.acc, w.cnt = 0, 0
}
