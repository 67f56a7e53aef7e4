package tree

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inode tells files with several names apart.
type inode struct{ dev, ino uint64 }

// Walk lists the tree below dir. Links are listed, not followed, except dir
// itself. Files that are no file, directory or link give an error that wraps
// ErrKind and names them.
func Walk(dir string) (*Listing, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	w := walker{root: root, inodes: map[string]inode{}}
	if err := filepath.WalkDir(root, w.visit); err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	sort.Slice(w.list, func(i, j int) bool { return w.list[i].Path < w.list[j].Path })
	w.hardlinks()
	l := &Listing{Entries: w.list}
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return l, nil
}

type walker struct {
	root   string
	list   []Entry
	inodes map[string]inode // of files with several links, by path
}

func (w *walker) visit(path string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if path == w.root {
		if !d.IsDir() {
			return fmt.Errorf("%s: %w", path, syscall.ENOTDIR)
		}
		return nil
	}
	if len(w.list) >= MaxEntries {
		return fmt.Errorf("%w: more than %d entries", ErrListing, MaxEntries)
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(w.root, path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: no inode", path)
	}
	e := Entry{Path: rel, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MTime: nanoseconds(info.ModTime())}
	switch info.Mode().Type() {
	case fs.ModeDir:
		e.Kind = Dir
	case 0:
		e.Kind, e.Size = File, info.Size()
		if st.Nlink > 1 {
			w.inodes[rel] = inode{uint64(st.Dev), st.Ino} //nolint:unconvert // narrower on other boards
		}
	case fs.ModeSymlink:
		e.Kind, e.Mode = Symlink, 0
		if e.Target, err = os.Readlink(path); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is a %v: %w", path, info.Mode().Type(), ErrKind)
	}
	w.list = append(w.list, e)
	return nil
}

// nanoseconds returns t as a listing has it: of one that lies outside of its 584 years, the nearest.
func nanoseconds(t time.Time) int64 {
	switch first, last := time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64); {
	case t.Before(first):
		return math.MinInt64
	case t.After(last):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// tellable reports whether the system's calls have room for the time of e: those of 32-bit
// machines end in 2038, and would set one of the century before.
func (e *Entry) tellable() bool {
	ts := unix.NsecToTimespec(e.MTime)
	return ts.Nano() == e.MTime
}

// hardlinks turns all but the first name of a file into links to the first.
func (w *walker) hardlinks() {
	first := map[inode]string{}
	for i, e := range w.list {
		id, ok := w.inodes[e.Path]
		if !ok {
			continue
		}
		if target, ok := first[id]; ok {
			w.list[i] = Entry{Path: e.Path, Kind: Hardlink, Target: target}
			continue
		}
		first[id] = e.Path
	}
}
