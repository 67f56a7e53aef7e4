package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
)

// Flags of an [Interest].
const (
	FlagReceive byte = 1 << 0 // wants the blobs it lacks
	FlagProduce byte = 1 << 1 // makes the blobs itself
	FlagAll     byte = 1 << 2 // has every blob; no bitmap follows
)

// Interest says that a device knows an object, what it has of it, and what it means to do.
//
//	object ID (32) | count uint32 LE | flags (1) | bitmap, ⌈count/8⌉ bytes, bit i of byte i/8 (absent with FlagAll)
type Interest struct {
	ID    [32]byte
	Count uint32 // 1 … MaxBlobs
	Flags byte
	Bits  []byte // aliases the body when parsed; nil with FlagAll
}

// AppendInterest appends an interest frame.
func AppendInterest(b []byte, m Interest) []byte {
	body := make([]byte, 0, 37+len(m.Bits))
	body = append(body, m.ID[:]...)
	body = binary.LittleEndian.AppendUint32(body, m.Count)
	body = append(body, m.Flags)
	if m.Flags&FlagAll == 0 {
		body = append(body, m.Bits...)
	}
	return AppendFrame(b, TypeInterest, body)
}

// ParseInterest parses the body of an interest.
func ParseInterest(body []byte) (Interest, error) {
	var m Interest
	if len(body) < 37 {
		return m, malformed("interest")
	}
	copy(m.ID[:], body)
	m.Count = binary.LittleEndian.Uint32(body[32:])
	m.Flags = body[36]
	body = body[37:]
	if m.Count == 0 || m.Count > MaxBlobs {
		return m, fmt.Errorf("%w: interest in %d blobs", ErrTooLarge, m.Count)
	}
	if m.Flags&^(FlagReceive|FlagProduce|FlagAll) != 0 {
		return m, malformed("interest flags")
	}
	if m.Flags&FlagAll != 0 {
		if len(body) != 0 {
			return m, malformed("interest in all with a bitmap")
		}
		return m, nil
	}
	if len(body) != int(m.Count+7)/8 {
		return m, malformed("interest bitmap")
	}
	if r := m.Count % 8; r != 0 && body[len(body)-1]>>r != 0 {
		return m, malformed("interest bitmap has bits past its end")
	}
	m.Bits = body
	return m, nil
}

// AppendRetract appends the frame that takes an interest back.
func AppendRetract(b []byte, id [32]byte) []byte { return AppendFrame(b, TypeRetract, id[:]) }

// ParseRetract parses the body of a retract.
func ParseRetract(body []byte) (id [32]byte, err error) {
	if len(body) != 32 {
		return id, malformed("retract")
	}
	copy(id[:], body)
	return id, nil
}

