package deflate

import "math/bits"

// tree builds length-limited prefix codes the way zlib and gzip do: Huffman's
// algorithm on a binary heap, where of equal frequencies the shallower subtree comes
// first, and codes that came out too long are shortened by moving leaves down from
// the deepest level that has room. The order of the heap decides between codes of
// equal cost, so it is part of what is recreated.
type tree struct {
	freq   [2*litCodes + 1]uint32
	dad    [2*litCodes + 1]uint16
	depth  [2*litCodes + 1]uint8
	lens   [2*litCodes + 1]uint8
	heap   [2*litCodes + 1]uint16 // 1-based; behind its end: nodes by growing frequency, reversed
	length int                    // of the heap
	top    int                    // first of the sorted nodes
	last   int                    // greatest leaf in use
}

// build sets lens of the leaves from their frequencies, at most limit bits each, and
// returns the greatest leaf in use. At least two leaves get a code: those that are
// added have frequency 0 for the costs.
func (t *tree) build(freq []uint32, limit int) (lens []uint8, last int) {
	leaves := len(freq)
	t.length, t.top, t.last = 0, 2*leaves+1, -1
	for i, f := range freq {
		t.freq[i], t.lens[i], t.depth[i] = f, 0, 0
		if f != 0 {
			t.length++
			t.heap[t.length] = uint16(i)
			t.last = i
		}
	}
	for t.length < 2 {
		n := 0
		if t.last < 2 {
			t.last++
			n = t.last
		}
		t.length++
		t.heap[t.length] = uint16(n)
		t.freq[n], t.depth[n] = 1, 0
	}
	for i := t.length / 2; i >= 1; i-- {
		t.sift(i)
	}
	t.join(leaves)
	t.measure(leaves, limit)
	return t.lens[:leaves], t.last
}

// join combines the two rarest nodes until one is left.
func (t *tree) join(leaves int) {
	for node := leaves; ; node++ {
		a := t.heap[1]
		t.heap[1] = t.heap[t.length]
		t.length--
		t.sift(1)
		b := t.heap[1]
		t.top -= 2
		t.heap[t.top+1], t.heap[t.top] = a, b
		t.freq[node] = t.freq[a] + t.freq[b]
		t.depth[node] = max(t.depth[a], t.depth[b]) + 1
		t.dad[a], t.dad[b] = uint16(node), uint16(node)
		t.heap[1] = uint16(node)
		t.sift(1)
		if t.length < 2 {
			break
		}
	}
	t.top--
	t.heap[t.top] = t.heap[1]
}

// less orders nodes n and m of the heap.
func (t *tree) less(n, m uint16) bool {
	return t.freq[n] < t.freq[m] || t.freq[n] == t.freq[m] && t.depth[n] <= t.depth[m]
}

func (t *tree) sift(k int) {
	v := t.heap[k]
	for j := 2 * k; j <= t.length; j *= 2 {
		if j < t.length && t.less(t.heap[j+1], t.heap[j]) {
			j++
		}
		if t.less(v, t.heap[j]) {
			break
		}
		t.heap[k] = t.heap[j]
		k = j
	}
	t.heap[k] = v
}

// measure turns depths into lengths of at most limit bits.
func (t *tree) measure(leaves, limit int) {
	var count [16]int
	end, over := 2*leaves+1, 0
	t.lens[t.heap[t.top]] = 0
	for h := t.top + 1; h < end; h++ {
		n := t.heap[h]
		l := int(t.lens[t.dad[n]]) + 1
		if l > limit {
			l = limit
			over++
		}
		t.lens[n] = uint8(l)
		if int(n) < leaves {
			count[l]++
		}
	}
	if over == 0 {
		return
	}
	for ; over > 0; over -= 2 {
		l := limit - 1
		for count[l] == 0 {
			l--
		}
		count[l]--
		count[l+1] += 2
		count[limit]--
	}
	h := end
	for l := limit; l > 0; l-- {
		for n := count[l]; n > 0; {
			h--
			if m := t.heap[h]; int(m) < leaves {
				t.lens[m] = uint8(l)
				n--
			}
		}
	}
}

// canonical sets the codes that go with lens, bit-reversed as they are written.
func canonical(lens []uint8, out []uint16) {
	var count, next [16]uint16
	for _, l := range lens {
		count[l]++
	}
	code := uint16(0)
	for l := 1; l < 16; l++ {
		if l > 1 {
			code = (code + count[l-1]) << 1
		}
		next[l] = code
	}
	for i, l := range lens {
		out[i] = 0
		if l != 0 {
			out[i] = bits.Reverse16(next[l]) >> (16 - l)
			next[l]++
		}
	}
}
