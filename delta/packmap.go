package delta

import (
	"encoding/binary"
	"errors"
	"fmt"

	"updraft/delta/chunk"
)

const (
	mapMagic = "UDM1"
	// MaxPackSize bounds the size of a pack and so the offsets in a pack map.
	MaxPackSize = int64(1) << 40
	// maxStored is the longest stored form of a chunk: never longer than the chunk.
	maxStored = chunk.MaxLen
)

// ErrMap reports bytes that are not the pack map of the artifact.
var ErrMap = errors.New("delta: malformed pack map")

// Location says where a chunk is stored.
type Location struct {
	Pack   int   // index into the manifest's packs
	Offset int64 // of the first stored byte in the pack
	Len    int   // stored bytes, 1 to 1 MiB
	Raw    bool  // stored as it is, not as a zstd frame
}

// End returns the offset after the last stored byte.
func (l Location) End() int64 { return l.Offset + int64(l.Len) }

// PackMap lists where the chunks of an artifact are stored, in stream order.
type PackMap []Location

// Append appends the map's bytes to b: the magic "UDM1", then for each chunk
//
//	uvarint  len<<2 | raw<<1 | jump
//	uvarint  pack, uvarint offset       (only with jump)
//
// Without jump the chunk begins where the one before it ends, in the same pack;
// the first chunk follows pack 0, offset 0. jump is set only where it is needed.
func (m PackMap) Append(b []byte) []byte {
	b = append(b, mapMagic...)
	var prev Location
	for _, l := range m {
		head := uint64(l.Len) << 2
		if l.Raw {
			head |= 2
		}
		if l.Pack == prev.Pack && l.Offset == prev.End() {
			b = binary.AppendUvarint(b, head)
		} else {
			b = binary.AppendUvarint(b, head|1)
			b = binary.AppendUvarint(b, uint64(l.Pack))
			b = binary.AppendUvarint(b, uint64(l.Offset))
		}
		prev = l
	}
	return b
}

// ParsePackMap decodes the map of an artifact of so many chunks, whose manifest
// names packs of these sizes in bytes. Every location it returns lies in its pack.
// Errors wrap ErrMap.
func ParsePackMap(b []byte, chunks int, packs []int64) (PackMap, error) {
	if len(b) < len(mapMagic) || string(b[:len(mapMagic)]) != mapMagic {
		return nil, fmt.Errorf("%w: no magic", ErrMap)
	}
	b = b[len(mapMagic):]
	if chunks < 0 || chunks > len(b) { // a chunk takes at least one byte
		return nil, fmt.Errorf("%w: %d bytes for %d chunks", ErrMap, len(b), chunks)
	}
	m := make(PackMap, 0, chunks)
	r := uvarints{b: b}
	var prev Location
	for i := range chunks {
		head := r.next(maxStored<<2 | 3)
		l := Location{Pack: prev.Pack, Offset: prev.End(), Len: int(head >> 2), Raw: head&2 != 0}
		if head&1 != 0 {
			l.Pack, l.Offset = int(r.next(1<<24)), int64(r.next(uint64(MaxPackSize)))
			if l.Pack == prev.Pack && l.Offset == prev.End() {
				r.bad = true
			}
		}
		if r.bad || l.Len < 1 || l.Len > maxStored || l.Pack >= len(packs) || l.End() > packs[l.Pack] {
			return nil, fmt.Errorf("%w: chunk %d", ErrMap, i)
		}
		m = append(m, l)
		prev = l
	}
	if len(r.b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", ErrMap, len(r.b))
	}
	return m, nil
}

// uvarints takes numbers in their shortest form off b.
type uvarints struct {
	b   []byte
	bad bool
}

func (r *uvarints) next(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || v > limit || n > 1 && r.b[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}
