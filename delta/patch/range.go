package patch

import (
	"encoding/binary"
	"math/bits"
)

// prob is the probability of a one, in 1/65536.
type prob uint16

const (
	probHalf = prob(1 << 15)
	probRate = 4
)

// moved returns s, within 15..65520, after a decision: ones is all ones after a one,
// and 0 after a zero.
func (s prob) moved(ones uint64) prob {
	return prob(int32(s) + (15+int32(ones&65520)-int32(s))>>probRate)
}

// rangeCoder is the binary arithmetic coder of plain segments: 64 bits of range, so that
// it reads or writes four bytes at a time, and seldom. Encoding, it keeps the lower end
// of the range; decoding, how far above that the input is.
type rangeCoder struct {
	interval
	enc bool
	lo  uint64
	buf []byte // output, or what is left of the input
	got uint64 // the last eight bytes of the input
}

// interval is the state of a decoder, apart to be kept in registers: the size of the range
// and how far above its lower end the input is.
type interval struct{ size, x uint64 }

// narrow is the size of a range that has to be made larger: two decisions are possible
// from there.
const narrow = 1 << 32

func (c *rangeCoder) reset(enc bool, in []byte) {
	*c = rangeCoder{interval: interval{size: ^uint64(0)}, enc: enc, buf: in}
	if !enc {
		c.got = uint64(c.next())<<32 | uint64(c.next())
		c.x = c.got
	}
}

// next returns the next four bytes of the input, zeros behind its end.
func (c *rangeCoder) next() uint32 {
	if len(c.buf) >= 4 {
		v := binary.BigEndian.Uint32(c.buf)
		c.buf = c.buf[4:]
		return v
	}
	var b [4]byte
	copy(b[:], c.buf)
	c.buf = nil
	return binary.BigEndian.Uint32(b[:])
}

// refill makes the range of s, which is narrow, larger.
//
//go:noinline
func (c *rangeCoder) refill(s interval) interval {
	v := uint64(c.next())
	c.got = c.got<<32 | v
	return interval{s.size << 32, s.x<<32 | v}
}

// under decodes a decision that is a one with probability p/65536. All ones: it is one.
func (s interval) under(p uint64) (interval, uint64) {
	mid := s.size >> 16 * p
	x, ones := bits.Sub64(s.x, mid, 0)
	ones = -ones // no branch: it could not be predicted
	return interval{s.size - mid ^ (s.size-mid^mid)&ones, x + mid&ones}, ones
}

// code codes b, a one with probability p/65536.
func (c *rangeCoder) code(b int, p uint64) int {
	if !c.enc {
		s, ones := c.under(p)
		if s.size < narrow {
			s = c.refill(s)
		}
		c.interval = s
		return int(ones & 1)
	}
	mid := c.size >> 16 * p
	if b == 1 {
		c.size = mid
	} else {
		c.add(mid)
		c.size -= mid
	}
	if c.size < narrow {
		c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(c.lo>>32))
		c.lo, c.size = c.lo<<32, c.size<<32
	}
	return b
}

// add moves the lower end of the range up.
func (c *rangeCoder) add(v uint64) {
	if c.lo += v; c.lo < v {
		for i := len(c.buf) - 1; i >= 0; i-- {
			if c.buf[i]++; c.buf[i] != 0 {
				break
			}
		}
	}
}

// short returns how far above lo the end of the shortest output is that lies within a
// range of size bytes from there, with zeros behind it.
func short(lo, size uint64) uint64 {
	for k := 56; k > 0; k -= 8 {
		if up := -lo & (1<<k - 1); up < size {
			return up
		}
	}
	return 0
}

// ended reports whether the input ends here, and as finish ends it.
func (c *rangeCoder) ended() bool { return len(c.buf) == 0 && c.x == short(c.got-c.x, c.size) }

// finish ends the output.
func (c *rangeCoder) finish() []byte {
	c.add(short(c.lo, c.size))
	c.buf = binary.BigEndian.AppendUint64(c.buf, c.lo)
	for len(c.buf) > 0 && c.buf[len(c.buf)-1] == 0 {
		c.buf = c.buf[:len(c.buf)-1]
	}
	return c.buf
}
