package patch

// Binary arithmetic coding with logistic mixing of hashed contexts (M. Mahoney's PAQ
// is the origin of the method). All of it is integer arithmetic: every machine
// decodes the same.

// stretchTable is ln(p/(1-p)) in 1/256 for 12-bit p; squashTable its inverse, to 16
// bits, for -2047..2047.
var squashTable, stretchTable = logistic()

// logistic makes the tables from 33 points of the curve, 1/2 apart.
func logistic() (*[4096]uint16, *[4096]int16) {
	points := [33]int32{22, 36, 60, 98, 162, 267, 439, 724, 1179, 1940, 3108, 4971, 7812, 11953, 17625, 24743, 32768,
		40793, 47911, 53583, 57724, 60565, 62428, 63596, 64357, 64812, 65097, 65269, 65374, 65438, 65476, 65500, 65514}
	var sq [4096]uint16
	var st [4096]int16
	for i := range sq {
		k, w := i>>7, int32(i&127)
		sq[i] = uint16((points[k]*(128-w) + points[k+1]*w) >> 7)
	}
	at := 0
	for p := range st {
		for at < 4095 && int32(sq[at]) < int32(p)*16+8 {
			at++
		}
		st[p] = int16(at - 2048)
	}
	return &sq, &st
}

func squash(x int32) int32 { return int32(squashTable[max(-2047, min(2047, x))+2048]) }

func stretch(p int32) int32 { return int32(stretchTable[p&4095]) }

// coder is the arithmetic coder; the same calls encode and decode.
type coder struct {
	enc    bool
	lo, hi uint32
	x      uint32 // decoding: window of the input
	buf    []byte // output, or input
	at     int
}

func newEncoder() *coder { return &coder{enc: true, hi: ^uint32(0)} }

func newDecoder(b []byte) *coder {
	c := &coder{hi: ^uint32(0), buf: b}
	for range 4 {
		c.x = c.x<<8 | c.next()
	}
	return c
}

// next returns the next byte of the input, and zeros behind its end.
func (c *coder) next() uint32 {
	c.at++
	if c.at <= len(c.buf) {
		return uint32(c.buf[c.at-1])
	}
	return 0
}

// bit codes b, a one with probability p/65536.
func (c *coder) bit(b int, p int32) int {
	p = max(24, min(65536-24, p))
	mid := c.lo + uint32(uint64(c.hi-c.lo)*uint64(p)>>16)
	if !c.enc {
		b = 0
		if c.x <= mid {
			b = 1
		}
	}
	one := uint32(-b) // no branch: it could not be predicted
	c.lo = c.lo&one | (mid+1)&^one
	c.hi = mid&one | c.hi&^one
	if (c.lo^c.hi)>>24 == 0 {
		c.shift()
	}
	return b
}

// shift moves leading bytes that agree out of the bounds.
func (c *coder) shift() {
	for (c.lo^c.hi)>>24 == 0 {
		if c.enc {
			c.buf = append(c.buf, byte(c.hi>>24))
		} else {
			c.x = c.x<<8 | c.next()
		}
		c.lo <<= 8
		c.hi = c.hi<<8 | 255
	}
}

// finish ends the output; zeros that a decoder reads anyway are left out.
func (c *coder) finish() []byte {
	c.buf = append(c.buf, byte(c.hi>>24))
	return c.buf
}

// slot is an adaptive probability: 22 bits of it, and how often it was used.
type slot uint32

const slotHalf = slot(1 << 31)

// steps are how far a slot moves, by how often it was used, in 1/65536.
var steps = makeSteps()

func makeSteps() *[1024]uint16 {
	var t [1024]uint16
	for i := range t {
		t[i] = uint16(65536 * 2 / (2*i + 3))
	}
	return &t
}

// after returns v after decision b.
func (v slot) after(b int, limit uint32) slot {
	n, p := uint32(v)&1023, int64(v>>10)
	p += (int64(b)*(1<<22-1) - p) * int64(steps[n]) >> 16
	if n < limit {
		n++
	}
	return slot(uint32(p)<<10 | n)
}

