package zstd

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// Errors that callers branch on.
var (
	ErrFormat      = errors.New("zstd: no frame, or a broken one")
	ErrUnsupported = errors.New("zstd: a frame that could not be made again")
	ErrCorrupt     = errors.New("zstd: plain bytes and parse do not go together")
)

// MaxWindow is the longest distance of a match that Split follows.
const MaxWindow = 8 << 20

const (
	magic        = 0xFD2FB528
	maxBlock     = 128 << 10
	maxSequences = maxBlock / 3 // a match is of three bytes or more
	maxHeader    = 4 + 2 + 8
)

// Bits of the byte behind the magic number.
const (
	dictionaryBits = 3
	checksumBit    = 1 << 2
	reservedBit    = 1 << 3
	singleBit      = 1 << 5
)

// header is what stands in front of a frame's blocks.
type header struct {
	descriptor byte
	window     byte // as it stands there; 0 if it does not
	size       uint64
}

// sizeWidth returns the bytes of the field that has the plain size.
func (h *header) sizeWidth() int {
	switch w := h.descriptor >> 6; {
	case w == 0 && h.descriptor&singleBit == 0:
		return 0
	default:
		return 1 << w
	}
}

// append writes the header, false if it cannot be one that was split.
func (h *header) append(b []byte) ([]byte, bool) {
	b = binary.LittleEndian.AppendUint32(b, magic)
	b = append(b, h.descriptor)
	if h.descriptor&singleBit == 0 {
		b = append(b, h.window)
	} else if h.window != 0 {
		return nil, false
	}
	size, width := h.size, h.sizeWidth()
	if width == 2 {
		size -= 256 // wraps to what does not fit
	}
	if width < 8 && size>>(8*width) != 0 || h.descriptor&(dictionaryBits|reservedBit) != 0 {
		return nil, false
	}
	b = binary.LittleEndian.AppendUint64(b, size)
	return b[:len(b)-8+width], true
}

// parse reads the header at the beginning of b and returns its length.
func (h *header) parse(b []byte) (int, error) {
	if len(b) < 6 || binary.LittleEndian.Uint32(b) != magic {
		return 0, ErrFormat
	}
	*h = header{descriptor: b[4]}
	n := 5
	if h.descriptor&(dictionaryBits|reservedBit) != 0 {
		return 0, ErrUnsupported
	}
	if h.descriptor&singleBit == 0 {
		h.window = b[5]
		n = 6
	}
	width := h.sizeWidth()
	if len(b) < n+width {
		return 0, ErrFormat
	}
	var field [8]byte
	copy(field[:], b[n:n+width])
	h.size = binary.LittleEndian.Uint64(field[:])
	if width == 2 {
		h.size += 256
	}
	return n + width, nil
}

// reach returns how far back a match may reach, in a frame of this header.
func (h *header) reach() uint64 {
	if h.descriptor&singleBit != 0 {
		return h.size
	}
	base := uint64(1) << (10 + h.window>>3)
	window := base + base/8*uint64(h.window&7)
	if h.sizeWidth() > 0 {
		window = min(window, h.size)
	}
	return window
}

// Kinds of blocks, of literals, and of tables of sequences.
const (
	blockRaw = iota
	blockRun
	blockPacked
)

const (
	literalsRaw = iota
	literalsRun
	literalsTree
	literalsRepeat
)

const (
	modePredefined = iota
	modeOne
	modeTable
	modeRepeat
)

// kind is a code of sequences: of literal run lengths, offsets or match lengths.
type kind struct {
	shift      uint8 // of its mode
	symbols    int
	maxLog     uint8
	predefined *stateTable
}

const (
	ofLL = iota
	ofOF
	ofML
	kinds
)

// kindsOf has the codes in the order of their descriptions.
var kindsOf = [kinds]kind{
	ofLL: {6, 36, 9, predefinedLL},
	ofOF: {4, 32, 8, predefinedOF},
	ofML: {2, 53, 9, predefinedML},
}

// length is a code's lengths: from a base on, as many as extra bits have values.
type length struct {
	base uint32
	bits uint8
}

// Lengths of literal runs and of matches (RFC 8878, 3.1.1.3.2.1.1).
var (
	runLengths = lengths(0, 16, []uint8{1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	runCodes   = codes(runLengths)

	matchLengths = lengths(3, 32, []uint8{1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	matchCodes   = codes(matchLengths)
)

// lengths lists codes: from the least length on some of one length each, then others.
func lengths(least uint32, single int, extra []uint8) []length {
	var all []length
	at := least
	for range single {
		all = append(all, length{at, 0})
		at++
	}
	for _, bits := range extra {
		all = append(all, length{at, bits})
		at += 1 << bits
	}
	return all
}

// codes has the code of each of the first 128 lengths.
func codes(of []length) (all [128]uint8) {
	code := 0
	for i := range all {
		for of[code].base+1<<of[code].bits <= of[0].base+uint32(i) {
			code++
		}
		all[i] = uint8(code)
	}
	return all
}

// runCode returns the code of a run of n literals, below 1<<17.
func runCode(n uint32) uint8 {
	if n < uint32(len(runCodes)) {
		return runCodes[n]
	}
	return uint8(bits.Len32(n)) + 18
}

// matchCode returns the code of a match of n bytes, at least 3, below 3 + 1<<17.
func matchCode(n uint32) uint8 {
	if n -= 3; n < uint32(len(matchCodes)) {
		return matchCodes[n]
	}
	return uint8(bits.Len32(n)) + 35
}
