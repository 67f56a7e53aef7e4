package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// ErrCollision reports names of a tree that are one name where it is written: they differ
// by case or by how their letters are composed, and the file system does not tell.
var ErrCollision = errors.New("tree: names that are one on this file system")

// namesApart returns an ErrCollision if an entry that has been made is not there under its
// own name: then what lies there is another's. names lists a directory; made reports
// whether an entry should be there.
func (l *Listing) namesApart(names func(dir string) ([]string, error), made func(e *Entry) bool) error {
	children := map[string][]int{}
	for i := range l.Entries {
		dir := path.Dir(l.Entries[i].Path)
		children[dir] = append(children[dir], i)
	}
	for dir, list := range children {
		ns, err := names(dir)
		if err != nil {
			return err
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
