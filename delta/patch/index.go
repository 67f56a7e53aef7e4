package patch

import (
	"encoding/binary"
	"math/bits"
)

const (
	seedLen  = 8   // bytes that a seed has in common at least
	chainMax = 96  // candidates looked at for one seed
	walkMax  = 800 // places looked through for them
	wellLong = 1 << 12
)

// index finds exact matches in the base: the places of seeds, strings of seedLen, in
// the order of their hashes, and of one hash from the last place to the first. What a
// place leaves free of its 32 bits says more of the hash.
type index struct {
	old    []byte
	first  []uint32 // by hash: where its places begin
	places []uint32
	unit   int    // of places, in bytes
	bits   uint   // of the hash that first is by
	more   uint   // bits of the hash that are beside a place
	seen   uint32 // what ahead saw, so that it looks
}

// indexCost is what a seed takes in the index, in bytes, about.
const indexCost = 4.5

// indexMemory returns what the index may take by default, for streams of so many bytes
// together.
func indexMemory(n int64) int64 { return min(n+n/2, 768<<20) }

// strides say how far apart the seeds are, where the base comes again as it is, and
// elsewhere.
type strides struct{ same, other int }

// choices of strides, the best first, each for indexes of less than limit bytes. Where
// the base comes again as it is, few seeds do: what is new was rarely made from that.
var choices = []struct {
	strides
	limit int64
}{{strides{1, 1}, 16 << 20}, {strides{16, 1}, 1 << 40}, {strides{2, 2}, 32 << 20}, {strides{16, 2}, 1 << 40}, {strides{16, 4}, 1 << 40},
	{strides{16, 8}, 1 << 40}, {strides{16, 16}, 1 << 40}, {strides{32, 32}, 1 << 40}}

// cost returns what an index of size bytes, same of which come again, takes.
func (s strides) cost(size, same int) int64 {
	return int64(float64(same/s.same+(size-same)/s.other) * indexCost)
}

// stridesFor returns the best strides whose index takes at most memory bytes.
func stridesFor(size, same int, memory int64) strides {
	for _, c := range choices {
		if n := c.cost(size, same); n <= min(memory, c.limit) {
			return c.strides
		}
	}
	return strides{64, 64}
}

// newIndex indexes old, of which the spans in same come again as they are, in about
// memory bytes.
func newIndex(old []byte, same []span, memory int64) *index {
	n := 0
	for _, s := range same {
		n += s.hi - s.lo
	}
	s := stridesFor(len(old), n, memory)
	x := &index{old: old, unit: s.other}
	seeds := n/s.same + (len(old)-n)/s.other
	x.bits = uint(max(10, bits.Len(uint(seeds/8))-1))
	x.more = 32 - uint(bits.Len(uint(len(old)/x.unit)))
	x.first = make([]uint32, 1<<x.bits+1)
	huge(x.first)
	x.each(same, s, func(h uint64, _ int) { x.first[h>>x.more]++ })
	total := uint32(0)
	for i := range x.first {
		total += x.first[i]
		x.first[i] = total
	}
	x.places = make([]uint32, total)
	huge(x.places)
	x.each(same, s, func(h uint64, o int) {
		f := &x.first[h>>x.more]
		*f--
		x.places[*f] = uint32(h<<(32-x.more)) | uint32(o/x.unit)
	})
	return x
}

// each calls f with all seeds and their hashes, from the first to the last.
func (x *index) each(same []span, s strides, f func(h uint64, o int)) {
	at := 0
	for _, r := range append(same[:len(same):len(same)], span{len(x.old), len(x.old)}) {
		x.run(at, r.lo, s.other, f)
		x.run(r.lo, r.hi, s.same, f)
		at = r.hi
	}
}

// run is each of old[lo:hi]. Of a run of equal bytes only the front is a seed: it gives
// the longest match.
func (x *index) run(lo, hi, step int, f func(h uint64, o int)) {
	equal := 0
	for o := (lo + step - 1) / step * step; o < hi && o+seedLen <= len(x.old); o += step {
		if o >= step && binary.LittleEndian.Uint64(x.old[o:]) == binary.LittleEndian.Uint64(x.old[o-step:]) {
			if equal++; equal > 2 {
				continue
			}
		} else {
			equal = 0
		}
		f(x.hash(x.old[o:]), o)
	}
}

func (x *index) hash(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b) * 0x9E3779B97F4A7C15 >> (64 - x.bits - x.more)
}

// ahead looks at what search will for t and the strings behind it, each step bytes from
// the one before, and returns of how many bytes: a processor waits for memory once so,
// and not for each.
func (x *index) ahead(t []byte, step int) int {
	const n = 16
	seen := uint32(0)
	for i := 0; i < min(n*step, len(t)-seedLen+1); i += step {
		if f := x.first[x.hash(t[i:])>>x.more]; int(f) < len(x.places) {
			seen ^= x.places[f]
		}
	}
	x.seen = seen
	return n * step
}

// search returns the longest match for t among the candidates; hint is looked at
// first and wins ties.
func (x *index) search(t []byte, hint int) (pos, l int) {
	if hint >= 0 && hint < len(x.old) {
		pos, l = hint, common(x.old[hint:], t)
		if l >= wellLong {
			return pos, l
		}
	}
	if len(t) < seedLen {
		return pos, l
	}
	h := x.hash(t)
	tag := uint32(h << (32 - x.more))
	mask := uint32(uint64(1)<<(32-x.more) - 1)
	tries := 0
	list := x.places[x.first[h>>x.more]:x.first[h>>x.more+1]]
	for _, p := range list[:min(len(list), walkMax)] {
		if (p^tag)&^mask != 0 {
			continue
		}
		if tries++; tries > chainMax {
			break
		}
		// A better one agrees in the byte after the best so far.
		if o := int(p&mask) * x.unit; l < len(t) && o+l < len(x.old) && x.old[o+l] == t[l] {
			if m := common(x.old[o:], t); m > l {
				pos, l = o, m
				if l >= wellLong {
					break
				}
			}
		}
	}
	return pos, l
}

// common returns the length of the common prefix.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if d := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); d != 0 {
			return i + bits.TrailingZeros64(d)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