func (s *slot) code(c *coder, b int, limit uint32) int {
	b = c.bit(b, int32(*s>>16))
	*s = s.after(b, limit)
	return b
}

// maxWays is the most contexts that a decision is coded under.
const maxWays = 7

// predictor codes decisions of one kind, each under several contexts: every context
// has a slot for it; their answers are mixed by weights.
type predictor struct {
	ways    int
	slots   []slot
	shift   uint
	limit   uint32
	weights []weights
	curves  [][33]uint16
	seen    slot // what touch saw, so that it looks
}

// weights are two for each context, and in the end one that stands by itself.
type weights [maxWays + 1][2]int32

// cells are the slots of a decision, one for each context.
type cells [maxWays]*slot

// newPredictor makes a predictor with 1<<bits slots, sets sets of weights and curves
// curves of secondary estimation; slots adapt by 1/limit in the end.
func newPredictor(ways int, bits uint, sets, curves int, limit uint32) *predictor {
	return &predictor{ways: ways, shift: 32 - bits, limit: limit, slots: make([]slot, 1<<bits),
		weights: make([]weights, sets), curves: make([][33]uint16, curves)}
}

func (m *predictor) reset() {
	for i := range m.slots {
		m.slots[i] = slotHalf
	}
	for i := range m.weights {
		for k := range m.weights[i] {
			m.weights[i][k] = [2]int32{65536 * 3 / 10, 65536 * 3 / 10}
		}
	}
	for i := range m.curves {
		for k := range m.curves[i] {
			m.curves[i][k] = uint16(squash(int32(k-16) * 128))
		}
	}
}

// scatter spreads hash h of context i over 32 bits.
func scatter(h uint32, i int) uint32 {
	k := (h + uint32(i)*0x85EBCA6B) * 0x2C1B3C6D
	return (k ^ k>>15) * 0x9E3779B1
}

// choose takes one slot for each context of h.
func (m *predictor) choose(h *[maxWays]uint32) (out cells) {
	for i := range min(m.ways, maxWays) {
		out[i] = &m.slots[scatter(h[i], i)>>m.shift]
	}
	return out
}

// row is what a context has for half a byte: a tag, and a slot for each of the
// decisions that may come, the first at 1.
type row [16]slot

// freshRow is a row that nothing has used.
var freshRow = row{1: slotHalf, slotHalf, slotHalf, slotHalf, slotHalf, slotHalf, slotHalf, slotHalf,
	slotHalf, slotHalf, slotHalf, slotHalf, slotHalf, slotHalf, slotHalf}

// touch looks at the rows that open will want: a processor waits for memory once so,
// and not for each.
func (m *predictor) touch(h *[maxWays]uint32, sub uint32) {
	seen := slot(0)
	for i := range min(m.ways, maxWays) {
		at := scatter(h[i]+sub*0x9E3779B1, i) >> m.shift &^ 15
		seen ^= m.slots[at] ^ m.slots[at^16]
	}
	m.seen = seen
}

// open takes a row for each context of h: one that another context has used starts
// afresh.
func (m *predictor) open(rows *[maxWays]*row, h *[maxWays]uint32, sub uint32) {
	for i := range min(m.ways, maxWays) {
		k := scatter(h[i]+sub*0x9E3779B1, i)
		at := k >> m.shift &^ 15
		tag := slot(k<<10 | 1)
		r := (*row)(m.slots[at:])
		if r[0] != tag {
			other := (*row)(m.slots[at^16:])
			if other[0] == tag {
				r = other
			} else {
				if other[1]&1023 < r[1]&1023 {
					r = other
				}
				*r = freshRow
				r[0] = tag
			}
		}
		rows[i] = r
	}
}

// high returns what open wants to be told for the low half of x.
func high(x byte) uint32 { return 16 | uint32(x>>4) }

