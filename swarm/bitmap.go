package swarm

import "math/bits"

// bitmap is a set of blob indexes. A nil bitmap is an empty set of any size; it must not be set.
type bitmap []uint64

func newBitmap(n int) bitmap { return make(bitmap, (n+63)/64) }

func (b bitmap) has(i int) bool {
	return i>>6 < len(b) && b[i>>6]&(1<<(i&63)) != 0
}

// set adds i and reports whether it was not in the set.
func (b bitmap) set(i int) bool {
	w, m := i>>6, uint64(1)<<(i&63)
	old := b[w]
	b[w] = old | m
	return old&m == 0
}

// clear removes i and reports whether it was in the set.
func (b bitmap) clear(i int) bool {
	w, m := i>>6, uint64(1)<<(i&63)
	if w >= len(b) || b[w]&m == 0 {
		return false
	}
	b[w] &^= m
	return true
}

// next returns the first member at or after i, or -1.
func (b bitmap) next(i int) int {
	w := i >> 6
	if w >= len(b) {
		return -1
	}
	if x := b[w] >> (i & 63); x != 0 {
		return i + bits.TrailingZeros64(x)
	}
	for w++; w < len(b); w++ {
		if b[w] != 0 {
			return w<<6 + bits.TrailingZeros64(b[w])
		}
	}
	return -1
}

func (b bitmap) count() int {
	n := 0
	for _, x := range b {
		n += bits.OnesCount64(x)
	}
	return n
}

// appendBytes appends the wire form: ⌈n/8⌉ bytes, bit i of byte i/8.
func (b bitmap) appendBytes(dst []byte, n int) []byte {
	for i := range (n + 7) / 8 {
		dst = append(dst, byte(b[i>>3]>>(8*(i&7))))
	}
	return dst
}

// bitmapFrom reads the wire form; the bits past n are known to be zero.
func bitmapFrom(p []byte, n int) bitmap {
	b := newBitmap(n)
	for i, c := range p {
		b[i>>3] |= uint64(c) << (8 * (i & 7))
	}
	return b
}
