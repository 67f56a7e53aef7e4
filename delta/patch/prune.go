package patch

import (
	"bytes"
	"fmt"
	"io"
	"math/bits"
)

const (
	pruneLen   = 96      // longer covers always pay
	moveLen    = 64      // longer covers stay where they are
	moveWindow = 8 << 10 // how far from the cover before the same bytes are looked for
	guessBits  = 18
	guessLook  = 3        // bytes in front of a byte that its guess looks at
	guessAhead = 64 << 10 // of literals in a row, what guesses learn from
)

// prune returns cs without covers that take more in a patch than the bytes that they
// give would as literals. Short ones from far away are replaced by the same bytes near
// the end of the cover before, where these are.
func prune(old []byte, fresh Source, cs []cover) ([]cover, error) {
	out := cs[:0]
	g := newGuess(fresh)
	n, o := 0, 0 // where the cover before ends
	for i, c := range cs {
		if c.n>>22 != n>>22 { // another segment, about
			g.reset()
		}
		if err := g.learn(max(n, c.n-guessAhead), c.n); err != nil {
			return nil, err
		}
		if c.l < moveLen {
			b, err := g.read(c.n, c.n+c.l)
			if err != nil {
				return nil, err
			}
			if d := c.o - o; d > moveWindow || d < -1<<10 {
				c.o = closer(old, b[len(b)-c.l:], c.o, o)
			}
		}
		if c.l < pruneLen {
			saved := distance(c.o-o) + coverCost
			if i+1 < len(cs) {
				saved += distance(cs[i+1].o-c.o-c.l) - distance(cs[i+1].o-o)
			}
			lits, err := g.bits(c.n, c.n+c.l)
			if err != nil {
				return nil, err
			}
			if lits < saved {
				if err := g.learn(c.n, c.n+c.l); err != nil {
					return nil, err
				}
				n = c.n + c.l
				continue
			}
		}
		out = append(out, c)
		n, o = c.n+c.l, c.o+c.l
	}
	return out, nil
}

// closer returns where in old the bytes want, which are about at o, are nearest to at.
func closer(old, want []byte, o, at int) int {
	if !bytes.Equal(old[o:o+len(want)], want) {
		return o
	}
	if i := bytes.Index(old[at:min(at+moveWindow, len(old))], want); i >= 0 {
		return at + i
	}
	lo := max(0, at-moveWindow)
	if bytes.Contains(old[lo:at], want) { // mostly not, and LastIndex is slow
		return lo + bytes.LastIndex(old[lo:at], want)
	}
	return o
}

// coverCost is about what a cover takes in the index besides the distance from the one
// before, and for the flags that begin it, in 1/16 bits.
const coverCost = 12 * 16

// distance returns about what it takes to say how far a cover is from the one before,
// in 1/16 bits.
func distance(d int) int { return 16 * (3 + bits.Len64(uint64(max(d, -d)))) }

// guess tells about what bytes take as literals.
type guess struct {
	new   *window
	slots [guessLook][1 << guessBits]uint16
}

func newGuess(src Source) *guess {
	g := &guess{new: newWindow(src)}
	g.reset()
	return g
}

func (g *guess) reset() {
	for i := range g.slots {
		for k := range g.slots[i] {
			g.slots[i][k] = 1 << 15
		}
	}
}

// read returns bytes lo to hi, behind what is looked at in front of them; lo is not in
// front of any lo before.
func (g *guess) read(lo, hi int) ([]byte, error) {
	lo = max(0, lo-guessLook)
	b, err := g.new.from(lo)
	if err == nil && hi > g.new.hi() && hi <= g.new.size {
		err = g.new.move(lo)
		b = g.new.buf
	}
	if err == nil && len(b) < hi-lo {
		err = fmt.Errorf("patch: read: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return nil, err
	}
	return b[:hi-lo], nil
}

// nibble is half a byte, with the row of slots that each context has for it: one for
// each of the decisions that may come, the first at 1.
type nibble struct {
	rows [guessLook]*[16]uint16
	v    uint32
}

// each calls fn for the halves of bytes lo to hi.
func (g *guess) each(lo, hi int, fn func(n *nibble)) error {
	b, err := g.read(lo, hi)
	if err != nil {
		return err
	}
	var n nibble
	for i := len(b) - (hi - lo); i < len(b); i++ {
		var h [guessLook]uint32
		for k := range min(i, guessLook) {
			h[k] = uint32(b[i-1-k])
			if k > 0 {
				h[k] |= h[k-1] << 8
			}
		}
		high := uint32(b[i] >> 4)
		for _, half := range [2][2]uint32{{0, high}, {1<<4 | high, uint32(b[i] & 15)}} {
			for w := range n.rows {
				at := (h[w]*0x9E3779B1 ^ half[0]*0x85EBCA6B) * 0x2C1B3C6D >> (32 - guessBits) &^ 15
				n.rows[w] = (*[16]uint16)(g.slots[w][at:])
			}
			n.v = half[1]
			fn(&n)
		}
	}
	return nil
}

// learn notes that bytes lo to hi are literals.
func (g *guess) learn(lo, hi int) error {
	return g.each(lo, hi, func(n *nibble) {
		for _, row := range n.rows {
			node := uint32(1)
			for k := 3; k >= 0; k-- {
				p, bit := &row[node&15], n.v>>k&1
				ones := uint16(-bit) // no branch: it could not be predicted
				rest := *p ^ ones
				*p = (rest - rest>>3) ^ ones
				node = node<<1 | bit
			}
		}
	})
}

// bits returns what bytes lo to hi take, in 1/16 bits.
func (g *guess) bits(lo, hi int) (int, error) {
	t := 0
	err := g.each(lo, hi, func(n *nibble) {
		node := uint32(1)
		for k := 3; k >= 0; k-- {
			x := int32(0)
			for _, row := range n.rows {
				x += stretch(int32(row[node&15] >> 4))
			}
			p, bit := squash(x*5/8), n.v>>k&1
			if bit == 0 {
				p = 65536 - p
			}
			t += 16*16 - log16(uint32(p))
			node = node<<1 | bit
		}
	})
	// Coders do better: they know what was there before, and more of it.
	return t * 6 / 16, err
}

// log16 returns 16 times the binary logarithm of v, about.
func log16(v uint32) int {
	l := bits.Len32(v) - 1
	return 16*l + int(v<<4>>l&15)
}
