package chunk

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

const (
	// PageLen is the number of records in a page; only the last page of an index
	// has fewer.
	PageLen = 256
	// RecordSize is the size of a record: sha2-256 (32 bytes), length (uint24,
	// little endian).
	RecordSize = 35
	// MaxLen is the longest chunk a record may name, in bytes.
	MaxLen = 1 << 20
)

var (
	// ErrPage reports bytes that are not an index page.
	ErrPage = errors.New("chunk: malformed index page")
	// ErrCID reports a CID that does not name a chunk (v1, raw, sha2-256).
	ErrCID = errors.New("chunk: not the CID of a chunk")
)

// AppendRecord appends the record of c to page.
func AppendRecord(page []byte, c Chunk) []byte {
	page = append(page, c.Sum[:]...)
	return append(page, byte(c.Len), byte(c.Len>>8), byte(c.Len>>16))
}

// ParsePage decodes a page of 1 to PageLen records. Offsets count from the first
// chunk of the page.
func ParsePage(b []byte) ([]Chunk, error) {
	n := len(b) / RecordSize
	if len(b)%RecordSize != 0 || n < 1 || n > PageLen {
		return nil, fmt.Errorf("%w: %d bytes", ErrPage, len(b))
	}
	return parseRecords(make([]Chunk, 0, n), b)
}

// parseRecords appends the chunks of b, whose length is a multiple of RecordSize.
func parseRecords(list []Chunk, b []byte) ([]Chunk, error) {
	var off int64
	if n := len(list); n > 0 {
		off = list[n-1].Offset + int64(list[n-1].Len)
	}
	for ; len(b) > 0; b = b[RecordSize:] {
		c := Chunk{Offset: off, Len: int(b[32]) | int(b[33])<<8 | int(b[34])<<16}
		if c.Len < 1 || c.Len > MaxLen {
			return nil, fmt.Errorf("%w: record %d has length %d", ErrPage, len(list), c.Len)
		}
		copy(c.Sum[:], b)
		off += int64(c.Len)
		list = append(list, c)
	}
	return list, nil
}

// AppendIndex appends the index of a stream: the records of all its chunks, which
// are its pages one after the other.
func AppendIndex(b []byte, list []Chunk) []byte {
	for _, c := range list {
		b = AppendRecord(b, c)
	}
	return b
}

// ParseIndex decodes a whole index of any number of pages, none for an empty
// stream. Offsets count from the start of the stream.
func ParseIndex(b []byte) ([]Chunk, error) {
	if len(b)%RecordSize != 0 {
		return nil, fmt.Errorf("%w: index of %d bytes", ErrPage, len(b))
	}
	return parseRecords(make([]Chunk, 0, len(b)/RecordSize), b)
}

// PageSums returns the digest of each page of an index and the number of records
// in the last page (0 for an empty index).
func PageSums(index []byte) (sums [][32]byte, last int) {
	for len(index) > 0 {
		n := min(len(index), PageLen*RecordSize)
		sums = append(sums, sha256.Sum256(index[:n]))
		last = n / RecordSize
		index = index[n:]
	}
	return sums, last
}

// CID returns the printed name of the bytes with this digest: CIDv1, raw,
// sha2-256.
func CID(sum [32]byte) cid.Cid {
	mh := append([]byte{multihash.SHA2_256, 32}, sum[:]...)
	return cid.NewCidV1(cid.Raw, mh)
}

// FromCID returns the digest a CID of CID carries, or ErrCID for any other CID.
func FromCID(c cid.Cid) ([32]byte, error) {
	var sum [32]byte
	if !c.Defined() {
		return sum, ErrCID
	}
	p := c.Prefix()
	mh := c.Hash()
	if p.Version != 1 || p.Codec != cid.Raw || p.MhType != multihash.SHA2_256 || len(mh) != 34 {
		return sum, fmt.Errorf("%w: %s", ErrCID, c)
	}
	copy(sum[:], mh[2:])
	return sum, nil
}
