package patch

import "encoding/binary"

// symbols are the probabilities of 16 symbols: how much of learned those in front of
// each have together, as 17 numbers of 16 bits, little-endian; and how many symbols came,
// as far as that matters. Symbol n takes the part from F(n)+n to F(n+1)+n+1 of 32768.
type symbols [35]byte

const (
	learned = 1<<15 - 16
	settled = 128 // symbols after which the pace does not change any more
	// Of four numbers of 16 bits in one of 64:
	four    = 1<<48 | 1<<32 | 1<<16 | 1
	highest = four << 15
	ramp    = 4<<48 | 3<<32 | 2<<16 | 1
)

// pace is how symbols learn: each number loses its 1<<shift'th part, and those behind the
// symbol that came gain as much of learned.
type pace struct {
	shift uint
	keep  uint64 // what of four shifted numbers is theirs
	gain  [16][4]uint64
}

// paces are those of symbols that saw so many.
var paces = func() (t [settled + 1]*pace) {
	for _, p := range []struct {
		shift uint
		from  int
	}{{3, 0}, {4, 4}, {5, 16}, {6, settled}} {
		q := newPace(p.shift)
		for i := p.from; i < len(t); i++ {
			t[i] = q
		}
	}
	return t
}()

func newPace(shift uint) *pace {
	p := &pace{shift: shift, keep: four * (1<<(16-shift) - 1)}
	for n := range p.gain {
		for i := n; i < 16; i++ {
			p.gain[n][i/4] |= learned >> shift << (i % 4 * 16)
		}
	}
	return p
}

// flat are symbols that are all alike.
var flat = func() (t symbols) {
	for i := range 17 {
		binary.LittleEndian.PutUint16(t[2*i:], uint16(learned/16*i))
	}
	return t
}()

// within returns how many of four numbers are at most v: ones.
func within(v, a uint64) uint64 { return (v - a) & highest >> 15 }

// find returns the symbol that has v, below 32768, by all 16 numbers but the first.
func find(v, a, b, c, d uint64) uint64 {
	v = v*four | highest
	return (within(v, a+ramp) + within(v, b+ramp+4*four) + within(v, c+ramp+8*four) + within(v, d+ramp+12*four)) * four >> 48
}

// part returns where the part of symbol n begins, and its size.
func (t *symbols) part(n uint64) (from, size uint64) {
	w := uint64(binary.LittleEndian.Uint32(t[n&15*2:]))
	return w&65535 + n, w>>16 - w&65535 + 1
}

// pace returns how t learns from the symbol that comes now.
func (t *symbols) pace() *pace {
	p := paces[min(t[34], settled)]
	if t[34] < settled {
		t[34]++
	}
	return p
}

// moved returns four numbers, a, after a symbol for which they gain g.
func (p *pace) moved(a, g uint64) uint64 { return a - a>>(p.shift&63)&p.keep + g }

// learn notes that symbol n came; a to d are the numbers.
func (t *symbols) learn(n, a, b, c, d uint64) {
	p, le := t.pace(), binary.LittleEndian
	g := &p.gain[n&15]
	le.PutUint64(t[2:], p.moved(a, g[0]))
	le.PutUint64(t[10:], p.moved(b, g[1]))
	le.PutUint64(t[18:], p.moved(c, g[2]))
	le.PutUint64(t[26:], p.moved(d, g[3]))
}

// symbol codes v, below 16.
func (c *numeralCoder) symbol(s states, t *symbols, v uint64) (states, uint64) {
	le := binary.LittleEndian
	w, x, y, z := le.Uint64(t[2:]), le.Uint64(t[10:]), le.Uint64(t[18:]), le.Uint64(t[26:])
	if !c.enc {
		v = find(s.x&65535>>1, w, x, y, z)
	}
	from, size := t.part(v)
	t.learn(v, w, x, y, z)
	if c.enc {
		c.step(2*from, 2*size)
	} else if s = s.taken(from, size); s.y < lowest {
		s = c.refill(s)
	}
	return s, v
}

// taken decodes a decision whose part is from..from+size of 32768. The state that made
// it is y then, and may have to be refilled.
func (s states) taken(from, size uint64) states {
	return states{s.y, s.x>>16*size*2 + s.x&65535 - 2*from}
}

// half is half of each of four numbers.
func half(a uint64) uint64 { return a >> 1 &^ highest }

// either is symbol with the mean of two.
func (c *numeralCoder) either(s states, t, u *symbols, v uint64) (states, uint64) {
	le := binary.LittleEndian
	tw, tx, ty, tz := le.Uint64(t[2:]), le.Uint64(t[10:]), le.Uint64(t[18:]), le.Uint64(t[26:])
	uw, ux, uy, uz := le.Uint64(u[2:]), le.Uint64(u[10:]), le.Uint64(u[18:]), le.Uint64(u[26:])
	if !c.enc {
		v = find(s.x&65535>>1, half(tw)+half(uw), half(tx)+half(ux), half(ty)+half(uy), half(tz)+half(uz))
	}
	w := half(uint64(le.Uint32(t[v&15*2:]))) + half(uint64(le.Uint32(u[v&15*2:])))
	t.learn(v, tw, tx, ty, tz)
	u.learn(v, uw, ux, uy, uz)
	from, size := w&65535+v, w>>16-w&65535+1
	if c.enc {
		c.step(2*from, 2*size)
	} else if s = s.taken(from, size); s.y < lowest {
		s = c.refill(s)
	}
	return s, v
}

// byteSymbols are the probabilities of bytes: of the high halves, and of the low ones
// behind each of those.
type byteSymbols [17]symbols

// byte codes v.
func (c *numeralCoder) byte(s states, t *byteSymbols, v byte) (states, byte) {
	s, hi := c.symbol(s, &t[0], uint64(v>>4))
	s, lo := c.symbol(s, &t[hi&15+1], uint64(v&15))
	return s, byte(hi<<4 | lo)
}

// bytes is byte with the mean of two.
func (c *numeralCoder) bytes(s states, t, u *byteSymbols, v byte) (states, byte) {
	s, hi := c.either(s, &t[0], &u[0], uint64(v>>4))
	s, lo := c.either(s, &t[hi&15+1], &u[hi&15+1], uint64(v&15))
	return s, byte(hi<<4 | lo)
}
