package zstd

import (
	"encoding/binary"
	"math/bits"
)

const (
	maxCodeBits   = 11 // RFC 8878, 4.2.1
	maxTreeBytes  = 129
	maxWeightLog  = 6
	weightSymbols = maxCodeBits + 1
)

// huffman is a prefix code of bytes, in both directions.
type huffman struct {
	bits   uint8 // of the longest code
	code   [256]uint16
	length [256]uint8               // 0: the byte has no code
	dec    [1 << maxCodeBits]uint16 // byte << 8 | bits; 1<<h.bits are used
}

// readWeights reads a tree's description (RFC 8878, 4.2.1) at the beginning of b: its
// length, and the weight of each byte up to the last that has one, which is implied.
func readWeights(b []byte, weights *[256]uint8, t *stateTable) (size, symbols int, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	if head := int(b[0]); head >= 128 {
		symbols, size = head-127, 1+(head-126)/2
		if size > len(b) {
			return 0, 0, false
		}
		for i := range symbols {
			weights[i] = b[1+i/2] >> (4 - i%2*4) & 15
		}
	} else {
		size = 1 + head
		if size > len(b) {
			return 0, 0, false
		}
		if symbols, ok = unpackWeights(b[1:size], weights, t); !ok {
			return 0, 0, false
		}
	}
	return size, symbols + 1, impliedWeight(weights, symbols)
}

// unpackWeights reads weights that two interleaved states of one table give in turn.
func unpackWeights(b []byte, weights *[256]uint8, t *stateTable) (int, bool) {
	n, ok := t.read(b, maxWeightLog, weightSymbols)
	if !ok {
		return 0, false
	}
	var padded [maxTreeBytes + slack]byte
	r, ok := newBitReader(padded[:], copy(padded[:], b[n:]))
	if !ok {
		return 0, false
	}
	at := [2]uint32{r.take(t.log), r.take(t.log)}
	if r.pos < 0 {
		return 0, false
	}
	for n = 0; n < 254; n++ {
		s := t.dec[at[n&1]]
		weights[n] = s.symbol
		at[n&1] = uint32(s.base) + r.take(s.bits)
		if r.pos < 0 {
			// The bits are at an end; the other state has a last symbol.
			weights[n+1] = t.dec[at[^n&1]].symbol
			return n + 2, true
		}
	}
	return 0, false
}

// impliedWeight sets the weight behind the n given: that which completes the code.
func impliedWeight(weights *[256]uint8, n int) bool {
	sum := uint32(0)
	for _, w := range weights[:n] {
		if w > maxCodeBits {
			return false
		}
		sum += 1 << w >> 1
	}
	all := uint32(1) << bits.Len32(sum)
	left := all - sum
	if sum == 0 || all > 1<<maxCodeBits || left&(left-1) != 0 {
		return false
	}
	weights[n] = uint8(bits.Len32(left))
	return true
}

// set makes the code of the first n weights, which are complete: codes are given out
// from the lowest weight, which has the longest ones, to the highest.
func (h *huffman) set(weights *[256]uint8, n int) {
	var at [maxCodeBits + 2]uint32 // where the codes of each weight begin, in units of the longest
	sum := uint32(0)
	for _, w := range weights[:n] {
		at[w+1] += 1 << w >> 1
		sum += 1 << w >> 1
	}
	h.bits = uint8(bits.Len32(sum) - 1)
	for w := 2; w < len(at); w++ {
		at[w] += at[w-1]
	}
	h.length = [256]uint8{}
	for b, w := range weights[:n] {
		if w == 0 {
			continue
		}
		length := h.bits + 1 - w
		h.length[b], h.code[b] = length, uint16(at[w]>>(w-1))
		e := uint16(b)<<8 | uint16(length)
		run := h.dec[at[w] : at[w]+1<<(w-1)]
		for i := range run {
			run[i] = e
		}
		at[w] += 1 << (w - 1)
	}
}

// decode reads len(dst) bytes from the n bytes at the beginning of b, which has slack
// behind them, and nothing may remain.
func (h *huffman) decode(dst, b []byte, n int) bool {
	r, ok := newBitReader(b, n)
	if !ok || h.bits == 0 {
		return false
	}
	pos, i, shift := r.pos, 0, 64-h.bits
	for pos >= 56 && i+5 <= len(dst) {
		// 56 bits or more, the next one on top.
		v := binary.LittleEndian.Uint64(b[pos>>3-7:]) << (8 - pos&7)
		used := 0
		for k := range 5 {
			e := h.dec[v>>(shift&63)&(1<<maxCodeBits-1)]
			dst[i+k] = byte(e >> 8)
			v <<= e & 15
			used += int(e & 15)
		}
		i, pos = i+5, pos-used
	}
	for ; i < len(dst); i++ {
		// As if there were zeros in front.
		at := max(pos-int(h.bits), 0)
		v := binary.LittleEndian.Uint64(b[at>>3:]) >> (at & 7) << (at + int(h.bits) - pos)
		e := h.dec[v&(1<<h.bits-1)]
		dst[i] = byte(e >> 8)
		if pos -= int(e & 15); pos < 0 {
			return false
		}
	}
	return pos == 0
}

// encode writes p for reading backwards, false if a byte has no code or limit would be
// passed.
func (h *huffman) encode(w *bitWriter, p []byte, limit int) bool {
	i := len(p)
	for i > 0 {
		if w.n > limit {
			return false
		}
		for k := i - 1; k >= max(i-5, 0); k-- {
			n := h.length[p[k]]
			if n == 0 {
				return false
			}
			w.add(uint64(h.code[p[k]]), n)
		}
		w.flush()
		i -= 5
	}
	w.close()
	return w.n <= limit
}
