package layer

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// spoolMemory is how much a Spool holds in memory.
const spoolMemory = 4 << 20

// Spool keeps bytes: few in memory, many in a file that is gone when it is closed.
type Spool struct {
	dir  string
	f    *os.File
	size int64  // bytes in f
	tail []byte // behind those
}

// NewSpool returns an empty Spool with its file, if it comes to that, in dir, empty:
// the system's directory.
func NewSpool(dir string) *Spool { return &Spool{dir: dir} }

// Len returns the bytes kept.
func (s *Spool) Len() int64 { return s.size + int64(len(s.tail)) }

// Write implements io.Writer.
func (s *Spool) Write(b []byte) (int, error) {
	if s.tail = append(s.tail, b...); len(s.tail) < spoolMemory {
		return len(b), nil
	}
	if s.f == nil {
		f, err := os.CreateTemp(s.dir, "updraft-unpacked-*")
		if err != nil {
			return 0, fmt.Errorf("layer: %w", err)
		}
		os.Remove(f.Name())
		s.f = f
	}
	if _, err := s.f.WriteAt(s.tail, s.size); err != nil {
		return 0, fmt.Errorf("layer: %w", err)
	}
	s.size += int64(len(s.tail))
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

// ReadAt implements io.ReaderAt.
func (s *Spool) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	if off < s.size {
		k, err := s.f.ReadAt(b[:min(int64(len(b)), s.size-off)], off)
		if n = k; err != nil && !errors.Is(err, io.EOF) {
			return n, fmt.Errorf("layer: %w", err)
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

// Spooled is the view of a stream by members whose plain bytes are in a Spool. It is
// safe for concurrent use if the stream is.
type Spooled struct {
	mapping
	src   Source
	spool *Spool
	in    []int64 // where in spool the members are
}

// NewSpooled returns the view of src through found, which Find gave with spool.
func NewSpooled(src Source, found []Found, spool *Spool, limit int64) (*Spooled, error) {
	s := &Spooled{src: src, spool: spool}
	var ms []Member
	for _, f := range found {
		ms = append(ms, f.Member)
		s.in = append(s.in, f.Spool)
	}
	m, err := newMapping(ms, src.Size(), limit)
	s.mapping = m
	return s, err
}

// Size returns the bytes of the view.
func (s *Spooled) Size() int64 { return s.size }

// ReadAt implements io.ReaderAt.
func (s *Spooled) ReadAt(b []byte, off int64) (int, error) {
	return s.read(b, off, func(b []byte, off int64) error { return readFull(s.src, b, off) },
		func(i int, b []byte, off int64) error { return readFull(s.spool, b, s.in[i]+off) })
}

// At returns where byte off of the stream, in no member, is in the view.
func (s *Spooled) At(off int64) int64 {
	at := off
	for i := range s.members {
		if s.members[i].Off > off {
			break
		}
		at += s.members[i].Plain - s.members[i].Packed
	}
	return at
}
