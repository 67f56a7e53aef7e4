package lz4

import (
	"encoding/binary"

	"updraft/delta/patch/internal/parse"
)

const (
	lastPlain  = 5  // bytes at the end of a block that no match has
	lastMatch  = 12 // bytes in front of the end, of which none begins a match
	maxOffset  = 1<<16 - 1
	shortBlock = 64<<10 + lastMatch - 1 // below this, other hashes are used
	tableBits  = 12
	attempts   = 6 // so many bits of the attempts that fail are not counted in steps
	hash4      = 2654435761
	hash5      = 889523592379
)

// guess knows what LZ4_compress_default does next, as liblz4 (1.9) is built for 64 bits. Places count from the
// beginning of the block.
type guess struct {
	table [2 << tableBits]uint32
	b     []byte // plain bytes: those of the unit at the end
	first int    // the place of b[0]
	ends  bool   // the block ends with b
	short bool
}

// begin begins a block.
func (g *guess) begin() { clear(g.table[:]) }

// set gives the bytes of a unit, of a block that ends with it or not; b[0] has the place first.
func (g *guess) set(b []byte, first int, ends bool) {
	g.b, g.first, g.ends = b, first, ends
	g.short = ends && first+len(b) < shortBlock
}

func (g *guess) word(i int) uint32 { return binary.LittleEndian.Uint32(g.b[i:]) }

// swap makes b[i] the last place of its hash, and returns where in b the one before it is.
func (g *guess) swap(i int) int {
	v := binary.LittleEndian.Uint64(g.b[i:])
	var h uint32
	if g.short {
		h = uint32(v) * hash4 >> (32 - tableBits - 1)
	} else {
		h = uint32(v << 24 * hash5 >> (64 - tableBits))
	}
	was := int(g.table[h]) - g.first
	g.table[h] = uint32(i + g.first)
	return was
}

// same reports whether a match at b[i:] may begin at b[c:].
func (g *guess) same(c, i int) bool {
	return i-c <= maxOffset && c >= 0 && c < i && g.word(c) == g.word(i)
}

// next returns what is expected at b[from:], where a sequence begins; false: nothing, since that
// depends on what is behind b.
func (g *guess) next(from int) (row, bool) {
	end := len(g.b)
	i := from + 1
	switch {
	case g.ends && (end-from < lastMatch || from == -g.first && end-from <= lastMatch):
		return row{literals: uint32(end - from)}, true
	case end-from < 8:
		return row{}, false
	case from == -g.first:
		g.swap(from)
	default:
		g.swap(from - 2)
		if c := g.swap(from); g.same(c, from) {
			return g.match(from, from, c)
		}
	}
	for tries, step := 1<<attempts, 1; ; tries++ {
		at := i
		i += step
		step = tries >> attempts
		switch {
		case g.ends && i > end-lastMatch+1:
			return row{literals: uint32(end - from)}, true
		case !g.ends && i+8 > end:
			return row{}, false
		}
		if c := g.swap(at); g.same(c, at) {
			return g.match(from, at, c)
		}
	}
}

// match returns the sequence that begins at b[from:], with what agrees around b[at:] and b[c:].
func (g *guess) match(from, at, c int) (row, bool) {
	for at > from && c > 0 && c > -g.first && g.b[at-1] == g.b[c-1] {
		at--
		c--
	}
	most := len(g.b) - at
	if g.ends {
		most -= lastPlain
	}
	n := parse.Agree(g.b[c:], g.b[at:], most)
	if !g.ends && n == most {
		return row{}, false
	}
	return row{literals: uint32(at - from), length: uint32(n), offset: uint32(at - c)}, true
}
