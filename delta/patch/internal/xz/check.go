package xz

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"hash/crc64"
)

// Types of checks.
const (
	checkNone   = 0
	checkCRC32  = 1
	checkCRC64  = 4
	checkSHA256 = 10
)

var crc64Table = crc64.MakeTable(crc64.ECMA)

// check is the check of a block's unfiltered bytes.
type check struct {
	kind  byte
	crc32 uint32
	crc64 uint64
	sha   hash.Hash
}

// checkSize returns the size of a type of check; false if it is unknown.
func checkSize(kind byte) (int, bool) {
	switch kind {
	case checkNone:
		return 0, true
	case checkCRC32:
		return 4, true
	case checkCRC64:
		return 8, true
	case checkSHA256:
		return sha256.Size, true
	}
	return 0, false
}

func (c *check) reset(kind byte) {
	c.kind, c.crc32, c.crc64 = kind, 0, 0
	if kind != checkSHA256 {
		return
	}
	if c.sha == nil {
		c.sha = sha256.New()
	}
	c.sha.Reset()
}

func (c *check) write(b []byte) {
	switch c.kind {
	case checkCRC32:
		c.crc32 = crc32.Update(c.crc32, crc32.IEEETable, b)
	case checkCRC64:
		c.crc64 = crc64.Update(c.crc64, crc64Table, b)
	case checkSHA256:
		c.sha.Write(b)
	}
}

// sum appends the check as it stands in a stream.
func (c *check) sum(b []byte) []byte {
	switch c.kind {
	case checkCRC32:
		return binary.LittleEndian.AppendUint32(b, c.crc32)
	case checkCRC64:
		return binary.LittleEndian.AppendUint64(b, c.crc64)
	case checkSHA256:
		return c.sha.Sum(b)
	}
	return b
}
