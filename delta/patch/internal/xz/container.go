package xz

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	headerMagic = "\xfd7zXZ\x00"
	footerMagic = "YZ"
	headerSize  = 12
	footerSize  = 12

	filterLZMA2 = 0x21
	maxVLI      = 1<<63 - 1
)

// Flags of a block's header.
const (
	hasPacked  = 1 << 6
	hasPlain   = 1 << 7
	filterMask = 3
)

func withCRC(b []byte, from int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[from:]))
}

// appendHeader appends a stream's header.
func appendHeader(b []byte, check byte) []byte {
	b = append(b, headerMagic...)
	return withCRC(append(b, 0, check), len(b))
}

// appendFooter appends a stream's footer behind an index of so many bytes.
func appendFooter(b []byte, check byte, index int) []byte {
	f := binary.LittleEndian.AppendUint32(nil, uint32(index/4-1))
	f = append(f, 0, check)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(f))
	return append(append(b, f...), footerMagic...)
}

// sizes is what the index has of a block.
type sizes struct{ unpadded, plain uint64 }

// appendIndex appends the index.
func appendIndex(b []byte, blocks []sizes) []byte {
	from := len(b)
	b = binary.AppendUvarint(append(b, 0), uint64(len(blocks)))
	for _, k := range blocks {
		b = binary.AppendUvarint(binary.AppendUvarint(b, k.unpadded), k.plain)
	}
	for (len(b)-from)%4 > 0 {
		b = append(b, 0)
	}
	return withCRC(b, from)
}

// blockHeader is the header of a block.
type blockHeader struct {
	size, flags   byte   // the first two bytes
	packed, plain uint64 // if flags say so
	filters       []byte // the list of filters
}

// length returns how many bytes the header has.
func (h *blockHeader) length() int { return (int(h.size) + 1) * 4 }

// filtered reports whether LZMA2 is not the only filter.
func (h *blockHeader) filtered() bool { return h.flags&filterMask > 0 }

// append appends the header; it fails if the size does not suffice.
func (h *blockHeader) append(b []byte) ([]byte, error) {
	from := len(b)
	b = append(b, h.size, h.flags)
	if h.flags&hasPacked != 0 {
		b = binary.AppendUvarint(b, h.packed)
	}
	if h.flags&hasPlain != 0 {
		b = binary.AppendUvarint(b, h.plain)
	}
	b = append(b, h.filters...)
	zeros := h.length() - 4 - (len(b) - from)
	if zeros < 0 || h.size == 0 {
		return nil, fmt.Errorf("%w: block header of %d", ErrCorrupt, h.length())
	}
	return withCRC(append(b, make([]byte, zeros)...), from), nil
}

// parse reads the header that b is, and returns the size of the dictionary.
func (h *blockHeader) parse(b []byte) (dictionary uint64, err error) {
	h.size, h.flags = b[0], b[1]
	if crc32.ChecksumIEEE(b[:len(b)-4]) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return 0, fmt.Errorf("%w: checksum of a block header", ErrFormat)
	}
	if h.flags&^(hasPacked|hasPlain|filterMask) != 0 {
		return 0, fmt.Errorf("%w: block flags %02x", ErrUnsupported, h.flags)
	}
	v := vliReader{b: b[2 : len(b)-4]}
	h.packed, h.plain = 0, 0
	if h.flags&hasPacked != 0 {
		h.packed = v.next()
	}
	if h.flags&hasPlain != 0 {
		h.plain = v.next()
	}
	list := v.b
	for i := byte(0); i <= h.flags&filterMask; i++ {
		id, n := v.next(), v.next()
		props := v.take(n)
		last := i == h.flags&filterMask
		if v.bad || last != (id == filterLZMA2) || last && len(props) != 1 {
			return 0, fmt.Errorf("%w: filter %#x", ErrUnsupported, id)
		}
		if last {
			dictionary = dictionarySize(props[0])
		}
	}
	h.filters = append(h.filters[:0], list[:len(list)-len(v.b)]...)
	for _, c := range v.b {
		if c != 0 {
			return 0, fmt.Errorf("%w: padding of a block header", ErrUnsupported)
		}
	}
	return dictionary, nil
}

// dictionarySize decodes the property of LZMA2; 0 is not a size.
func dictionarySize(v byte) uint64 {
	switch {
	case v > 40:
		return 0
	case v == 40:
		return 1<<32 - 1
	}
	return uint64(2|v&1) << (v/2 + 11)
}

// vliReader reads the variable-length integers of the format, of which only the
// shortest form is valid.
type vliReader struct {
	b   []byte
	bad bool
}

func (v *vliReader) next() uint64 {
	n, k := binary.Uvarint(v.b)
	if k <= 0 || n > maxVLI || k > 1 && v.b[k-1] == 0 {
		v.bad = true
		return 0
	}
	v.b = v.b[k:]
	return n
}

func (v *vliReader) take(n uint64) []byte {
	if n > uint64(len(v.b)) {
		v.bad = true
		return nil
	}
	b := v.b[:n]
	v.b = v.b[n:]
	return b
}
