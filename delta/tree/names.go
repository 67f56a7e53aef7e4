package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

// ErrCollision reports names of a tree that are one name where it is written: they differ
// by case or by how their letters are composed, and the file system does not tell.
var ErrCollision = errors.New("tree: names that are one on this file system")

// namesApart returns an ErrCollision if an entry that has been made is not there under its
// own name: then what lies there is another's. names lists a directory; made reports
// whether an entry should be there.
func (l *Listing) namesApart(names func(dir string) ([]string, error), made func(e *Entry) bool) error {
	var failed error
	for dir, list := range l.children() {
		ns, err := names(dir)
		if err != nil { // also where another entry took the place of a directory: its own one tells
			failed = err
			continue
		}
		there := make(map[string]bool, len(ns))
		for _, n := range ns {
			there[n] = true
		}
		for _, i := range list {
			if e := &l.Entries[i]; !there[path.Base(e.Path)] && made(e) {
				return fmt.Errorf("%w: %q is there under another name", ErrCollision, e.Path)
			}
		}
	}
	return failed
}

// children returns the entries of each directory.
func (l *Listing) children() map[string][]int {
	out := map[string][]int{}
	for i := range l.Entries {
		dir := path.Dir(l.Entries[i].Path)
		out[dir] = append(out[dir], i)
	}
	return out
}

// clear removes what dir, of which nothing has been made yet, has in the place of entries but
// under other names: an earlier run has left it. Where it was another entry's, that is made anew.
func (w *Writer) clear(dir string, entries []int) error {
	ns, err := w.readNames(dir)
	if err != nil || len(ns) == 0 {
		return err
	}
	slices.Sort(ns)
	for _, i := range entries {
		p := w.list.Entries[i].Path
		if _, there := slices.BinarySearch(ns, path.Base(p)); there {
			continue
		}
		if _, err := w.root.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := w.root.RemoveAll(p); err != nil {
			return err
		}
	}
	return nil
}

// readNames lists what a directory of the tree holds.
func (w *Writer) readNames(dir string) ([]string, error) {
	d, err := w.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// preparedApart checks the names of what newWriter makes, before any contents come, and of
// links that it would find in the way of Finish.
func (w *Writer) preparedApart() error {
	return w.list.namesApart(w.readNames, func(e *Entry) bool {
		if e.Kind == Dir || e.Kind == File {
			return true
		}
		_, err := w.root.Lstat(e.Path)
		return !errors.Is(err, fs.ErrNotExist)
	})
}

// linkedApart checks the names of all entries.
func (w *Writer) linkedApart() error {
	return w.list.namesApart(w.readNames, func(*Entry) bool { return true })
}
