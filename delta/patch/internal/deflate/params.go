package deflate

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart.
var (
	ErrFormat  = errors.New("not a deflate stream")                  // damaged, cut short, or something else
	ErrForeign = errors.New("stream of a compressor not known here") // it would need too many corrections
	ErrCorrupt = errors.New("corrupt parameters or corrections")     // of a Writer
	ErrTooLong = errors.New("stream is longer than allowed")         // of Analyze and Reader
)

// Family is a compressor whose decisions are known.
type Family uint8

// Families. Zlib ends a block when its buffer of symbols is full; Gzip (GNU gzip,
// Info-ZIP zip) has a buffer of its own size and ends a block early where it
// compresses well; Golang is Go's compress/flate, levels 2 to 9, which builds codes in
// another way and ends with an empty block.
const (
	Zlib   Family = 1
	Gzip   Family = 2
	Golang Family = 3
)

// Strategy is zlib's, with zlib's numbers.
type Strategy uint8

// Strategies.
const (
	Default Strategy = iota
	Filtered
	HuffmanOnly
	RunLength
	Fixed
)

// Params are the settings of a compressor.
type Params struct {
	Family   Family
	Level    uint8 // 1..9
	Memory   uint8 // zlib's memLevel, 1..9: hash of Memory+7 bits, blocks of 1<<(Memory+6) symbols; others: 8
	Window   uint8 // bits of the window, 9..15
	Strategy Strategy
}

// ParamsLen is the length of Params as bytes.
const ParamsLen = 3

// Append appends p as bytes.
func (p Params) Append(b []byte) []byte {
	return append(b, byte(p.Family), p.Level<<4|p.Memory, p.Window<<4|byte(p.Strategy))
}

// ParseParams reads what Append wrote; ErrCorrupt if it is nothing known.
func ParseParams(b []byte) (Params, error) {
	if len(b) < ParamsLen {
		return Params{}, fmt.Errorf("deflate: %w: %d bytes of parameters", ErrCorrupt, len(b))
	}
	p := Params{Family: Family(b[0]), Level: b[1] >> 4, Memory: b[1] & 15, Window: b[2] >> 4, Strategy: Strategy(b[2] & 15)}
	return p, p.check()
}

// String names p as command lines would.
func (p Params) String() string {
	switch p.Family {
	case Gzip:
		return fmt.Sprintf("gzip -%d", p.Level)
	case Golang:
		return fmt.Sprintf("compress/flate level %d", p.Level)
	}
	return fmt.Sprintf("zlib level %d memory %d window %d strategy %d", p.Level, p.Memory, p.Window, p.Strategy)
}

func (p Params) check() error {
	ok := p.Level >= 1 && p.Level <= 9 && p.Memory >= 1 && p.Memory <= 9 && p.Window >= 9 && p.Window <= 15 && p.Strategy <= Fixed
	switch p.Family {
	case Zlib:
	case Gzip, Golang:
		ok = ok && (p.Family == Gzip || p.Level > 1) && p.Memory == 8 && p.Window == 15 && p.Strategy == Default
	default:
		ok = false
	}
	if !ok {
		return fmt.Errorf("deflate: %w: %+v", ErrCorrupt, p)
	}
	return nil
}

// symbols returns how many symbols a block may have.
func (p Params) symbols() int {
	switch p.Family {
	case Gzip:
		return 1<<15 - 1
	case Golang:
		return goSymbols
	}
	return 1<<(p.Memory+6) - 1
}

// effort is how hard a level looks for matches: above good bytes found it looks
// through a quarter of the chain; above lazy bytes it does not try the next position
// (levels 1 to 3: inserts no position within the match); nice bytes are enough.
type effort struct{ good, lazy, nice, chain int }

var efforts = [10]effort{
	1: {4, 4, 8, 4},
	2: {4, 5, 16, 8},
	3: {4, 6, 32, 32},
	4: {4, 4, 16, 16},
	5: {8, 16, 32, 32},
	6: {8, 16, 128, 128},
	7: {8, 32, 128, 256},
	8: {32, 128, 258, 1024},
	9: {32, 258, 258, 4096},
}

// lazyFrom is the first level that compares a match with the one a byte later.
const lazyFrom = 4
