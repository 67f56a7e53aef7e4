package parse

import (
	"encoding/binary"
	"math/bits"
)

const (
	// Near is how far back a Chain leads, in bytes.
	Near = 128 << 10
	// ChainBits is how many bits hashes have.
	ChainBits = 15
)

// Chain knows, for places that are entered one after the other, where the same hash
// was before. Places are numbers that may wrap; 0, none, has to be too far from all.
type Chain struct {
	last  [1 << ChainBits]uint32
	steps [Near]uint16
}

// Reset forgets all.
func (c *Chain) Reset() { clear(c.last[:]) }

// Enter makes at the last place of hash h.
func (c *Chain) Enter(h, at uint32) {
	step := at - c.last[h]
	if step > 1<<16-1 {
		step = 0
	}
	c.steps[at%Near] = uint16(step)
	c.last[h] = at
}

// Last returns the last place of hash h.
func (c *Chain) Last(h uint32) uint32 { return c.last[h] }

// Step returns how far in front of at, not more than Near behind the last place that was
// entered, the one of the same hash is; 0: there is none within 65535.
func (c *Chain) Step(at uint32) uint32 { return uint32(c.steps[at%Near]) }

// Agree returns how many bytes of a and b agree, at most most, which both have.
func Agree(a, b []byte, most int) int {
	a, b = a[:most], b[:most]
	n := 0
	for ; len(a)-n >= 8; n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < most && a[n] == b[n] {
		n++
	}
	return n
}
