package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"updraft/delta/release"
	"updraft/delta/tree"
)

// errNotThere reports a part of an artifact that has not been written yet.
var errNotThere = errors.New("node: not there yet")

// stream is an artifact on disk seen as one byte stream, while it is assembled
// and afterwards. It is safe for concurrent use.
type stream interface {
	io.ReaderAt
	io.WriterAt
	// countTo has bytes that reach the disk added to c from now on.
	countTo(c *counter)
	// finish makes what was written durable and complete (metadata of trees).
	finish() error
	Close() error
}

// fileStream is an artifact of kind file.
type fileStream struct {
	*gather
	mode    os.FileMode
	written *counter
}

func (s *fileStream) countTo(c *counter) { s.written = c }

// createFile opens path for assembly, with size bytes, keeping what is there
// already.
func createFile(path string, size int64, mode os.FileMode) (*fileStream, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("node: open artifact for writing: %w", err)
	}
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(fmt.Errorf("node: size artifact: %w", err), f.Close())
	}
	// Reading ahead of what has come would fill memory with zeros, to be written over.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
	s := &fileStream{mode: mode, written: new(counter)}
	s.gather = newGather(f, size, func(n int) { s.written.Add(int64(n)) })
	return s, nil
}

func (s *fileStream) finish() error {
	if err := s.f.Chmod(s.mode); err != nil {
		return fmt.Errorf("node: set mode: %w", err)
	}
	if err := s.sync(); err != nil {
		return fmt.Errorf("node: sync artifact: %w", err)
	}
	return nil
}

// treeStream is an artifact of kind tree. Its listing comes first in the stream;
// until it is complete, contents that arrive early rest in a spill file.
type treeStream struct {
	dir     string // of the tree
	listing string // file that holds the listing's bytes
	size    int64  // of the listing
	whole   int64  // of the listing and the contents
	like    string // a tree that is much the same, whose files may be linked; empty: none
	written *counter

	mu    sync.RWMutex // guards all below
	head  listingFile  // the listing
	w     *tree.Writer // nil until the listing is complete
	made  [32]byte     // digest of the listing that w was made with
	spill *os.File     // early contents, at their offset in the stream
	early []span       // what spill holds
}

type span struct{ off, n int64 }

// listingFile is an *os.File.
type listingFile interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// listingError says why the listing that was read, of digest sum, cannot be used. It is tree.ErrListing.
type listingError struct {
	err error
	sum [32]byte
}

func (e *listingError) Error() string { return e.err.Error() }

func (e *listingError) Unwrap() error { return e.err }

// createTree opens the tree at dir for assembly. Its stream has whole bytes, of which
// size are the listing, that is kept in the file listing; if that is complete already,
// open does the rest.
// Files that are the same in the tree at like are linked; empty: none.
func createTree(dir, listing string, size, whole int64, like string) (*treeStream, error) {
	head, err := os.OpenFile(listing, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("node: open listing: %w", err)
	}
	return &treeStream{dir: dir, listing: listing, size: size, whole: whole, head: head, like: like, written: new(counter)}, nil
}

func (s *treeStream) countTo(c *counter) { s.written = c }

// linked reports whether files of the tree were linked: then contents are there that
// were never written.
func (s *treeStream) linked() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.w != nil && s.w.Linked() > 0
}

// newWriter makes the tree, with links where that can be.
func (s *treeStream) newWriter(l *tree.Listing) (*tree.Writer, error) {
	if s.like != "" {
		if w, err := tree.NewLinkedWriter(s.dir, l, s.like); err == nil {
			return w, nil
		}
	}
	return tree.NewWriter(s.dir, l)
}

// errOtherListing reports a tree that was made with another listing than came in the end.
var errOtherListing = errors.New("node: the tree was begun with a listing that was not the release's")

// open is called once the listing has been written: from then on contents go straight
// into the files of the tree. It need not have been verified: finish looks at it again.
// One that is malformed or tells of other contents than the stream has is a
// *listingError, and nothing is made.
func (s *treeStream) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != nil {
		return nil
	}
	b, err := s.readListing()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	l, err := tree.Parse(b)
	if err == nil && l.ContentSize() != s.whole-s.size {
		err = fmt.Errorf("%w: %d bytes of contents in a stream of %d", tree.ErrListing, l.ContentSize(), s.whole-s.size)
	}
	var w *tree.Writer
	if err == nil {
		w, err = s.newWriter(l)
	}
	if errors.Is(err, tree.ErrListing) {
		return &listingError{err, sum}
	}
	if err != nil {
		return err
	}
	w.CountTo(&s.written.Int64)
	for _, e := range s.early {
		if _, err := io.Copy(io.NewOffsetWriter(w, e.off), io.NewSectionReader(s.spill, e.off, e.n)); err != nil {
			return errors.Join(fmt.Errorf("node: move early contents: %w", err), w.Close())
		}
	}
	s.w, s.made, s.early = w, sum, nil
	return s.dropSpillLocked()
}