// byte codes x bit by bit from the highest, with the contexts in h; set and curve
// are the first of 256 each. What is known of the rows has been touched.
func (m *predictor) byte(c *coder, h *[maxWays]uint32, x, set, curve int) byte {
	k := 1
	for half := 4; half >= 0; half -= 4 {
		sub := uint32(0)
		if half == 0 {
			if sub = uint32(k); !c.enc {
				m.touch(h, sub)
			}
		}
		var rows [maxWays]*row
		m.open(&rows, h, sub)
		node := 1
		for i := half + 3; i >= half; i-- {
			var at cells
			for w := range min(m.ways, maxWays) {
				at[w] = &rows[w][node&15]
			}
			bit := m.code(c, &at, x>>i&1, set+k, curve+k)
			node, k = node<<1|bit, k<<1|bit
		}
	}
	return byte(k)
}

// code codes b with the slots at.
func (m *predictor) code(c *coder, at *cells, b int, set, curve int) int {
	n := min(m.ways, maxWays)
	w := &m.weights[set]
	var x [maxWays][2]int32
	dot := int64(w[maxWays][0]) << 8
	for i := range n {
		v := *at[i]
		p, u := int32(v>>20), int32(v&1023)
		t := stretch(p)
		if u == 0 {
			t = 0
		}
		r := (p - 2048) * min(u, 16) >> 5
		x[i] = [2]int32{t, r}
		dot += int64(t)*int64(w[i][0]) + int64(r)*int64(w[i][1])
	}
	pm := squash(int32(max(-1<<20, min(1<<20, dot>>16))))
	y := stretch(pm>>4) + 2048
	a, f := &m.curves[curve], y&127
	lo, hi := &a[y>>7], &a[y>>7+1]
	pa := (int32(*lo)*(128-f) + int32(*hi)*f) >> 7
	b = c.bit(b, (pm+pa)/2)
	if e := (int32(b<<16) - pm) * 14; e > 1<<10 || e < -1<<10 { // |e*x| < 1<<31
		for i := range n {
			w[i][0] += (x[i][0]*e + 1<<17) >> 18
			w[i][1] += (x[i][1]*e + 1<<17) >> 18
		}
		w[maxWays][0] += (e<<8 + 1<<17) >> 18
	}
	for _, s := range at[:n] {
		*s = s.after(b, m.limit)
	}
	g := int32(b * 65535)
	*lo = uint16(int32(*lo) + (g-int32(*lo))>>6)
	*hi = uint16(int32(*hi) + (g-int32(*hi))>>6)
	return b
}

// numbers codes integers: their length in unary, the leading bits adaptively.
type numbers struct {
	slots map[uint32]*slot
	over  bool // one was too large to be coded
}

func (n *numbers) bit(c *coder, b int, k uint32) int {
	s := n.slots[k]
	if s == nil {
		s = new(slot)
		*s = slotHalf
		n.slots[k] = s
	}
	return s.code(c, b, 60)
}

// code codes v, below 1<<56 - 1, under context id.
func (n *numbers) code(c *coder, v uint64, id uint32) uint64 {
	if v++; c.enc && v-1 >= 1<<56-1 { // a decoder reads no longer length
		n.over, v = true, 1
	}
	l := 0
	if c.enc {
		for v>>uint(l+1) != 0 {
			n.bit(c, 1, id<<16|uint32(l))
			l++
		}
		n.bit(c, 0, id<<16|uint32(l))
	} else {
		for l < 56 && n.bit(c, 0, id<<16|uint32(l)) == 1 {
			l++
		}
	}
	r := uint64(1)
	for i := l - 1; i >= 0; i-- {
		b := int(v >> uint(i) & 1)
		if i >= l-3 {
			b = n.bit(c, b, id<<16|1<<15|uint32(l)<<8|uint32(r&7)<<3|uint32(l-i))
		} else {
			b = c.bit(b, 32768)
		}
		r = r<<1 | uint64(b)
	}
	return r - 1
}
