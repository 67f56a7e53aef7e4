package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"updraft/delta/patch"
	"updraft/delta/tree"
)

// A patch file of a directory tree is a patch behind 16 bytes, for which see
// delta/patch/FORMAT.md. A bare listing has no modes, owners and times.
const (
	treeMagic      = "UDTREE1\n"
	treeHeaderSize = 16
	treeBare       = 1 << 63
)

func treeHeader(listing int64, bare bool) []byte {
	n := uint64(listing)
	if bare {
		n |= treeBare
	}
	return binary.LittleEndian.AppendUint64([]byte(treeMagic), n)
}

// stream is a file or a directory as one stream of bytes.
type stream struct {
	patch.Source
	io.Closer
	tree    bool
	listing int64 // bytes at which a tree's contents begin
	perm    os.FileMode

	unchanged func() error // fails if it is no longer as it was when it was opened; a device never does
}

// limit makes s its first n bytes if it is a device.
func (s *stream) limit(n int64) {
	if f, ok := s.Source.(*tree.FileReader); ok {
		f.Limit(n)
	}
}

// openStream opens path; bare: the listing of a tree is to be so.
func openStream(path string, bare bool) (*stream, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		device := st.Mode().Type() == os.ModeDevice
		if !st.Mode().IsRegular() && !device {
			return nil, usagef("%s is no regular file, directory or block device", path)
		}
		f, err := tree.OpenFile(path)
		if err != nil {
			return nil, err
		}
		s := &stream{Source: f, Closer: f, perm: f.Info().Mode().Perm(), unchanged: f.Unchanged}
		if device {
			s.perm = filePerm
		}
		return s, nil
	}
	s, err := openTree(path, bare)
	if err != nil {
		return nil, treeError(err)
	}
	return s, nil
}

// treeError is err of a directory. A listing that cannot be made is no fault of a patch.
func treeError(err error) error {
	if errors.Is(err, tree.ErrListing) {
		return hinted{usageError{err}, "make a patch of each of its parts"}
	}
	return err
}

// openTree opens the directory path.
func openTree(path string, bare bool) (*stream, error) {
	l, err := tree.Walk(path)
	if err != nil {
		return nil, err
	}
	walked := &tree.Listing{Entries: l.Entries}
	if bare {
		l.Entries = slices.Clone(l.Entries)
		for i := range l.Entries {
			e := &l.Entries[i]
			e.Mode, e.UID, e.GID, e.MTime = 0, 0, 0, 0
		}
	}
	r, err := tree.Open(path, l)
	if err != nil {
		return nil, err
	}
	unchanged := func() error { return walked.Unchanged(path) }
	return &stream{Source: r, Closer: r, tree: true, listing: r.ListingSize(), unchanged: unchanged}, nil
}

// openPair opens what a patch is made of: two files or two directories.
func openPair(oldPath, newPath string, bare bool) (old, fresh *stream, err error) {
	if old, err = openStream(oldPath, bare); err != nil {
		return nil, nil, err
	}
	if fresh, err = openStream(newPath, false); err != nil {
		return nil, nil, errors.Join(err, old.Close())
	}
	if old.tree != fresh.tree {
		return nil, nil, errors.Join(usagef("%s and %s must both be files or both be directories", oldPath, newPath), old.Close(), fresh.Close())
	}
	return old, fresh, nil
}

// within reports whether the file path is, or would be, in the directory dir.
func within(path, dir string) (bool, error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err == nil {
		parent, err = filepath.Abs(parent)
	}
	if err != nil {
		return false, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return false, err
	}
	rel, err := filepath.Rel(dir, parent)
	return err == nil && filepath.IsLocal(rel), err
}

// patchFile is a patch of files or of trees.
type patchFile struct {
	*io.SectionReader
	io.Closer
	tree    bool
	bare    bool // the base's listing is to be so
	listing int64
	head    int64 // bytes in front of the patch
}

// whole returns how many bytes the file has.
func (p *patchFile) whole() int64 { return p.head + p.Size() }

func openPatch(path string) (*patchFile, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() { // a pipe would be waited for
		return nil, usagef("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if st, err = f.Stat(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p, err := readPatch(f, st.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p.Closer = f
	return p, nil
}

// readPatch reads what is in front of a patch of size bytes.
func readPatch(f io.ReaderAt, size int64) (*patchFile, error) {
	p := &patchFile{SectionReader: io.NewSectionReader(f, 0, size)}
	var head [treeHeaderSize]byte
	if _, err := f.ReadAt(head[:], 0); err != nil || !bytes.HasPrefix(head[:], []byte(treeMagic)) {
		return p, nil //nolint:nilerr // too short for a tree's: patch says what is wrong
	}
	p.tree, p.head = true, treeHeaderSize
	n := binary.LittleEndian.Uint64(head[len(treeMagic):])
	p.bare, n = n&treeBare != 0, n&^treeBare
	if n == 0 || n > tree.MaxListing {
		return nil, fmt.Errorf("%w: a listing of %d bytes", patch.ErrCorrupt, n)
	}
	p.listing = int64(n)
	p.SectionReader = io.NewSectionReader(f, treeHeaderSize, size-treeHeaderSize)
	return p, nil
}

// writeTree makes a directory of the stream that fill writes, by way of a temporary
// one beside it. On an error nothing is left.
func writeTree(path string, listing int64, fill func(io.Writer) error) (err error) {
	temp, err := os.MkdirTemp(filepath.Dir(path), ".updraft-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	dir := filepath.Join(temp, "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	s := &treeSink{dir: dir, listing: listing}
	if err := fill(s); err != nil {
		return errors.Join(err, s.close())
	}
	if s.w == nil {
		return fmt.Errorf("%w: the output ends in its listing", patch.ErrCorrupt)
	}
	if size := s.w.Size(); s.at != size {
		return errors.Join(fmt.Errorf("%w: an output of %d bytes, and %d by its listing", patch.ErrCorrupt, s.at, size), s.close())
	}
	if err := errors.Join(s.w.Finish(), s.close()); err != nil {
		return err
	}
	return os.Rename(dir, path)
}

// treeSink takes a tree's stream from front to back.
type treeSink struct {
	dir     string
	listing int64
	head    []byte // of the listing, until it is complete
	w       *tree.Writer
	at      int64
}

func (s *treeSink) Write(b []byte) (int, error) {
	total := len(b)
	if s.w == nil {
		n := min(int64(len(b)), s.listing-int64(len(s.head)))
		s.head = append(s.head, b[:n]...)
		b = b[n:]
		if int64(len(s.head)) < s.listing {
			return total, nil
		}
		l, err := tree.Parse(s.head)
		if err != nil {
			return 0, err
		}
		if s.w, err = tree.NewWriter(s.dir, l); err != nil {
			return 0, err
		}
		s.at, s.head = s.listing, nil
	}
	if len(b) == 0 {
		return total, nil
	}
	if _, err := s.w.WriteAt(b, s.at); err != nil {
		return 0, err
	}
	s.at += int64(len(b))
	return total, nil
}

func (s *treeSink) close() error {
	if s.w == nil {
		return nil
	}
	return s.w.Close()
}
