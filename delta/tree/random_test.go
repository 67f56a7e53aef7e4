package tree_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"updraft/delta/tree"
)

// grow makes a random tree below dir and returns how many entries it has.
func grow(t *testing.T, r *rand.Rand, dir string, depth int) (n int) {
	t.Helper()
	names := []string{"a", "a-b", "a.b", "A", "é", "with space", "-", "~", "\xff\xfe", "z\nz"}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:r.IntN(len(names))] {
		path := filepath.Join(dir, name)
		switch r.IntN(6) {
		case 0, 1:
			must(t, os.Mkdir(path, 0o755))
			if depth > 0 {
				n += grow(t, r, path, depth-1)
			}
			must(t, os.Chmod(path, os.FileMode(0o700|r.IntN(0o100))))
		case 2:
			must(t, os.Symlink(fmt.Sprint("../", r.IntN(100)), path))
		default:
			b := make([]byte, r.IntN(3000)*r.IntN(2))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			must(t, os.WriteFile(path, b, 0o600))
			must(t, os.Chmod(path, os.FileMode(0o400|r.IntN(0o400))))
			if r.IntN(5) == 0 {
				must(t, os.Link(path, path+".link"))
				n++
			}
		}
		n++
	}
	return n
}

// TestRandomTrees: any tree comes back as it was, listing and contents.
func TestRandomTrees(t *testing.T) {
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 1))
		src := filepath.Join(tempDir(t), "src")
		must(t, os.Mkdir(src, 0o755))
		entries := grow(t, r, src, 3)
		l := walk(t, src)
		if len(l.Entries) != entries {
			t.Fatalf("seed %d: %d entries, want %d", seed, len(l.Entries), entries)
		}
		stream := read(t, src, l)
		back, err := tree.Parse(l.Append(nil))
		must(t, err)
		dst := filepath.Join(tempDir(t), "dst")
		w, err := tree.NewWriter(dst, back)
		must(t, err)
		write(t, w, stream, 1+r.IntN(2000))
		must(t, w.Finish())
		must(t, w.Close())
		if !bytes.Equal(walk(t, dst).Append(nil), l.Append(nil)) || !bytes.Equal(read(t, dst, back), stream) {
			t.Errorf("seed %d: trees differ", seed)
		}
	}
}

// TestReadAtAnywhere reads random pieces from several goroutines, over more files
// than are held open.
func TestReadAtAnywhere(t *testing.T) {
	src := plant(t, 60)
	l := walk(t, src)
	want := read(t, src, l)
	rd, err := tree.Open(src, l)
	must(t, err)
	defer rd.Close()
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(g, 2))
			for range 200 {
				off := r.IntN(len(want) + 10)
				p := make([]byte, r.IntN(20_000))
				n, err := rd.ReadAt(p, int64(off))
				k := min(len(p), max(len(want)-off, 0))
				if n != k || k > 0 && !bytes.Equal(p[:n], want[off:off+k]) || k < len(p) && err != io.EOF || k == len(p) && k > 0 && err != nil {
					t.Errorf("%d bytes at %d: %d, %v", len(p), off, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestFinishNeedsItsFiles: what was removed in between is an error, not a tree
// that looks complete.
func TestFinishNeedsItsFiles(t *testing.T) {
	src := plant(t, 5)
	l := walk(t, src)
	for _, victim := range []string{"none", "bin/su", "bin/empty"} {
		dst := tempDir(t)
		w, err := tree.NewWriter(dst, l)
		must(t, err)
		must(t, os.Remove(filepath.Join(dst, victim)))
		if err := w.Finish(); err == nil && victim != "bin/empty" {
			t.Errorf("%s is missing, and Finish does not mind", victim)
		}
		must(t, w.Close())
	}
}

// TestEmptyTree: no entries is a tree too.
func TestEmptyTree(t *testing.T) {
	l := walk(t, tempDir(t))
	dst := filepath.Join(tempDir(t), "dst")
	w, err := tree.NewWriter(dst, l)
	must(t, err)
	if w.Size() != w.ListingSize() || w.Size() != int64(len(l.Append(nil))) {
		t.Errorf("size %d, listing %d", w.Size(), w.ListingSize())
	}
	_, err = w.WriteAt(l.Append(nil), 0)
	must(t, err)
	must(t, w.Finish())
	must(t, w.Close())
	if names, err := os.ReadDir(dst); err != nil || len(names) != 0 {
		t.Errorf("%v, %v", names, err)
	}
}
