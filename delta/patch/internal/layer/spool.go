package layer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
)

const (
	spoolMemory = 4 << 20 // what a Spool of a publisher holds in memory
	// SpoolMemory is what a Spool of a decoder holds in memory, in bytes.
	SpoolMemory = 256 << 10
)

// Spool keeps bytes: few in memory, many in a file that is gone when it is closed.
type Spool struct {
	dir  string
	most int // bytes in memory
	f    *os.File
	size int64  // bytes in f
	tail []byte // behind those
}

// Spools keep the plain bytes and the parses of members.
type Spools struct{ Plain, Parse *Spool }

// NewSpools returns empty ones with their files, if it comes to that, in dir, empty:
// the system's directory.
func NewSpools(dir string) *Spools {
	return &Spools{&Spool{dir: dir, most: spoolMemory}, &Spool{dir: dir, most: spoolMemory}}
}

// NewSpool returns an empty one that holds SpoolMemory bytes in memory, with its file in dir, empty: the system's
// directory.
func NewSpool(dir string) *Spool { return &Spool{dir: dir, most: SpoolMemory} }

// Size returns the bytes kept by both.
func (s *Spools) Size() int64 { return s.Plain.Size() + s.Parse.Size() }

// Close gives the files back.
func (s *Spools) Close() error { return errors.Join(s.Plain.Close(), s.Parse.Close()) }

// Write implements io.Writer. ErrFile: the file cannot be written.
func (s *Spool) Write(b []byte) (int, error) {
	if len(s.tail)+len(b) < s.most {
		s.tail = append(s.tail, b...)
		return len(b), nil
	}
	if s.f == nil {
		f, err := os.CreateTemp(s.dir, "updraft-unpacked-*")
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrFile, err)
		}
		os.Remove(f.Name())
		s.f = f
	}
	for _, p := range [][]byte{s.tail, b} {
		if _, err := s.f.WriteAt(p, s.size); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrFile, err)
		}
		s.size += int64(len(p))
	}
	s.tail = s.tail[:0]
	return len(b), nil
}

// Truncate drops what is behind n.
func (s *Spool) Truncate(n int64) {
	if n >= s.size {
		s.tail = s.tail[:n-s.size]
		return
	}
	s.size, s.tail = n, s.tail[:0]
}

// Size returns the bytes kept.
func (s *Spool) Size() int64 { return s.size + int64(len(s.tail)) }

// ReadAt implements io.ReaderAt. ErrFile: the file cannot be read.
func (s *Spool) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	if off < s.size {
		k, err := s.f.ReadAt(b[:min(int64(len(b)), s.size-off)], off)
		if n = k; err != nil && !errors.Is(err, io.EOF) {
			return n, fmt.Errorf("%w: %w", ErrFile, err)
		}
	}
	if at := off + int64(n) - s.size; n < len(b) && at >= 0 && at < int64(len(s.tail)) {
		n += copy(b[n:], s.tail[at:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Close gives the file back.
func (s *Spool) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}

// Spooled is the view of a stream by members that are unpacked in Spools. It is
// safe for concurrent use if the stream is.
type Spooled struct {
	mapping
	src    Source
	found  []Found
	spools *Spools
}

// NewSpooled returns the view of src through found, which Find gave with spools.
func NewSpooled(src Source, found []Found, spools *Spools, limit int64) (*Spooled, error) {
	ms := make([]Member, len(found))
	for i := range found {
		ms[i] = found[i].Member
	}
	m, err := newMapping(ms, src.Size(), limit)
	return &Spooled{m, src, found, spools}, err
}

// ReadAt implements io.ReaderAt.
func (s *Spooled) ReadAt(b []byte, off int64) (int, error) {
	return s.read(b, off, parts{
		raw:   func(b []byte, off int64) error { return readFull(s.src, b, off) },
		plain: func(i int, b []byte, off int64) error { return readFull(s.spools.Plain, b, s.found[i].Spool+off) },
		parse: func(i int, b []byte, off int64) error { return readFull(s.spools.Parse, b, s.found[i].ParseAt+off) },
	})
}

// At returns where byte off of the stream, in no member, is in the view.
func (s *Spooled) At(off int64) int64 {
	i := sort.Search(len(s.members), func(i int) bool { return s.members[i].Off > off }) // members in front of off
	if i == 0 {
		return off
	}
	m := &s.members[i-1]
	return s.at[i-1] + m.Plain + off - m.end()
}

// Need returns how much of the parses must be there before the first bytes, as many as
// to says, of the view can be taken, and how much of it they use up at least. to is in front of the parses.
func (s *Spooled) Need(to int64) (need, used int64) {
	i := sort.Search(len(s.at), func(i int) bool { return s.at[i] >= to }) // members in front of to
	if i == 0 {
		return 0, 0
	}
	f, at := &s.found[i-1], to-s.at[i-1]
	need = s.parsed[i-1] - s.main // of the members in front of f, which are used up
	switch {
	case at >= f.Plain:
		return need + f.Parse, need + f.Parse
	case len(f.Units) == 0: // deflate
		return need, need
	}
	// The unit of the byte at-1, which may be used up with it.
	k := sort.Search(len(f.Units), func(k int) bool { return f.Units[k].Plain >= at })
	used = need
	if k > 0 {
		used += f.Units[k-1].Parse
	}
	return need + f.Units[k].Parse, used
}

// Made returns how many bytes of the stream the first bytes of the view, as many as to
// says, make: at least, and at most. to is in front of the parses.
func (s *Spooled) Made(to int64) (least, most int64) {
	i := sort.Search(len(s.at), func(i int) bool { return s.at[i] >= to }) // members in front of to
	if i == 0 {
		return to, to
	}
	f, over := &s.found[i-1], to-s.at[i-1]-s.found[i-1].Plain
	if over < 0 {
		return f.Off, f.end()
	}
	return f.end() + over, f.end() + over
}
