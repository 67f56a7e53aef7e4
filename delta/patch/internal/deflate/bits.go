package deflate

import (
	"encoding/binary"
	"io"
)

// bitWriter writes bits, the lowest first, to w in pieces.
type bitWriter struct {
	w    io.Writer // nil: all stays in buf
	buf  []byte
	acc  uint64
	n    uint // bits in acc, below 32 between calls
	size int64
	err  error
}

const flushAt = 16 << 10

// put writes the n lowest bits of v, at most 32; the others are 0.
func (b *bitWriter) put(v uint32, n uint) {
	b.acc |= uint64(v) << b.n
	b.n += n
	if b.n >= 32 {
		b.buf = binary.LittleEndian.AppendUint32(b.buf, uint32(b.acc))
		b.acc >>= 32
		b.n -= 32
	}
}

// align fills the last byte with zeros.
func (b *bitWriter) align() {
	for ; b.n > 0; b.n -= min(b.n, 8) {
		b.buf = append(b.buf, byte(b.acc))
		b.acc >>= 8
	}
}

// bits appends the n first bits of p.
func (b *bitWriter) bits(p []byte, n int) {
	for ; n >= 8; n -= 8 {
		b.put(uint32(p[0]), 8)
		p = p[1:]
	}
	if n > 0 {
		b.put(uint32(p[0])&(1<<n-1), uint(n))
	}
}

// len returns the bits written since reset.
func (b *bitWriter) len() int { return 8*len(b.buf) + int(b.n) }

func (b *bitWriter) reset() { b.buf, b.acc, b.n = b.buf[:0], 0, 0 }

// flush hands whole bytes to w when there are enough, or all.
func (b *bitWriter) flush(all bool) error {
	if b.err == nil && (all && len(b.buf) > 0 || len(b.buf) >= flushAt) {
		_, b.err = b.w.Write(b.buf)
		b.size += int64(len(b.buf))
		b.buf = b.buf[:0]
	}
	return b.err
}
