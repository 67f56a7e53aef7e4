package layer

import (
	"bytes"
	"encoding/binary"
)

// Images of EROFS that are packed with lz4 have clusters that nothing marks either: mostly of
// one block of the image, which the packed bytes fill from its end on, zeros in front of them.
// What is in a block is looked at as lz4; data that are stored, or metadata, hardly ever pass.
// Clusters of several blocks are not found.

const (
	erofsMagic   = "\xe2\xe1\xf5\xe0"
	erofsSuper   = 1024 // where it is in the image
	erofsPadding = 1    // among the features: zeros are in front of what is packed
)

// erofsBlocks returns the blocks of the image whose magic is at off of src, in order, and how
// many bytes it looked at.
func erofsBlocks(stopped func() error, src Source, off int64) (blocks []run, looked int64, err error) {
	super := make([]byte, 128)
	if off < erofsSuper || src.Size()-off < int64(len(super)) {
		return nil, 0, nil
	}
	if err := readFull(src, super, off); err != nil {
		return nil, 0, err
	}
	bits, features := super[12], binary.LittleEndian.Uint32(super[80:])
	start, size := off-erofsSuper, int64(binary.LittleEndian.Uint32(super[36:]))<<(bits&31)
	if bits < 9 || bits > 16 || features&erofsPadding == 0 || size > src.Size()-start {
		return nil, 0, nil
	}
	b := make([]byte, 1<<bits)
	for at := start; at < start+size && len(blocks) <= maxBlocks; at += int64(len(b)) {
		if err := stopped(); err != nil {
			return nil, 0, err
		}
		if err := readFull(src, b, at); err != nil {
			return nil, 0, err
		}
		looked += int64(len(b))
		packed := bytes.TrimLeft(b, "\x00")
		if at > off && len(packed) >= minPacked && isLZ4(packed) {
			blocks = append(blocks, run{at + int64(len(b)-len(packed)), at + int64(len(b))})
		}
	}
	return blocks, looked, nil
}

// isLZ4 reports whether b is a block of lz4 that holds more than its own length.
func isLZ4(b []byte) bool {
	plain, size := 0, len(b)
	// length adds what follows to one that four bits did not suffice for.
	length := func(n int) int {
		for more := n == 15; more && len(b) > 0; b = b[1:] {
			n += int(b[0])
			more = b[0] == 255
		}
		return n
	}
	for len(b) > 0 {
		token := b[0]
		b = b[1:]
		n := length(int(token >> 4))
		if n > len(b) {
			return false
		}
		plain += n
		if b = b[n:]; len(b) == 0 {
			return plain > size
		}
		if len(b) < 2 {
			return false
		}
		if d := int(binary.LittleEndian.Uint16(b)); d == 0 || d > plain {
			return false
		}
		b = b[2:]
		plain += 4 + length(int(token&15))
	}
	return false // the last are always literals
}
