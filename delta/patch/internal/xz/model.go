package xz

import "fmt"

const (
	states    = 12
	posStates = 16
	probBits  = 11
	probInit  = 1 << probBits / 2
	moveBits  = 5
	rangeTop  = 1 << 24
)

// model is what LZMA's coder and decoder have in common: the state machine over kinds
// of symbols and the probabilities, which are of zeros.
type model struct {
	lc, lpMask, posMask uint32
	state               uint32
	reps                [4]uint32 // distances, minus 1

	flags
	slot    [4][64]uint16
	special [128]uint16
	align   [16]uint16
	match   lengths
	rep     lengths
	literal [16 * 0x300]uint16
}

// flags are the probabilities of the decisions between kinds of symbols.
type flags struct {
	isMatch  [states][posStates]uint16
	isRep    [states]uint16
	notRep0  [states]uint16
	notRep1  [states]uint16
	notRep2  [states]uint16
	longRep0 [states][posStates]uint16
}

// lengths are the probabilities of a match's length.
type lengths struct {
	notLow, notMid uint16
	low, mid       [posStates][8]uint16
	high           [256]uint16
}

// properties sets lc, lp and pb.
func (m *model) properties(v byte) error {
	lc, lp, pb := v%9, v/9%5, v/45
	if pb > 4 || lc+lp > 4 {
		return fmt.Errorf("properties %02x", v)
	}
	m.lc, m.lpMask, m.posMask = uint32(lc), 1<<lp-1, 1<<pb-1
	return nil
}

// reset forgets what was coded.
func (m *model) reset() {
	m.state, m.reps = 0, [4]uint32{}
	for i := range states {
		fill(m.isMatch[i][:])
		fill(m.longRep0[i][:])
	}
	fill(m.isRep[:])
	fill(m.notRep0[:])
	fill(m.notRep1[:])
	fill(m.notRep2[:])
	for i := range m.slot {
		fill(m.slot[i][:])
	}
	fill(m.special[:])
	fill(m.align[:])
	m.match.reset()
	m.rep.reset()
	fill(m.literal[:0x300*(m.lpMask+1)<<m.lc])
}

func (l *lengths) reset() {
	l.notLow, l.notMid = probInit, probInit
	for i := range posStates {
		fill(l.low[i][:])
		fill(l.mid[i][:])
	}
	fill(l.high[:])
}

func fill(p []uint16) {
	for i := range p {
		p[i] = probInit
	}
}

// literals returns the probabilities for a literal at pos behind the byte prev.
func (m *model) literals(pos uint32, prev byte) *[0x300]uint16 {
	at := 0x300 * ((pos&m.lpMask)<<m.lc + uint32(prev)>>(8-m.lc))
	return (*[0x300]uint16)(m.literal[at:])
}

// behindMatch reports whether the last symbol was not a literal.
func (m *model) behindMatch() bool { return m.state >= 7 }

// nextState has the state after a literal, a match, a longer repeated match and one of
// a single byte.
var nextState = [4][states]uint8{
	{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 4, 5},
	{7, 7, 7, 7, 7, 7, 7, 10, 10, 10, 10, 10},
	{8, 8, 8, 8, 8, 8, 8, 11, 11, 11, 11, 11},
	{9, 9, 9, 9, 9, 9, 9, 11, 11, 11, 11, 11},
}

const (
	afterLiteral = iota
	afterMatch
	afterRep
	afterShort
)

func (m *model) after(what int) { m.state = uint32(nextState[what][m.state]) }

// repeat makes the distance of rep k the last one.
func (m *model) repeat(k int) {
	d := m.reps[k]
	copy(m.reps[1:k+1], m.reps[:k])
	m.reps[0] = d
}

// push makes d the last distance.
func (m *model) push(d uint32) {
	copy(m.reps[1:], m.reps[:3])
	m.reps[0] = d
}

// slotState chooses the probabilities of a distance by the match's length.
func slotState(length uint32) uint32 { return min(length-minMatch, 3) }