// AppendIndexes appends a frame of type t (Have, Get, Cancel, Nack) about blobs of one object. The indexes must
// ascend strictly, 1 … MaxIndexes of them.
//
//	object ID (32) | for each index: uvarint of its distance from the one before, less one (the first: from -1)
func AppendIndexes(b []byte, t Type, id [32]byte, indexes []uint32) []byte {
	n := 33
	prev := int64(-1)
	for _, i := range indexes {
		n += uvarintLen(uint64(int64(i) - prev - 1))
		prev = int64(i)
	}
	b = binary.AppendUvarint(b, uint64(n))
	b = append(b, byte(t))
	b = append(b, id[:]...)
	prev = -1
	for _, i := range indexes {
		b = binary.AppendUvarint(b, uint64(int64(i)-prev-1))
		prev = int64(i)
	}
	return b
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// ParseIndexes parses the body of a Have, Get, Cancel or Nack. The indexes are appended to dst[:0].
func ParseIndexes(body []byte, dst []uint32) (id [32]byte, indexes []uint32, err error) {
	if len(body) < 33 {
		return id, nil, malformed("indexes")
	}
	copy(id[:], body)
	body = body[32:]
	indexes = dst[:0]
	prev := int64(-1)
	for len(body) > 0 {
		if len(indexes) == MaxIndexes {
			return id, nil, fmt.Errorf("%w: more than %d indexes", ErrTooLarge, MaxIndexes)
		}
		d, n := binary.Uvarint(body)
		if n <= 0 || n != uvarintLen(d) || d > MaxBlobs {
			return id, nil, malformed("index")
		}
		prev += int64(d) + 1
		if prev >= MaxBlobs {
			return id, nil, fmt.Errorf("%w: index %d", ErrTooLarge, prev)
		}
		indexes = append(indexes, uint32(prev))
		body = body[n:]
	}
	return id, indexes, nil
}

// Flags of a [BlobHeader].
const (
	BlobRelay  byte = 1 << 0 // pass this blob on to every receiver that lacks it
	BlobAsked  byte = 1 << 1 // answer to a Get
	BlobPacked byte = 1 << 2 // a zstd frame of the blob follows; only to who named FeaturePacked
	blobFlags       = BlobRelay | BlobAsked | BlobPacked
)

// Bytes of a BlobHeader, and of one with a Packed length.
const (
	headerSize = 41
	packedSize = headerSize + 4
)

// BlobHeader stands before each blob on a blob stream.
type BlobHeader struct {
	ID    [32]byte
	Index uint32
	Len   uint32 // of the blob itself, 1 … MaxBlob
	Flags byte
	// Packed is the length of the zstd frame that follows, shorter than the blob; 0 without BlobPacked.
	Packed uint32
}

// Follows returns how many bytes come after the header.
func (h BlobHeader) Follows() int {
	if h.Packed > 0 {
		return int(h.Packed)
	}
	return int(h.Len)
}

// AppendBlobHeader appends a blob header: 41 bytes, or 45 with a Packed length. It sets BlobPacked by that.
func AppendBlobHeader(b []byte, h BlobHeader) []byte {
	b = append(b, h.ID[:]...)
	b = binary.LittleEndian.AppendUint32(b, h.Index)
	b = binary.LittleEndian.AppendUint32(b, h.Len)
	if h.Packed == 0 {
		return append(b, h.Flags&^BlobPacked)
	}
	return binary.LittleEndian.AppendUint32(append(b, h.Flags|BlobPacked), h.Packed)
}

// ReadBlobHeader reads a blob header. io.EOF is returned only before its first byte.
func ReadBlobHeader(r *bufio.Reader) (BlobHeader, error) {
	b, err := r.Peek(headerSize)
	if err == nil && b[headerSize-1]&BlobPacked != 0 {
		b, err = r.Peek(packedSize)
	}
	if err != nil {
		if len(b) > 0 {
			err = noEOF(err)
		}
		return BlobHeader{}, err
	}
	h, n, err := ParseBlobHeader(b)
	if err == nil {
		_, err = r.Discard(n)
	}
	return h, err
}

// ParseBlobHeader parses the header at the beginning of b, and returns its length.
func ParseBlobHeader(b []byte) (BlobHeader, int, error) {
	var h BlobHeader
	if len(b) < headerSize {
		return h, 0, malformed("blob header")
	}
	copy(h.ID[:], b)
	h.Index = binary.LittleEndian.Uint32(b[32:])
	h.Len = binary.LittleEndian.Uint32(b[36:])
	h.Flags = b[40]
	if h.Index >= MaxBlobs || h.Len == 0 || h.Len > MaxBlob {
		return h, 0, fmt.Errorf("%w: blob %d of %d bytes", ErrTooLarge, h.Index, h.Len)
	}
	if h.Flags&^blobFlags != 0 {
		return h, 0, malformed("blob flags")
	}
	if h.Flags&BlobPacked == 0 {
		return h, headerSize, nil
	}
	if len(b) < packedSize {
		return h, 0, malformed("blob header")
	}
	h.Packed = binary.LittleEndian.Uint32(b[headerSize:])
	if h.Packed == 0 || h.Packed >= h.Len {
		return h, 0, fmt.Errorf("%w: %d bytes for a blob of %d", ErrTooLarge, h.Packed, h.Len)
	}
	return h, packedSize, nil
}

// Status is how a request ended.
type Status byte

// Statuses of an answer.
const (
	StatusOK       Status = 0
	StatusNotFound Status = 1
	StatusError    Status = 2 // the body is a text for a person
	StatusBusy     Status = 3
	StatusTooLarge Status = 4
)

// AppendRequest appends a request: name, and an argument (none for a file).
//
//	name length (2) LE | argument length (4) LE | name | argument
func AppendRequest(b []byte, name string, arg []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(name)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(arg)))
	b = append(b, name...)
	return append(b, arg...)
}

// ReadRequest reads a request; the name has 1 … MaxName bytes, the argument at most MaxArgument.
func ReadRequest(r io.Reader) (name string, arg []byte, err error) {
	var h [6]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return "", nil, noEOF(err)
	}
	n, a := int(binary.LittleEndian.Uint16(h[:])), binary.LittleEndian.Uint32(h[2:])
	if n == 0 || n > MaxName || a > MaxArgument {
		return "", nil, fmt.Errorf("%w: request of %d + %d bytes", ErrTooLarge, n, a)
	}
	b := make([]byte, n+int(a))
	if _, err := io.ReadFull(r, b); err != nil {
		return "", nil, noEOF(err)
	}
	return string(b[:n]), b[n:], nil
}

// AppendAnswer appends an answer.
//
//	status (1) | length (4) LE | body
func AppendAnswer(b []byte, s Status, body []byte) []byte {
	b = append(b, byte(s))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// ReadAnswer reads an answer whose body has at most limit bytes, or MaxError if it is an error.
func ReadAnswer(r io.Reader, limit int) (Status, []byte, error) {
	var h [5]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, noEOF(err)
	}
	if Status(h[0]) > StatusTooLarge {
		return 0, nil, malformed("status")
	}
	if Status(h[0]) == StatusError {
		limit = MaxError
	}
	n := binary.LittleEndian.Uint32(h[1:])
	if n > MaxAnswer || int(n) > limit {
		return 0, nil, fmt.Errorf("%w: answer of %d bytes, limit %d", ErrTooLarge, n, min(limit, MaxAnswer))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, nil, noEOF(err)
	}
	return Status(h[0]), b, nil
}