func (s *treeStream) readListing() ([]byte, error) {
	b := make([]byte, s.size)
	if _, err := s.head.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("node: read listing: %w", err)
	}
	return b, nil
}

func (s *treeStream) dropSpillLocked() error {
	if s.spill == nil {
		return nil
	}
	err := errors.Join(s.spill.Close(), os.Remove(s.spill.Name()))
	s.spill = nil
	return err
}

func (s *treeStream) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < s.size {
		part := p[:min(int64(len(p)), s.size-off)]
		m, err := s.head.ReadAt(part, off)
		if err != nil || m == len(p) {
			return m, err
		}
		n, p, off = m, p[m:], off+int64(m)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var m int
	var err error
	switch {
	case s.w != nil:
		m, err = s.w.ReadAt(p, off)
	case s.spill != nil:
		m, err = s.spill.ReadAt(p, off)
	default:
		err = errNotThere
	}
	return n + m, err
}

func (s *treeStream) WriteAt(p []byte, off int64) (int, error) {
	n := 0
	if off < s.size {
		part := p[:min(int64(len(p)), s.size-off)]
		m, err := s.head.WriteAt(part, off)
		s.written.Add(int64(m))
		if err != nil || m == len(p) {
			return m, err
		}
		n, p, off = m, p[m:], off+int64(m)
	}
	s.mu.RLock()
	if s.w != nil {
		defer s.mu.RUnlock()
		m, err := s.w.WriteAt(p, off)
		return n + m, err
	}
	s.mu.RUnlock()
	m, err := s.writeEarly(p, off)
	return n + m, err
}

func (s *treeStream) writeEarly(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != nil {
		return s.w.WriteAt(p, off)
	}
	if s.spill == nil {
		f, err := os.OpenFile(s.listing+".spill", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return 0, fmt.Errorf("node: open spill file: %w", err)
		}
		s.spill = f
	}
	n, err := s.spill.WriteAt(p, off)
	s.written.Add(int64(n))
	if err == nil {
		s.early = append(s.early, span{off, int64(n)})
	}
	return n, err
}

// finish implements stream, for a stream that has the artifact's digest. What was made
// with another listing than is in it now is not finished, which is errOtherListing: whoever
// assembles it again opens the tree with the right one, and keeps what is in its place.
func (s *treeStream) finish() error {
	if err := s.open(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.readListing()
	if err != nil {
		return err
	}
	if sha256.Sum256(b) != s.made {
		return errOtherListing
	}
	if err := s.head.Sync(); err != nil {
		return fmt.Errorf("node: sync listing: %w", err)
	}
	return s.w.Finish()
}

func (s *treeStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errors.Join(s.head.Close(), s.dropSpillLocked())
	if s.w != nil {
		err = errors.Join(err, s.w.Close())
	}
	return err
}

// readOnly is an installed artifact: it is read, and nothing else.
type readOnly struct {
	io.ReaderAt
	close func() error
}

func (r readOnly) WriteAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("node: write to an installed release: %w", os.ErrPermission)
}
func (r readOnly) finish() error    { return nil }
func (r readOnly) countTo(*counter) {}
func (r readOnly) Close() error     { return r.close() }

// openInstalled opens artifact a of the release at dir. listing is the file with
// the listing of a tree.
func openInstalled(dir string, a *release.Artifact, listing string) (stream, error) {
	path := filepath.Join(dir, a.Name)
	if a.Kind == release.Tree {
		b, err := os.ReadFile(listing)
		if err != nil {
			return nil, fmt.Errorf("node: read listing: %w", err)
		}
		l, err := tree.Parse(b)
		if err != nil {
			return nil, err
		}
		r, err := tree.Open(path, l)
		if err != nil {
			return nil, err
		}
		return readOnly{r, r.Close}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("node: open installed artifact: %w", err)
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != a.Size) {
		err = fmt.Errorf("node: %s is not the file of %d bytes that was installed", path, a.Size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return readOnly{f, f.Close}, nil
}
