// Package layer sees streams through compression.
//
// A stream holds members: runs of it that are deflate streams, raw or as zlib, gzip
// and zip wrap them, frames of zstd, lz4 or xz, or blocks of lz4 without a frame, as
// squashfs has them. Its view has, in their places, the plain bytes that they stand
// for, and everything else as it is; what wraps a member falls away, so that blocks that follow one another (squashfs) give plain bytes that
// do. Deflate streams are made again by doing what their compressor does; frames from
// their parse, which is what their compressor decided. The parses of all members stand
// one after the other behind everything else in the view: what is new in them is found
// as what is new elsewhere. Views nest: the view of a view sees a gzip file within a
// compressed archive.
//
//	Find       stream -> its members                        (publisher)
//	Spooled    stream, members, their plain bytes -> view   (publisher)
//	View       stream, members -> view, by ranges           (device: base)
//	Writer     view, members, how they were made -> stream  (device: output)
//
// Guarantees: Find reports nothing that does not unpack and have its checksum, if it has one; a View
// holds at most ViewMemory and what PartsOf says, a Writer at most WriterMemory, and JoinMemory
// for frames, whatever they are told; wrong members make them fail or give other
// bytes, nothing else.
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

var (
	// ErrCorrupt reports members that do not go with their stream.
	ErrCorrupt = errors.New("layer: members do not go with the stream")
	// ErrFile reports that the file of a View cannot be written or read.
	ErrFile = errors.New("layer: temporary file")
)

// Wrap is what a member is: a deflate stream with what stands around it and belongs to
// the member, or a frame.
type Wrap uint8

// Wraps. What Gzip and zip have in front stays in the view: names, times.
const (
	Bare     Wrap = iota // a deflate stream and nothing else
	Zlib                 // two bytes in front, adler-32 behind
	Gzip                 // crc-32 and length behind
	Zstd                 // a frame
	LZ4                  // a frame, or one of the old format
	XZ                   // a stream
	LZ4Block             // a block of lz4 without a frame
	wraps
)

// Known reports whether w is one of these.
func (w Wrap) Known() bool { return w < wraps }

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
	Parse  int64 // bytes at the end of the view; 0 for deflate
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
	at      []int64 // where in the view the plain bytes of each are
	parsed  []int64 // and its parse
	main    int64   // bytes of the view but the parses
	size    int64   // of the view
}

// newMapping checks that members lie within a stream of size bytes, one behind the
// other, and give a view of at most limit bytes.
func newMapping(members []Member, size, limit int64) (mapping, error) {
	m := mapping{members: members, at: make([]int64, len(members)), parsed: make([]int64, len(members))}
	end, parse := int64(0), int64(0)
	for i := range members {
		b := &members[i]
		switch {
		case !b.Wrap.Known(), b.Off < end, b.Packed < b.Wrap.front()+b.Wrap.back()+1, b.Packed > size-b.Off, b.Plain < 1, b.Plain > limit-m.main,
			b.Parse < 0, b.Parse > limit-parse, b.Wrap.Parsed() != (b.Parse > 0):
			return m, fmt.Errorf("%w: member %d", ErrCorrupt, i)
		}
		m.at[i] = m.main + b.Off - end
		m.parsed[i] = parse
		m.main = m.at[i] + b.Plain
		parse += b.Parse
		end = b.end()
		if m.main > limit {
			return m, fmt.Errorf("%w: view above %d bytes", ErrCorrupt, limit)
		}
	}
	m.main += size - end
	if m.size = m.main + parse; m.size > limit {
		return m, fmt.Errorf("%w: view above %d bytes", ErrCorrupt, limit)
	}
	for i := range m.parsed {
		m.parsed[i] += m.main
	}
	return m, nil
}

// Size returns the bytes of the view.
func (m *mapping) Size() int64 { return m.size }

// Main returns the bytes of the view in front of the parses.
func (m *mapping) Main() int64 { return m.main }

// parts are where the bytes of a view are read from.
type parts struct {
	raw          func(b []byte, off int64) error        // of the stream
	plain, parse func(i int, b []byte, off int64) error // of member i
}

// read reads b at off of the view.
func (m *mapping) read(b []byte, off int64, from parts) (int, error) {
	if off < 0 || off > m.size {
		return 0, fmt.Errorf("layer: read at %d of %d bytes", off, m.size)
	}
	n := 0
	if off < m.main {
		var err error
		if n, err = m.readMain(b[:min(int64(len(b)), m.main-off)], off, from); err != nil {
			return n, err
		}
		off += int64(n)
	}
	// i is the first member whose parse ends behind off.
	i := sort.Search(len(m.parsed), func(i int) bool { return m.parsed[i]+m.members[i].Parse > off })
	for ; n < len(b) && i < len(m.members); i++ {
		at := off - m.parsed[i]
		p := b[n:min(int64(len(b)), int64(n)+m.members[i].Parse-at)]
		if len(p) == 0 {
			continue
		}
		if err := from.parse(i, p, at); err != nil {
			return n, err
		}
		n += len(p)
		off += int64(len(p))
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// readMain reads all of b, which is in front of the parses.
func (m *mapping) readMain(b []byte, off int64, from parts) (int, error) {
	n := 0
	// i is the first member that ends behind off.
	i := sort.Search(len(m.at), func(i int) bool { return m.at[i]+m.members[i].Plain > off })
	for n < len(b) {
		to, in := m.main, false
		if i < len(m.at) {
			if to = m.at[i]; to <= off {
				to, in = m.at[i]+m.members[i].Plain, true
			}
		}
		p := b[n:min(int64(len(b)), int64(n)+to-off)]
		var err error
		switch {
		case in:
			err = from.plain(i, p, off-m.at[i])
		case i > 0:
			err = from.raw(p, off-m.at[i-1]-m.members[i-1].Plain+m.members[i-1].end())
		default:
			err = from.raw(p, off)
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
	return n, nil
}

// readFull reads all of b.
func readFull(s io.ReaderAt, b []byte, off int64) error {
	if n, err := s.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("layer: read: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}
