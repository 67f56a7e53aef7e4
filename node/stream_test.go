package node

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"updraft/delta/release"
	"updraft/delta/tree"
)

// treeOf makes a tree and returns its stream and the length of its listing.
func treeOf(t *testing.T, sizes ...int) (stream []byte, listing int) {
	t.Helper()
	dir := t.TempDir()
	for i, n := range sizes {
		p := filepath.Join(dir, string(rune('a'+i%3)), string(rune('a'+i)))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, random(uint64(i), n), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	l, err := tree.Walk(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := tree.Open(dir, l)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b, int(r.ListingSize())
}

func newTree(t *testing.T, dir string, listing, whole int) *treeStream {
	t.Helper()
	s, err := createTree(filepath.Join(dir, "app"), filepath.Join(dir, "listing"), int64(listing), int64(whole), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t *testing.T, s stream, b []byte, from, to int) {
	t.Helper()
	if n, err := s.WriteAt(b[from:to], int64(from)); err != nil || n != to-from {
		t.Fatalf("write of %d to %d: %d, %v", from, to, n, err)
	}
}

func holds(t *testing.T, s stream, b []byte, from, to int) {
	t.Helper()
	got := make([]byte, to-from)
	if n, err := s.ReadAt(got, int64(from)); n != len(got) || !bytes.Equal(got, b[from:to]) {
		t.Errorf("read of %d to %d: %d bytes, %v", from, to, n, err)
	}
}

// complete checks the tree on disk against the stream.
func complete(t *testing.T, dir string, b []byte) {
	t.Helper()
	l, err := tree.Walk(filepath.Join(dir, "app"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := tree.Open(filepath.Join(dir, "app"), l)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, r.Size())
	if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, b) {
		t.Errorf("the tree on disk differs: %v", err)
	}
}

// TestContentsBeforeTheListing writes a tree from its end to its beginning.
func TestContentsBeforeTheListing(t *testing.T) {
	b, ls := treeOf(t, 5000, 0, 70000, 1, 30000)
	dir := t.TempDir()
	s := newTree(t, dir, ls, len(b))
	if n, err := s.ReadAt(make([]byte, 10), int64(ls)); n != 0 || !errors.Is(err, errNotThere) {
		t.Errorf("contents of nothing: %d, %v", n, err)
	}
	for to := len(b); to > ls; to -= min(7000, to-ls) {
		put(t, s, b, max(ls, to-7000), to)
	}
	if _, err := os.Lstat(filepath.Join(dir, "app")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tree without a listing: %v", err)
	}
	holds(t, s, b, ls, len(b))
	put(t, s, b, 0, ls)
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	if err := s.open(); err != nil {
		t.Errorf("open again: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "listing.spill")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("spilled contents are left: %v", err)
	}
	holds(t, s, b, 0, len(b))
	holds(t, s, b, ls-3, ls+3)
	if err := s.finish(); err != nil {
		t.Fatal(err)
	}
	complete(t, dir, b)
}

// TestAcrossTheBorder writes and reads over the end of the listing in one go.
func TestAcrossTheBorder(t *testing.T) {
	b, ls := treeOf(t, 5000, 3000)
	dir := t.TempDir()
	s := newTree(t, dir, ls, len(b))
	put(t, s, b, ls-5, ls+100)
	holds(t, s, b, ls-5, ls+100)
	put(t, s, b, 0, ls-5)
	put(t, s, b, ls+100, len(b))
	if err := s.finish(); err != nil { // opens the tree by itself
		t.Fatal(err)
	}
	complete(t, dir, b)
}

// TestTreeResumes goes on with a tree in each state a crash may leave.
func TestTreeResumes(t *testing.T) {
	b, ls := treeOf(t, 5000, 0, 70000, 1, 30000)
	for _, c := range []struct {
		name         string
		listing      int  // bytes of it before the crash
		opened       bool // and the tree was open
		from, to     int  // contents before the crash
		wantContents bool // they are there after it
	}{
		{name: "nothing"},
		{name: "half a listing", listing: ls / 2},
		{name: "early contents", from: ls + 10, to: ls + 4000},
		{name: "listing", listing: ls, from: ls, to: ls + 6000},
		{name: "open", listing: ls, opened: true, from: ls, to: ls + 6000, wantContents: true},
	} {
		dir := t.TempDir()
		s := newTree(t, dir, ls, len(b))
		put(t, s, b, 0, c.listing)
		if c.opened {
			if err := s.open(); err != nil {
				t.Fatal(err)
			}
		}
		if c.to > c.from {
			put(t, s, b, c.from, c.to)
		}
		// Killed here: nothing is closed, spilled contents stay on disk.
		s = newTree(t, dir, ls, len(b))
		holds(t, s, b, 0, c.listing)
		if c.opened {
			if err := s.open(); err != nil {
				t.Fatal(err)
			}
		}
		if c.wantContents {
			holds(t, s, b, c.from, c.to)
		} else if _, err := s.ReadAt(make([]byte, 1), int64(ls)); !errors.Is(err, errNotThere) {
			t.Errorf("%s: contents that were not kept: %v", c.name, err)
		}
		put(t, s, b, 0, len(b))
		if err := s.finish(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		complete(t, dir, b)
	}
}

// TestClosedTreeLeavesNoSpill gives up a tree before its listing was there.
func TestClosedTreeLeavesNoSpill(t *testing.T) {
	b, ls := treeOf(t, 5000)
	dir := t.TempDir()
	s := newTree(t, dir, ls, len(b))
	put(t, s, b, ls, ls+100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
		t.Errorf("left: %v, %v", es, err)
	}
}

// TestConcurrentWrites has chunks arrive from many sides while the tree opens.
func TestConcurrentWrites(t *testing.T) {
	b, ls := treeOf(t, 50000, 70000, 1, 30000)
	dir := t.TempDir()
	s := newTree(t, dir, ls, len(b))
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			for off := ls + k*1000; off < len(b); off += 4000 {
				if _, err := s.WriteAt(b[off:min(len(b), off+1000)], int64(off)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	put(t, s, b, 0, ls)
	if err := s.open(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	holds(t, s, b, 0, len(b))
	if err := s.finish(); err != nil {
		t.Fatal(err)
	}
	complete(t, dir, b)
}

// TestHostileListing: what is signed may still be wrong; nothing is written
// outside the tree.
func TestHostileListing(t *testing.T) {
	entry := func(e tree.Entry) []byte { return (&tree.Listing{Entries: []tree.Entry{e}}).Append(nil) }
	long := (&tree.Listing{}).Append(nil)
	for name, listing := range map[string][]byte{
		"up":         entry(tree.Entry{Path: "../evil", Kind: tree.File}),
		"absolute":   entry(tree.Entry{Path: "/evil", Kind: tree.File}),
		"no parent":  entry(tree.Entry{Path: "a/evil", Kind: tree.File}),
		"no listing": random(1, 100),
		"rest":       append(long, 0),
		"too much":   entry(tree.Entry{Path: "big", Kind: tree.File, Size: 11}),
		"too little": entry(tree.Entry{Path: "big", Kind: tree.File, Size: 9}),
		"huge":       entry(tree.Entry{Path: "big", Kind: tree.File, Size: 1 << 62}),
		"hard link":  entry(tree.Entry{Path: "l", Kind: tree.Hardlink, Target: "../../etc/passwd"}),
	} {
		dir := t.TempDir()
		s := newTree(t, dir, len(listing), len(listing)+10)
		put(t, s, listing, 0, len(listing))
		if err := s.open(); !errors.Is(err, tree.ErrListing) {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.finish(); err == nil {
			t.Errorf("%s: finished", name)
		}
		if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
			t.Errorf("%s: made %v, %v", name, es, err)
		}
	}
}

// TestListingThatChangesAfterwards: a tree is not finished with another listing than its
// stream has in the end, and takes what is in its place into the next try.
func TestListingThatChangesAfterwards(t *testing.T) {
	b, ls := treeOf(t, 5000, 70000)
	l, err := tree.Parse(b[:ls])
	if err != nil {
		t.Fatal(err)
	}
	l.Entries[len(l.Entries)-1].Mode = 0o666
	dir := t.TempDir()
	s := newTree(t, dir, ls, len(b))
	put(t, s, l.Append(nil), 0, ls)
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	put(t, s, b, 0, len(b))
	if err := s.finish(); !errors.Is(err, errOtherListing) {
		t.Errorf("finished with another listing: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newTree(t, dir, ls, len(b))
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	holds(t, s, b, 0, len(b))
	if err := s.finish(); err != nil {
		t.Fatal(err)
	}
	complete(t, dir, b)
}

// TestListingWithLessThanItsStream: contents beyond the files of the listing are
// an error, early or late.
func TestListingWithLessThanItsStream(t *testing.T) {
	b, ls := treeOf(t, 100)
	for _, early := range []bool{true, false} {
		s := newTree(t, t.TempDir(), ls, len(b))
		write := func() error {
			_, err := s.WriteAt(make([]byte, 200), int64(len(b)-50))
			return err
		}
		var err error
		if early {
			err = write()
		}
		put(t, s, b, 0, ls)
		if e := s.open(); e != nil {
			err = e
		} else if !early {
			err = write()
		}
		if err == nil {
			t.Errorf("early %v: written beyond the tree's end", early)
		}
	}
}

func TestFileStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	b := random(1, 10000)
	s, err := createFile(path, 10000, 0o754)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, b, 5000, 10000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// After a restart what was written is there, and a changed size is mended.
	if err := os.Truncate(path, 20000); err != nil {
		t.Fatal(err)
	}
	if s, err = createFile(path, 10000, 0o754); err != nil {
		t.Fatal(err)
	}
	holds(t, s, b, 5000, 10000)
	put(t, s, b, 0, 5000)
	if err := errors.Join(s.finish(), s.Close()); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if got, e := os.ReadFile(path); err != nil || e != nil || !bytes.Equal(got, b) || fi.Mode().Perm() != 0o754 {
		t.Errorf("file %v, %v, %v", fi, err, e)
	}

	art := &release.Artifact{Name: "f", Kind: release.File, Size: 10000}
	in, err := openInstalled(filepath.Dir(path), art, "")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	holds(t, in, b, 0, 10000)
	if _, err := in.WriteAt(b, 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("write to an installed file: %v", err)
	}
	art.Size++
	if _, err := openInstalled(filepath.Dir(path), art, ""); err == nil {
		t.Error("a file of another size was opened as installed")
	}
	art.Name = "."
	if _, err := openInstalled(filepath.Dir(path), art, ""); err == nil {
		t.Error("a directory was opened as an installed file")
	}
}
