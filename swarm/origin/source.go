package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// source is one place that holds the tree.
type source interface {
	// open asks for the bytes off to end (exclusive) of an object, or for all of
	// it when end is negative. Errors wrap ErrNotFound, ErrChanged or
	// ErrUnreachable, or are those of ctx.
	open(ctx context.Context, q query) (*body, error)
	String() string
}

type query struct {
	name     string
	off, end int64
	size     int64  // what the object must measure; negative: unknown
	etag     string // conditional: what is held already
	modified string
}

func (q query) whole() bool { return q.end < 0 }

// body is an answer. Its bytes are those from start to end of an object of total
// bytes (negative: unknown). start may lie before the place asked for when the
// source cannot serve ranges.
type body struct {
	io.ReadCloser
	start, end, total int64
	unchanged         bool // what is held already is current; there are no bytes
	etag, modified    string
}

// dir is a source in the file system.
type dir string

func (d dir) String() string { return string(d) }

func (d dir) open(ctx context.Context, q query) (*body, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer root.Close()
	f, err := root.Open(q.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s in %s", ErrNotFound, q.name, d)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	b, err := d.section(f, q)
	if err != nil {
		f.Close()
		return nil, err
	}
	return b, nil
}

func (d dir) section(f *os.File, q query) (*body, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s in %s is not a file", ErrNotFound, q.name, d)
	}
	b := &body{start: q.off, end: q.end, total: st.Size()}
	b.etag = fmt.Sprintf(`"%x-%x"`, st.ModTime().UnixNano(), st.Size())
	if q.whole() {
		if b.unchanged = q.etag == b.etag; b.unchanged {
			f.Close()
			b.ReadCloser = io.NopCloser(eof{})
			return b, nil
		}
		b.end = st.Size()
	}
	if q.size >= 0 && q.size != st.Size() || b.start > b.end {
		return nil, fmt.Errorf("%w: %s in %s has %d bytes, not %d", ErrChanged, q.name, d, st.Size(), q.size)
	}
	b.ReadCloser = fileBody{io.NewSectionReader(f, b.start, b.end-b.start), f}
	return b, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

type fileBody struct {
	io.Reader
	io.Closer
}
