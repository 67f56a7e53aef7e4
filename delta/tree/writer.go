package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// syncEach is the number of files up to which each is synced by itself; for more,
// one sync of the whole file system is faster.
const syncEach = 256

// Writer writes a tree from the stream its listing describes, in any order.
// WriteAt and ReadAt are safe for concurrent use; Finish and Close are not.
type Writer struct {
	*layout
	root     *os.Root
	cache    *cache
	finished atomic.Bool
	links    links
	written  *atomic.Int64 // bytes written to files
}

var (
	_ io.WriterAt = (*Writer)(nil)
	_ io.ReaderAt = (*Writer)(nil)
)

// NewWriter makes the directories and files of l below dir, which is created when
// it is missing, open to all to read, and reserves their space. What dir holds already, as after an
// interrupted run, is kept where it is a file of the listed size, and replaced
// where it is in the way, be it under a name that differs by case where that does not
// count; nothing else in dir is touched but a copy that a crash has left half made. Links and metadata come with Finish. Two
// entries that are one where dir lies are an ErrCollision.
func NewWriter(dir string, l *Listing) (*Writer, error) { return newWriter(dir, l, nil) }

// newWriter is NewWriter, and links what is the same in from unless that is nil.
func newWriter(dir string, l *Listing, from *os.Root) (*Writer, error) {
	s, err := newLayout(l)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
		return nil, fmt.Errorf("tree: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	w := &Writer{layout: s, root: root, links: links{aside: l.aside(), on: make(map[int]bool)}, written: new(atomic.Int64)}
	w.cache = newCache(w.openFile)
	err = w.prepareAll(from)
	if err == nil {
		err = w.preparedApart()
	}
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("tree: prepare: %w", err)
	}
	return w, nil
}

