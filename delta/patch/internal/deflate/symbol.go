package deflate

// Limits of the format.
const (
	minMatch  = 3
	maxMatch  = 258
	maxWindow = 32 << 10
	litCodes  = 286
	distCodes = 30
	lenCodes  = 19 // of the code for code lengths
	endBlock  = 256
)

// Kinds of blocks, as in their header.
const (
	kindStored  = 0
	kindFixed   = 1
	kindDynamic = 2
)

// token is a literal (its byte) or a match (matchFlag, length and distance).
type token uint32

const (
	matchFlag = 1 << 31
	tokenEnd  = token(endBlock) // of a block
)

func matchToken(length, dist int) token { return matchFlag | token(length)<<16 | token(dist) }
func (t token) isMatch() bool           { return t&matchFlag != 0 }
func (t token) length() int             { return int(t >> 16 & 0x1ff) }
func (t token) dist() int               { return int(t & 0xffff) }

// size returns the plain bytes that t stands for.
func (t token) size() int {
	if t.isMatch() {
		return t.length()
	}
	return 1
}

// codes are the tables of RFC 1951, 3.2.5.
type codes struct {
	lenBase   [29]uint16
	lenExtra  [29]uint8
	distBase  [30]uint16
	distExtra [30]uint8
	lenCode   [maxMatch + 1]uint8 // of a length
	distCode  [512]uint8          // of a distance: below 256 by itself, above by its upper bits
	fixedLit  [288]uint8          // lengths of the fixed code
}

var rfc = makeCodes()

func makeCodes() *codes {
	c := new(codes)
	n := minMatch
	for i := range 28 {
		if i >= 8 {
			c.lenExtra[i] = uint8(i/4 - 1)
		}
		c.lenBase[i] = uint16(n)
		for range 1 << c.lenExtra[i] {
			if n < maxMatch {
				c.lenCode[n] = uint8(i)
			}
			n++
		}
	}
	c.lenBase[28], c.lenCode[maxMatch] = maxMatch, 28
	n = 1
	for i := range 30 {
		if i >= 4 {
			c.distExtra[i] = uint8(i/2 - 1)
		}
		c.distBase[i] = uint16(n)
		for range 1 << c.distExtra[i] {
			c.distCode[distSlot(n)] = uint8(i)
			n++
		}
	}
	for i := range c.fixedLit {
		switch {
		case i < 144:
			c.fixedLit[i] = 8
		case i < 256:
			c.fixedLit[i] = 9
		case i < 280:
			c.fixedLit[i] = 7
		default:
			c.fixedLit[i] = 8
		}
	}
	return c
}

func distSlot(d int) int {
	if d <= 256 {
		return d - 1
	}
	return 256 + (d-1)>>7
}

// lenOrder is the order in which the lengths of the code for code lengths come.
var lenOrder = [lenCodes]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
