package patch

// Binary arithmetic coding with logistic mixing of hashed contexts (M. Mahoney's PAQ
// is the origin of the method). All of it is integer arithmetic: every machine
// decodes the same.

// stretchTable is ln(p/(1-p)) in 1/256 for 12-bit p; squashTable its inverse, to 16
// bits, for -2047..2047.
var squashTable, stretchTable = logistic()

// logistic makes the tables from 33 points of the curve, 1/2 apart.
func logistic() (*[4096]int32, *[4096]int32) {
	points := [33]int32{22, 36, 60, 98, 162, 267, 439, 724, 1179, 1940, 3108, 4971, 7812, 11953, 17625, 24743, 32768,
		40793, 47911, 53583, 57724, 60565, 62428, 63596, 64357, 64812, 65097, 65269, 65374, 65438, 65476, 65500, 65514}
	var sq, st [4096]int32
	for i := range sq {
		k, w := i>>7, int32(i&127)
		sq[i] = (points[k]*(128-w) + points[k+1]*w) >> 7
	}
	at := 0
	for p := range st {
		for at < 4095 && sq[at] < int32(p)*16+8 {
			at++
		}
		st[p] = int32(at) - 2048
	}
	return &sq, &st
}

func squash(x int32) int32 { return squashTable[max(-2047, min(2047, x))+2048] }

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

func makeSteps() *[1024]int64 {
	var t [1024]int64
	for i := range t {
		t[i] = int64(65536*2) / int64(2*i+3)
	}
	return &t
}

func (s *slot) update(b int, limit uint32) {
	v := uint32(*s)
	n, p := v&1023, int64(v>>10)
	p += (int64(b)*(1<<22-1) - p) * steps[n] >> 16
	if n < limit {
		n++
	}
	*s = slot(uint32(p)<<10 | n)
}

func (s *slot) code(c *coder, b int, limit uint32) int {
	b = c.bit(b, int32(*s>>16))
	s.update(b, limit)
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
	cell    [maxWays]*slot // of the decision at hand
	rows    [maxWays]*[16]slot
	weights [][2*maxWays + 1]int32
	curves  [][33]uint16
	x       [2*maxWays + 1]int32
}

// newPredictor makes a predictor with 1<<bits slots, sets sets of weights and curves
// curves of secondary estimation; slots adapt by 1/limit in the end.
func newPredictor(ways int, bits uint, sets, curves int, limit uint32) *predictor {
	return &predictor{ways: ways, shift: 32 - bits, limit: limit, slots: make([]slot, 1<<bits),
		weights: make([][2*maxWays + 1]int32, sets), curves: make([][33]uint16, curves)}
}

func (m *predictor) reset() {
	for i := range m.slots {
		m.slots[i] = slotHalf
	}
	for i := range m.weights {
		for k := range m.weights[i] {
			m.weights[i][k] = 65536 * 3 / 10
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
func (m *predictor) choose(h *[maxWays]uint32) {
	for i := range m.ways {
		m.cell[i] = &m.slots[scatter(h[i], i)>>m.shift]
	}
}

// freshRow is a row that nothing has used.
var freshRow = [16]slot{1: slotHalf, slotHalf, slotHalf, slotHalf, slotHalf, slotHalf, slotHalf, slotHalf,
	slotHalf, slotHalf, slotHalf, slotHalf, slotHalf, slotHalf, slotHalf}

// open takes a row of 15 slots for each context of h. The first of the 16 in a row
// holds a tag: a row that another context has used starts afresh.
func (m *predictor) open(h *[maxWays]uint32, sub uint32) {
	for i := range m.ways {
		k := scatter(h[i]+sub*0x9E3779B1, i)
		at := k >> m.shift &^ 15
		tag := slot(k<<10 | 1)
		row := (*[16]slot)(m.slots[at:])
		if row[0] != tag {
			other := (*[16]slot)(m.slots[at^16:])
			if other[0] == tag {
				row = other
			} else {
				if other[1]&1023 < row[1]&1023 {
					row = other
				}
				*row = freshRow
				row[0] = tag
			}
		}
		m.rows[i] = row
	}
}

// byte codes x bit by bit from the highest, with the contexts in h; set and curve
// are the first of 256 each.
func (m *predictor) byte(c *coder, h *[maxWays]uint32, x, set, curve int) byte {
	m.open(h, 0)
	k := 1
	for i := 7; i >= 4; i-- {
		for w := range m.ways {
			m.cell[w] = &m.rows[w][k&15]
		}
		k = k<<1 | m.code(c, x>>i&1, set+k, curve+k)
	}
	m.open(h, uint32(k))
	node := 1
	for i := 3; i >= 0; i-- {
		for w := range m.ways {
			m.cell[w] = &m.rows[w][node&15]
		}
		bit := m.code(c, x>>i&1, set+k, curve+k)
		node, k = node<<1|bit, k<<1|bit
	}
	return byte(k)
}

// code codes b with the slots in m.cell.
func (m *predictor) code(c *coder, b int, set, curve int) int {
	n := min(m.ways, maxWays)
	w, x, cell := &m.weights[set], &m.x, &m.cell
	dot := int64(w[2*maxWays]) << 8
	for i := range n {
		v := *cell[i]
		p, u := int32(v>>20), min(int32(v&1023), 16)
		r := (p - 2048) * u >> 5
		t := stretchTable[p&4095]
		if u == 0 {
			t = 0
		}
		x[2*i], x[2*i+1] = t, r
		dot += int64(t)*int64(w[2*i]) + int64(r)*int64(w[2*i+1])
	}
	pm := squash(int32(max(-1<<20, min(1<<20, dot>>16))))
	y := stretchTable[pm>>4&4095] + 2048
	a, f := &m.curves[curve], y&127
	lo, hi := &a[y>>7], &a[y>>7+1]
	pa := (int32(*lo)*(128-f) + int32(*hi)*f) >> 7
	b = c.bit(b, (pm+pa)/2)
	if e := (int32(b<<16) - pm) * 14; e > 1<<10 || e < -1<<10 { // |e*x| < 1<<31
		for i := range 2 * n {
			w[i] = max(-1<<24, min(1<<24, w[i]+(x[i]*e+1<<17)>>18))
		}
		w[2*maxWays] = max(-1<<24, min(1<<24, w[2*maxWays]+(e<<8+1<<17)>>18))
	}
	for _, s := range cell[:n] {
		s.update(b, m.limit)
	}
	g := int32(b * 65535)
	*lo = uint16(int32(*lo) + (g-int32(*lo))>>6)
	*hi = uint16(int32(*hi) + (g-int32(*hi))>>6)
	return b
}

// numbers codes integers: their length in unary, the leading bits adaptively.
type numbers struct{ slots map[uint32]*slot }

func (n *numbers) bit(c *coder, b int, k uint32) int {
	s := n.slots[k]
	if s == nil {
		s = new(slot)
		*s = slotHalf
		n.slots[k] = s
	}
	return s.code(c, b, 60)
}

// code codes v, below 1<<56, under context id.
func (n *numbers) code(c *coder, v uint64, id uint32) uint64 {
	v++
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
