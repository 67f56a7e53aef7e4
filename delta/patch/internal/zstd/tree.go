package zstd

import (
	"math/bits"
	"slices"
)

// leaf is a byte with its count and the length of its code.
type leaf struct {
	count uint32
	byte  uint8
	bits  uint8
}

// expectTree describes the code that libzstd makes of bytes counted so, of at most most
// bits.
func expectTree(p []byte, counts *[256]uint32, most uint8, t *stateTable) ([]byte, bool) {
	var order [256]uint64 // by counts, the largest first, and bytes
	n, symbols := 0, 0
	for b, c := range counts {
		if c > 0 {
			order[n] = uint64(^c)<<8 | uint64(b)
			n, symbols = n+1, b+1
		}
	}
	if n < 2 || most > maxCodeBits || 1<<most < n {
		return nil, false
	}
	slices.Sort(order[:n])
	var all [256]leaf
	leaves := all[:n]
	for i, o := range order[:n] {
		leaves[i] = leaf{count: ^uint32(o >> 8), byte: uint8(o)}
	}
	deepen(leaves)
	if leaves[n-1].bits > most && !flatten(leaves, most) {
		return nil, false
	}
	var weights [256]uint8
	for _, l := range leaves {
		if l.bits > leaves[n-1].bits {
			return nil, false
		}
		weights[l.byte] = leaves[n-1].bits + 1 - l.bits
	}
	return appendWeights(p, weights[:symbols-1], t)
}

// deepen sets the bits of leaves, those with the largest count first, to their depth in a
// Huffman tree. Of nodes and leaves of the same count, nodes are joined first.
func deepen(leaves []leaf) {
	var count [256]uint32
	var parent [512]uint16 // of leaves, then of nodes
	n := len(leaves)
	low, first := n-1, 0 // the least leaf, the least node
	for node := range n - 1 {
		for range 2 {
			if low >= 0 && (first == node || leaves[low].count < count[first]) {
				count[node] += leaves[low].count
				parent[low] = uint16(node)
				low--
			} else {
				count[node] += count[first]
				parent[n+first] = uint16(node)
				first++
			}
		}
	}
	var depth [256]uint8
	for node := n - 3; node >= 0; node-- {
		depth[node] = depth[parent[n+node]] + 1
	}
	for i := range leaves {
		leaves[i].bits = depth[parent[i]] + 1
	}
}

// flatten shortens codes to most bits, and lengthens others for it, those that cost least
// in the way that libzstd finds them. What it costs is counted in codes of most bits.
func flatten(leaves []leaf, most uint8) bool {
	n := len(leaves) - 1
	deep := leaves[n].bits
	cost := 0
	for ; n >= 0 && leaves[n].bits > most; n-- {
		cost += 1<<(deep-most) - 1<<(deep-leaves[n].bits)
		leaves[n].bits = most
	}
	cost >>= deep - most
	for n >= 0 && leaves[n].bits == most {
		n--
	}
	// The last leaf of each length, by how much shorter than most it is.
	var last [maxCodeBits + 3]int
	for i := range last {
		last[i] = -1
	}
	shortest := most
	for i := n; i >= 0; i-- {
		if leaves[i].bits < shortest {
			shortest = leaves[i].bits
			last[most-shortest] = i
		}
	}
	for cost > 0 {
		k := min(bits.Len32(uint32(cost)), maxCodeBits+1)
		for ; k > 1; k-- {
			if last[k] >= 0 && (last[k-1] < 0 || leaves[last[k]].count <= 2*leaves[last[k-1]].count) {
				break
			}
		}
		for ; k < len(last)-1 && last[k] < 0; k++ {
		}
		i := last[k]
		if i < 0 {
			return false
		}
		cost -= 1 << (k - 1)
		leaves[i].bits++
		if last[k-1] < 0 {
			last[k-1] = i
		}
		if last[k]--; last[k] >= 0 && leaves[last[k]].bits != most-uint8(k) {
			last[k] = -1
		}
	}
	return repay(leaves, most, -cost, n, last[1])
}

// repay shortens codes again by one bit, if too many have been lengthened; behind n all
// have most bits, and one is the last that has one less, or -1.
func repay(leaves []leaf, most uint8, cost, n, one int) bool {
	for ; cost > 0; cost-- {
		if one < 0 {
			for n >= 0 && leaves[n].bits == most {
				n--
			}
			one = n
		}
		if one++; one >= len(leaves) {
			return false
		}
		leaves[one].bits--
	}
	return true
}

// appendWeights describes a tree by the weights of all bytes but the last that has one:
// coded if that takes less than half a byte each, and by half a byte each else.
func appendWeights(p []byte, weights []uint8, t *stateTable) ([]byte, bool) {
	if packed := packWeights(weights, t); len(packed) > 1 && len(packed) < len(weights)/2 {
		return append(append(p, uint8(len(packed))), packed...), true
	}
	if len(weights) > 128 {
		return nil, false
	}
	p = append(p, uint8(127+len(weights)))
	for i := 0; i < len(weights); i += 2 {
		v := weights[i] << 4
		if i+1 < len(weights) {
			v |= weights[i+1]
		}
		p = append(p, v)
	}
	return p, true
}

// packWeights codes weights with two states in turn, nil if that saves nothing.
func packWeights(weights []uint8, t *stateTable) []byte {
	var counts [weightSymbols]uint32
	symbols, most := 0, uint32(0)
	for _, w := range weights {
		counts[w]++
		symbols = max(symbols, int(w)+1)
		most = max(most, counts[w])
	}
	if len(weights) < 3 || most == 1 || int(most) == len(weights) {
		return nil
	}
	log := tableLog(maxWeightLog, len(weights), symbols)
	var norm [maxSymbols]int16
	if !shares(&norm, counts[:symbols], uint32(len(weights)), log, false) {
		return nil
	}
	p, ok := appendShares(nil, norm[:symbols], log)
	if !ok {
		return nil
	}
	t.setNorm(log, norm[:symbols])
	var b [256 + slack]byte
	w := bitWriter{b: b[:]}
	var at [2]uint32
	for i := len(weights) - 1; i >= 0; i-- {
		if i >= len(weights)-2 {
			at[i&1] = 1<<log + uint32(t.first[weights[i]])
			continue
		}
		at[i&1] = t.step(&w, at[i&1], weights[i])
		w.flush()
	}
	w.add(uint64(at[1]&(1<<log-1)), log)
	w.add(uint64(at[0]&(1<<log-1)), log)
	w.close()
	return append(p, b[:w.n]...)
}

// countBytes counts what p has of each byte.
func countBytes(p []byte) *[256]uint32 {
	var some [4][256]uint32 // that one count need not wait for another
	for ; len(p) >= 4; p = p[4:] {
		some[0][p[0]]++
		some[1][p[1]]++
		some[2][p[2]]++
		some[3][p[3]]++
	}
	for _, b := range p {
		some[0][b]++
	}
	for b := range some[0] {
		some[0][b] += some[1][b] + some[2][b] + some[3][b]
	}
	return &some[0]
}
