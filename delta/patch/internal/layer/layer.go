// Package layer sees streams through compression.
//
// A stream holds members: runs of it that are deflate streams, raw or as zlib, gzip
// and zip wrap them. Its view has, in their places, the plain bytes that they stand
// for, and everything else as it is; what wraps a member falls away, so that blocks
// that follow one another (squashfs) give plain bytes that do. Views nest: the view of
// a view sees a gzip file within a compressed archive.
//
//	Find       stream -> its members                        (publisher)
//	Spooled    stream, members, their plain bytes -> view   (publisher)
//	View       stream, members -> view, by ranges           (device: base)
//	Writer     view, members, how they were made -> stream  (device: output)
//
// Guarantees: Find reports nothing that does not inflate and have its checksum; a View
// holds at most ViewMemory, a Writer at most WriterMemory, whatever they are told;
// wrong members make them fail or give other bytes, nothing else.
package layer

import (
	"errors"
	"fmt"
	"io"
	"sort"
)

// Source is a byte stream that can be read anywhere.
type Source interface {
	io.ReaderAt
	Size() int64
}

// ErrCorrupt reports members that do not go with their stream.
var ErrCorrupt = errors.New("layer: members do not go with the stream")

// Wrap is what stands around a deflate stream and belongs to the member.
type Wrap uint8

// Wraps. What Gzip and zip have in front stays in the view: names, times.
const (
	Bare Wrap = iota // nothing
	Zlib             // two bytes in front, adler-32 behind
	Gzip             // crc-32 and length behind
	wraps
)

// front and back are the bytes around the deflate stream.
func (w Wrap) front() int64 {
	if w == Zlib {
		return 2
	}
	return 0
}

func (w Wrap) back() int64 {
	switch w {
	case Zlib:
		return 4
	case Gzip:
		return 8
	}
	return 0
}

// Member is a run of a stream that stands for plain bytes.
type Member struct {
	Off    int64 // in the stream
	Packed int64 // bytes there
	Plain  int64 // bytes in the view
	Wrap   Wrap
}

// end returns where the member ends in the stream.
func (m *Member) end() int64 { return m.Off + m.Packed }

// Deflate returns where in the stream the member's raw deflate stream lies.
func (m *Member) Deflate() (off, end int64) {
	return m.Off + m.Wrap.front(), m.end() - m.Wrap.back()
}

// mapping tells which bytes of a view come from where.
type mapping struct {
	members []Member
	at      []int64 // of each in the view
	size    int64   // of the view
}

// newMapping checks that members lie within a stream of size bytes, one behind the
// other, and give a view of at most limit bytes.
func newMapping(members []Member, size, limit int64) (mapping, error) {
	m := mapping{members: members, at: make([]int64, len(members))}
	end := int64(0)
	for i := range members {
		b := &members[i]
		switch {
		case b.Wrap >= wraps, b.Off < end, b.Packed < b.Wrap.front()+b.Wrap.back()+1, b.Packed > size-b.Off, b.Plain < 1, b.Plain > limit-m.size:
			return m, fmt.Errorf("%w: member %d", ErrCorrupt, i)
		}
		m.at[i] = m.size + b.Off - end
		m.size = m.at[i] + b.Plain
		end = b.end()
		if m.size > limit {
			return m, fmt.Errorf("%w: view above %d bytes", ErrCorrupt, limit)
		}
	}
	if m.size += size - end; m.size > limit {
		return m, fmt.Errorf("%w: view above %d bytes", ErrCorrupt, limit)
	}
	return m, nil
}

// read reads b at off of the view: raw reads from the stream, plain from a member.
func (m *mapping) read(b []byte, off int64, raw func(b []byte, off int64) error, plain func(i int, b []byte, off int64) error) (int, error) {
	if off < 0 || off > m.size {
		return 0, fmt.Errorf("layer: read at %d of %d bytes", off, m.size)
	}
	n := 0
	// i is the first member that ends behind off.
	i := sort.Search(len(m.at), func(i int) bool { return m.at[i]+m.members[i].Plain > off })
	for n < len(b) && off < m.size {
		to, in := m.size, false
		if i < len(m.at) {
			if to = m.at[i]; to <= off {
				to, in = m.at[i]+m.members[i].Plain, true
			}
		}
		p := b[n:min(int64(len(b)), int64(n)+to-off)]
		var err error
		switch {
		case in:
			err = plain(i, p, off-m.at[i])
		case i > 0:
			err = raw(p, off-m.at[i-1]-m.members[i-1].Plain+m.members[i-1].end())
		default:
			err = raw(p, off)
		}
		if err != nil {
			return n, err
		}
		n += len(p)
		off += int64(len(p))
		if in && off == to {
			i++
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// readFull reads all of b.
func readFull(s io.ReaderAt, b []byte, off int64) error {
	if n, err := s.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("layer: read: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}
