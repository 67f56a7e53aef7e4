package tree

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// links are the files of a tree under construction that are, for now, further names
// of files of another tree. They are read like all others, and what is written to
// them is compared; a difference gives the file contents of its own.
type links struct {
	aside string // where a file gets its contents, before it has its name

	mu sync.RWMutex // guards on, and the file aside; held for writing while a file changes over
	on map[int]bool // by index of the entry
	n  int          // how many there were
}

// NewLinkedWriter is NewWriter for a tree of which a part is the same as in the one
// at old: a file there with the same path, size, permissions, time and (for root)
// owner is linked instead of made, if nobody but this user and root can write to it:
// another, as whom an application runs, could change it after it was checked. Nobody may
// write to it in place from then on. Its bytes are not trusted: they read as what was
// written, and it is for the caller to check them.
func NewLinkedWriter(dir string, l *Listing, old string) (*Writer, error) {
	from, err := os.OpenRoot(old)
	if err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	defer from.Close()
	return newWriter(dir, l, from)
}

// Linked returns how many files were linked.
func (w *Writer) Linked() int {
	w.links.mu.RLock()
	defer w.links.mu.RUnlock()
	return w.links.n
}

// CountTo has the bytes that are written to files from now on added to c. It is
// called before anything is written.
func (w *Writer) CountTo(c *atomic.Int64) { w.written = c }

// link makes entry i a further name of the file in from, if that is the same as far
// as its metadata tell.
func (w *Writer) link(from *os.Root, i int) bool {
	e := &w.list.Entries[i]
	if e.Size == 0 || e.Mode&0o400 == 0 {
		return false
	}
	st, err := from.Lstat(e.Path)
	if err != nil || !e.describes(st) || !ours(st) {
		return false
	}
	if err := w.root.RemoveAll(e.Path); err != nil {
		return false
	}
	if err := linkBetween(from, w.root, e.Path); err != nil {
		return false
	}
	if now, err := w.root.Lstat(e.Path); err != nil || !e.describes(now) || !ours(now) {
		_ = w.root.RemoveAll(e.Path) // what follows makes the file, or fails as well
		return false
	}
	w.links.on[i] = true
	w.links.n++
	return true
}

// describes reports whether the metadata of st are those of e.
func (e *Entry) describes(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() || st.Size() != e.Size || !st.ModTime().Equal(time.Unix(0, e.MTime)) || sys.Mode&0o7777 != e.Granted(sys.Uid, sys.Gid) {
		return false
	}
	return os.Geteuid() != 0 || sys.Uid == e.UID && sys.Gid == e.GID
}

// ours reports whether nobody but this user and root can write to the file with the
// metadata st, or let himself. An ACL that lets others shows in the bits of the group.
func ours(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && (sys.Uid == 0 || int(sys.Uid) == os.Geteuid()) && sys.Mode&0o022 == 0
}

// linkBetween gives the file at p in from the same path in to. Neither root is left
// on the way.
func linkBetween(from, to *os.Root, p string) error {
	a, err := from.Open(path.Dir(p))
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := to.Open(path.Dir(p))
	if err != nil {
		return err
	}
	defer b.Close()
	return unix.Linkat(int(a.Fd()), path.Base(p), int(b.Fd()), path.Base(p), 0)
}

// with calls fn with the open file of entry i; one that is linked is open for
// reading only.
func (w *Writer) with(i int, fn func(f *os.File) error) error {
	w.links.mu.RLock()
	if !w.links.on[i] {
		w.links.mu.RUnlock()
		return w.cache.with(i, fn)
	}
	defer w.links.mu.RUnlock()
	f, err := openListed(w.root, &w.list.Entries[i], os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	return fn(f)
}

// same reports whether entry i is linked and has the bytes p at off.
func (w *Writer) same(i int, p []byte, off int64) (bool, error) {
	w.links.mu.RLock()
	linked := w.links.on[i]
	w.links.mu.RUnlock()
	if !linked {
		return false, nil
	}
	buf := make([]byte, len(p))
	err := w.with(i, func(f *os.File) error {
		_, err := f.ReadAt(buf, off)
		return err
	})
	if err == nil && bytes.Equal(buf, p) {
		return true, nil
	}
	return false, w.unlink(i)
}

// unlink gives entry i contents of its own, which are those it has. After an error, as of a
// full disk, it is linked as before, and reads the same.
func (w *Writer) unlink(i int) error {
	w.links.mu.Lock()
	defer w.links.mu.Unlock()
	if !w.links.on[i] {
		return nil
	}
	e := &w.list.Entries[i]
	err := w.copyAside(e)
	if err == nil {
		err = w.root.Rename(w.links.aside, e.Path)
	}
	if err != nil {
		_ = w.root.Remove(w.links.aside) // newWriter removes what stays
		return err
	}
	delete(w.links.on, i)
	return nil
}

// copyAside copies the contents of e.
func (w *Writer) copyAside(e *Entry) error {
	f, err := openListed(w.root, e, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	to, err := w.root.OpenFile(w.links.aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := reserve(to, e.Size); err != nil {
		return err
	}
	n, err := to.ReadFrom(f)
	w.written.Add(n)
	if err == nil && n != e.Size {
		err = fmt.Errorf("%w: %s has %d bytes", ErrChanged, e.Path, n)
	}
	return err
}

// aside returns the name of a file beside the entries of l: none has it, not even where case
// does not count.
func (l *Listing) aside() string {
	name := ".updraft"
	for slices.ContainsFunc(l.Entries, func(e Entry) bool { return strings.EqualFold(e.Path, name) }) {
		name += "~"
	}
	return name
}

// isLinked reports whether entry i is a further name of a file elsewhere, which has
// its metadata.
func (w *Writer) isLinked(i int) bool {
	w.links.mu.RLock()
	defer w.links.mu.RUnlock()
	return w.links.on[i]
}
