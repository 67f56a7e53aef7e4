package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Reader reads a tree as the stream its listing describes. It is safe for
// concurrent use.
type Reader struct {
	*layout
	root  *os.Root
	cache *cache
}

var _ io.ReaderAt = (*Reader)(nil)

// Open returns a Reader over the listing and the files below dir. Files are opened
// when they are read; one that is missing, no regular file or not of the listed
// size gives an error that wraps ErrChanged. Links are not followed out of dir.
func Open(dir string, l *Listing) (*Reader, error) {
	s, err := newLayout(l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	r := &Reader{layout: s, root: root}
	r.cache = newCache(func(file int) (*os.File, error) {
		return openListed(root, &l.Entries[file], os.O_RDONLY)
	})
	return r, nil
}

// openListed opens a file and checks that it is the listed one as far as kind and
// size tell.
func openListed(root *os.Root, e *Entry, flag int) (*os.File, error) {
	// Without O_NONBLOCK a pipe in the file's place would hang the open.
	f, err := root.OpenFile(e.Path, flag|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENXIO) {
		return nil, fmt.Errorf("%w: %w", ErrChanged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != e.Size) {
		err = fmt.Errorf("%w: %s: %v, %d bytes instead of %d", ErrChanged, e.Path, st.Mode().Type(), st.Size(), e.Size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Size returns the length of the stream in bytes.
func (r *Reader) Size() int64 { return r.size }

// ListingSize returns the offset in the stream at which contents begin.
func (r *Reader) ListingSize() int64 { return int64(len(r.head)) }

// ReadAt implements io.ReaderAt in stream coordinates.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	return r.readAt(r.cache.with, p, off)
}

// Close closes what is open. No ReadAt may be under way.
func (r *Reader) Close() error {
	err := r.cache.closeAll()
	if cerr := r.root.Close(); err == nil {
		err = cerr
	}
	return err
}
