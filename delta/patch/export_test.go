package patch

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
)

// FixHeader returns p with the digest of its header put right.
func FixHeader(p []byte) []byte {
	if len(p) < headLen {
		return p
	}
	p = bytes.Clone(p)
	n := min(int64(binary.LittleEndian.Uint32(p[8:])), int64(len(p)-headLen))
	sum := sha256.Sum256(p[headLen : headLen+n])
	copy(p[12:headLen], sum[:8])
	return p
}