// prepareAll makes what must be there before contents can be written, or links it in from.
func (w *Writer) prepareAll(from *os.Root) error {
	if err := w.root.RemoveAll(w.links.aside); err != nil {
		return err
	}
	children := w.list.children()
	if err := w.clear(".", children["."]); err != nil {
		return err
	}
	for i := range w.list.Entries {
		e := &w.list.Entries[i]
		if e.Kind == File && from != nil && w.link(from, i) {
			continue
		}
		err := w.prepare(e)
		if err == nil && e.Kind == Dir {
			err = w.clear(e.Path, children[e.Path])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return nil
}

func (w *Writer) openFile(file int) (*os.File, error) {
	if w.finished.Load() {
		return openListed(w.root, &w.list.Entries[file], os.O_RDONLY)
	}
	f, err := openListed(w.root, &w.list.Entries[file], os.O_RDWR)
	if err == nil {
		// Reading ahead of what has come would fill memory with zeros, to be written over.
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
	}
	return f, err
}

// prepare makes what must be there before contents can be written.
func (w *Writer) prepare(e *Entry) error {
	switch e.Kind {
	case Dir:
		return w.prepareDir(e)
	case File:
		return w.prepareFile(e)
	}
	return nil
}

func (w *Writer) prepareDir(e *Entry) error {
	st, err := w.root.Lstat(e.Path)
	if err == nil && st.IsDir() {
		if st.Mode().Perm()&0o700 != 0o700 {
			return w.root.Chmod(e.Path, 0o700)
		}
		return nil
	}
	if err == nil {
		err = w.root.Remove(e.Path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return w.root.Mkdir(e.Path, 0o700)
}

func (w *Writer) prepareFile(e *Entry) error {
	st, err := w.root.Lstat(e.Path)
	if err == nil && !ownFile(st) {
		// A file with other names may be one of an installed release.
		if err := w.root.RemoveAll(e.Path); err != nil {
			return err
		}
		err = fs.ErrNotExist
	}
	flag := os.O_RDWR
	switch {
	case errors.Is(err, fs.ErrNotExist):
		flag |= os.O_CREATE | os.O_EXCL
	case err != nil:
		return err
	case st.Mode().Perm()&0o600 != 0o600:
		if err := w.root.Chmod(e.Path, 0o600); err != nil {
			return err
		}
	}
	f, err := w.root.OpenFile(e.Path, flag, 0o600)
	if err != nil {
		return err
	}
	if err := reserve(f, e.Size); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// ownFile reports whether st is a regular file with one name.
func ownFile(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && st.Mode().IsRegular() && sys.Nlink == 1
}

// reserve gives f its size and, where the file system can, its space.
func reserve(f *os.File, size int64) error {
	if err := f.Truncate(size); err != nil || size == 0 {
		return err
	}
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil
		case err != nil:
			return &fs.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
		return nil
	}
}

// Size returns the length of the stream in bytes.
func (w *Writer) Size() int64 { return w.size }

// ListingSize returns the offset in the stream at which contents begin.
func (w *Writer) ListingSize() int64 { return int64(len(w.head)) }

// ReadAt reads what has been written; bytes not written yet read as zero, or as
// what an earlier run left.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	return w.readAt(w.with, p, off)
}

// WriteAt writes the bytes of the stream from off on. The part that lies in the
// listing must be what the listing says.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || int64(len(p)) > w.size-off {
		return 0, fmt.Errorf("tree: write of %d bytes at %d of %d", len(p), off, w.size)
	}
	if w.finished.Load() {
		return 0, errors.New("tree: write after Finish")
	}
	return w.each(p, off, func(file int, p []byte, off int64) (int, error) {
		if file < 0 {
			if !bytes.Equal(p, w.head[off:off+int64(len(p))]) {
				return 0, fmt.Errorf("%w: other bytes written at %d", ErrListing, off)
			}
			return len(p), nil
		}
		if same, err := w.same(file, p, off); same || err != nil {
			return len(p), err
		}
		var n int
		err := w.cache.with(file, func(f *os.File) (err error) {
			n, err = f.WriteAt(p, off)
			return err
		})
		w.written.Add(int64(n))
		return n, err
	})
}

// Finish makes the links, applies owners (as root only, and only those the system
// lets it give), permissions and times, and syncs files, then directories: when it
// returns nil, the tree survives a power cut. It may be called again after an
// error or a crash. Afterwards only ReadAt and Close may be called.
func (w *Writer) Finish() error {
	w.finished.Store(true)
	if err := w.cache.closeAll(); err != nil {
		return err
	}
	if err := w.openUp(); err != nil {
		return err
	}
	all := len(w.files) > syncEach
	for i := range w.list.Entries {
		e := &w.list.Entries[i]
		var err error
		switch e.Kind {
		case File:
			if !w.isLinked(i) {
				err = w.finishFile(e, !all)
			}
		case Symlink:
			err = w.finishSymlink(e)
		case Hardlink:
			err = w.finishHardlink(e)
		}
		if err != nil {
			return fmt.Errorf("tree: finish %s: %w", e.Path, err)
		}
	}
	if err := w.linkedApart(); err != nil {
		return fmt.Errorf("tree: finish: %w", err)
	}
	// Directories last and deepest first: entries made in them change their time.
	for i := len(w.list.Entries) - 1; i >= 0; i-- {
		if e := &w.list.Entries[i]; e.Kind == Dir {
			if err := w.finishDir(e, !all); err != nil {
				return fmt.Errorf("tree: finish %s: %w", e.Path, err)
			}
		}
	}
	return w.syncRoot(all)
}

// openUp lets us back in where an earlier Finish has taken our permissions away.
func (w *Writer) openUp() error {
	for i := range w.list.Entries {
		e := &w.list.Entries[i]
		var err error
		if e.Kind == Dir && e.Mode&0o700 != 0o700 {
			err = w.prepareDir(e)
		}
		if e.Kind == File && e.Mode&0o400 == 0 {
			err = w.root.Chmod(e.Path, 0o600)
		}
		if err != nil {
			return fmt.Errorf("tree: finish %s: %w", e.Path, err)
		}
	}
	return nil
}

func (w *Writer) syncRoot(all bool) error {
	d, err := w.root.Open(".")
	if err != nil {
		return fmt.Errorf("tree: %w", err)
	}
	defer d.Close()
	if all {
		if err := unix.Syncfs(int(d.Fd())); err != nil {
			return fmt.Errorf("tree: syncfs: %w", err)
		}
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("tree: %w", err)
	}
	return nil
}

func (w *Writer) finishFile(e *Entry, sync bool) error {
	f, err := w.root.Open(e.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	return w.apply(f, e, sync)
}

func (w *Writer) finishDir(e *Entry, sync bool) error {
	d, err := w.root.Open(e.Path)
	if err != nil {
		return err
	}
	defer d.Close()
	return w.apply(d, e, sync)
}

// apply gives an open file or directory its metadata. Changing the owner clears
// setuid, so the mode comes after it.
func (w *Writer) apply(f *os.File, e *Entry, sync bool) error {
	fd := int(f.Fd())
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, int(e.UID), int(e.GID)); err != nil && !ownerRefused(err) {
			return fmt.Errorf("chown: %w", err)
		}
	}
	mode := e.Mode
	if mode&0o6000 != 0 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("stat: %w", err)
		}
		mode = e.Granted(st.Uid, st.Gid)
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	if e.tellable() {
		if err := w.root.Chtimes(e.Path, time.Time{}, time.Unix(0, e.MTime)); err != nil {
			return err
		}
	}
	if !sync {
		return nil
	}
	return f.Sync()
}

// ownerRefused reports errors of a root that may not give files away, as in a
// container.
func ownerRefused(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL)
}

func (w *Writer) finishSymlink(e *Entry) error {
	if target, err := w.root.Readlink(e.Path); err != nil || target != e.Target {
		if err := w.root.RemoveAll(e.Path); err != nil {
			return err
		}
		if err := w.root.Symlink(e.Target, e.Path); err != nil {
			return err
		}
	}
	if os.Geteuid() == 0 {
		if err := w.root.Lchown(e.Path, int(e.UID), int(e.GID)); err != nil && !ownerRefused(err) {
			return err
		}
	}
	if !e.tellable() {
		return nil
	}
	parent, err := w.root.Open(path.Dir(e.Path))
	if err != nil {
		return err
	}
	defer parent.Close()
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(e.MTime)}
	return unix.UtimesNanoAt(int(parent.Fd()), path.Base(e.Path), ts, unix.AT_SYMLINK_NOFOLLOW)
}

func (w *Writer) finishHardlink(e *Entry) error {
	target, err := w.root.Lstat(e.Target)
	if err != nil {
		return err
	}
	if st, err := w.root.Lstat(e.Path); err == nil && os.SameFile(st, target) {
		return nil
	}
	if err := w.root.RemoveAll(e.Path); err != nil {
		return err
	}
	return w.root.Link(e.Target, e.Path)
}

// Close closes what is open. What was written stays as it is; without Finish the
// tree is not complete.
func (w *Writer) Close() error {
	err := w.cache.closeAll()
	if cerr := w.root.Close(); err == nil {
		err = cerr
	}
	return err
}
