package tree_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"updraft/delta/tree"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tempDir returns a directory that can be removed at the end whatever modes the
// test gives to what lies below it.
func tempDir(t testing.TB) string {
	dir := t.TempDir()
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				os.Chmod(path, 0o700)
			}
			return nil
		})
	})
	return dir
}

// plant makes a tree on disk with every kind of entry and files many enough to
// exceed what is held open.
func plant(t testing.TB, files int) string {
	t.Helper()
	dir := filepath.Join(tempDir(t), "tree")
	r := rand.New(rand.NewPCG(1, 2))
	must(t, os.MkdirAll(filepath.Join(dir, "bin", "empty"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "lib"), 0o755))
	for i := range files {
		b := make([]byte, r.IntN(9000))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		path := filepath.Join(dir, "lib", fmt.Sprintf("f%03d", i))
		must(t, os.WriteFile(path, b, 0o644))
		must(t, os.Chtimes(path, time.Time{}, time.Unix(1_600_000_000+int64(i), int64(i))))
	}
	must(t, os.WriteFile(filepath.Join(dir, "bin", "su"), []byte("#!/bin/false\n"), 0o755))
	must(t, syscall.Chmod(filepath.Join(dir, "bin", "su"), 0o4711))
	must(t, os.Link(filepath.Join(dir, "bin", "su"), filepath.Join(dir, "bin", "sudo")))
	must(t, os.WriteFile(filepath.Join(dir, "none"), nil, 0o400))
	must(t, os.Symlink("bin/su", filepath.Join(dir, "link")))
	must(t, os.Symlink("/nowhere/at/all", filepath.Join(dir, "lib", "zdangling")))
	must(t, os.Chmod(filepath.Join(dir, "lib"), 0o555))
	must(t, os.Chtimes(filepath.Join(dir, "lib"), time.Time{}, time.Unix(1_500_000_000, 42)))
	return dir
}

func walk(t testing.TB, dir string) *tree.Listing {
	t.Helper()
	l, err := tree.Walk(dir)
	must(t, err)
	return l
}

func read(t testing.TB, dir string, l *tree.Listing) []byte {
	t.Helper()
	r, err := tree.Open(dir, l)
	must(t, err)
	defer r.Close()
	b, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	must(t, err)
	if int64(len(b)) != r.Size() || r.Size() != r.ListingSize()+l.ContentSize() {
		t.Fatalf("stream of %d bytes, Size %d", len(b), r.Size())
	}
	return b
}

// write sends stream to w in shuffled pieces of n bytes.
func write(t testing.TB, w *tree.Writer, stream []byte, n int) {
	t.Helper()
	var offs []int
	for off := 0; off < len(stream); off += n {
		offs = append(offs, off)
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(offs), func(i, j int) { offs[i], offs[j] = offs[j], offs[i] })
	var wg sync.WaitGroup
	for part := range 3 {
		wg.Go(func() {
			for i := part; i < len(offs); i += 3 {
				p := stream[offs[i]:min(offs[i]+n, len(stream))]
				if k, err := w.WriteAt(p, int64(offs[i])); err != nil || k != len(p) {
					t.Errorf("write at %d: %d, %v", offs[i], k, err)
				}
				got := make([]byte, len(p))
				if _, err := w.ReadAt(got, int64(offs[i])); err != nil || !bytes.Equal(got, p) {
					t.Errorf("read back at %d: %v", offs[i], err)
				}
			}
		})
	}
	wg.Wait()
}

func TestRoundTrip(t *testing.T) {
	for _, files := range []int{0, 40, 300} {
		src := plant(t, files)
		l := walk(t, src)
		stream := read(t, src, l)
		parsed, err := tree.Parse(stream[:len(stream)-int(l.ContentSize())])
		must(t, err)
		dst := filepath.Join(tempDir(t), "new", "dst")
		w, err := tree.NewWriter(dst, parsed)
		must(t, err)
		write(t, w, stream, 5000)
		must(t, w.Finish())
		must(t, w.Finish())
		got := make([]byte, w.Size())
		_, err = w.ReadAt(got, 0)
		must(t, err)
		must(t, w.Close())
		if !bytes.Equal(got, stream) || !bytes.Equal(read(t, dst, walk(t, dst)), stream) {
			t.Error("trees differ")
		}
	}
}

func TestWalkOrderAndHardlinks(t *testing.T) {
	dir := tempDir(t)
	for _, p := range []string{"a", "a-b", "b"} {
		must(t, os.Mkdir(filepath.Join(dir, p), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(dir, "b", "x"), []byte("x"), 0o644))
	must(t, os.Link(filepath.Join(dir, "b", "x"), filepath.Join(dir, "a", "y")))
	var paths string
	l := walk(t, dir)
	for _, e := range l.Entries {
		paths += e.Path + " "
	}
	if paths != "a a-b a/y b b/x " {
		t.Errorf("order %q", paths)
	}
	if e := l.Entries[4]; e.Kind != tree.Hardlink || e.Target != "a/y" {
		t.Errorf("hard link %+v", e)
	}
	link := filepath.Join(tempDir(t), "link")
	must(t, os.Symlink(dir, link))
	if len(walk(t, link).Entries) != 5 {
		t.Error("a root given as a link is followed")
	}
}

// TestTimesOfOtherCenturies: a time that no listing can tell is the nearest that one can.
func TestTimesOfOtherCenturies(t *testing.T) {
	dir := tempDir(t)
	path := filepath.Join(dir, "f")
	must(t, os.WriteFile(path, nil, 0o644))
	for _, c := range []struct{ set, want int64 }{{10_413_792_000, math.MaxInt64}, {4_102_444_800, 4_102_444_800e9}, {-10_000_000_000, math.MinInt64}} {
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {}}
		reflect.ValueOf(&ts[1].Sec).Elem().SetInt(c.set) // of 32 bits on some machines
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, 0))
		st, err := os.Stat(path)
		must(t, err)
		if st.ModTime().Unix() != c.set {
			t.Logf("a file of %v is there as one of %v", time.Unix(c.set, 0), st.ModTime())
			continue
		}
		if got := walk(t, dir).Entries[0].MTime; got != c.want {
			t.Errorf("%v: %v", time.Unix(c.set, 0), time.Unix(0, got))
		}
	}
}

// TestTimesToCome: a time for which the system has no room is not set to one of the past.
func TestTimesToCome(t *testing.T) {
	const ns = 4_102_444_800_000_000_000 // 2100
	l := &tree.Listing{Entries: []tree.Entry{{Path: "d", Kind: tree.Dir, Mode: 0o755, MTime: ns}, {Path: "f", Kind: tree.File, Mode: 0o644, MTime: ns},
		{Path: "l", Kind: tree.Symlink, MTime: ns, Target: "f"}}}
	dir := tempDir(t)
	w, err := tree.NewWriter(dir, l)
	must(t, err)
	must(t, w.Finish())
	must(t, w.Close())
	narrow := reflect.TypeOf(unix.Timespec{}.Sec).Size() == 4
	for _, e := range l.Entries {
		st, err := os.Lstat(filepath.Join(dir, e.Path))
		must(t, err)
		if !st.ModTime().Equal(time.Unix(0, ns)) && (!narrow || time.Since(st.ModTime()) > time.Hour) {
			t.Errorf("%s: %v", e.Path, st.ModTime())
		}
	}
}

func TestWalkRefuses(t *testing.T) {
	dir := tempDir(t)
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	if _, err := tree.Walk(dir); !errors.Is(err, tree.ErrKind) {
		t.Errorf("pipe: %v", err)
	}
	if _, err := tree.Walk(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	if _, err := tree.Walk(file); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("file: %v", err)
	}
}

func TestReaderNoticesChanges(t *testing.T) {
	l := &tree.Listing{Entries: []tree.Entry{{Path: "f", Kind: tree.File, Mode: 0o644, Size: 10}}}
	outside := filepath.Join(tempDir(t), "outside")
	must(t, os.WriteFile(outside, make([]byte, 10), 0o644))
	for name, change := range map[string]func(path string) error{
		"missing":   os.Remove,
		"shorter":   func(p string) error { return os.Truncate(p, 9) },
		"longer":    func(p string) error { return os.Truncate(p, 11) },
		"directory": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) },
		"pipe":      func(p string) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o644)) },
	} {
		dir := tempDir(t)
		path := filepath.Join(dir, "f")
		must(t, os.WriteFile(path, make([]byte, 10), 0o644))
		must(t, change(path))
		r, err := tree.Open(dir, l)
		must(t, err)
		if _, err := r.ReadAt(make([]byte, 5), r.ListingSize()); !errors.Is(err, tree.ErrChanged) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, r.Close())
	}
	dir := tempDir(t)
	must(t, os.Symlink(outside, filepath.Join(dir, "f")))
	r, err := tree.Open(dir, l)
	must(t, err)
	defer r.Close()
	if _, err := r.ReadAt(make([]byte, 5), r.ListingSize()); err == nil {
		t.Error("a link out of the tree is followed")
	}
	if _, err := r.ReadAt(nil, -1); err == nil {
		t.Error("negative offset")
	}
	if n, err := r.ReadAt(make([]byte, 5), r.Size()); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

// TestWriterStaysInside: whatever lies in the target, nothing outside changes.
func TestWriterStaysInside(t *testing.T) {
	src := plant(t, 3)
	l := walk(t, src)
	stream := read(t, src, l)
	outside := tempDir(t)
	victim := filepath.Join(outside, "victim")
	must(t, os.WriteFile(victim, []byte("precious"), 0o600))
	dst := tempDir(t)
	must(t, os.Symlink(outside, filepath.Join(dst, "lib")))                // directory of the listing
	must(t, os.Symlink(victim, filepath.Join(dst, "none")))                // file of the listing
	must(t, os.Mkdir(filepath.Join(dst, "bin"), 0o755))                    // exists already
	must(t, os.Link(victim, filepath.Join(dst, "bin", "su")))              // shares an inode with another release
	must(t, os.MkdirAll(filepath.Join(dst, "link", "sub"), 0o755))         // in the way of a link
	must(t, os.Symlink(victim, filepath.Join(dst, "bin", "sudo")))         // in the way of a hard link
	must(t, os.WriteFile(filepath.Join(dst, "stray"), []byte("x"), 0o644)) // not ours
	w, err := tree.NewWriter(dst, l)
	must(t, err)
	write(t, w, stream, 1000)
	must(t, w.Finish())
	must(t, w.Close())
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
		t.Fatalf("file outside: %q, %v", b, err)
	}
	if st, err := os.Stat(victim); err != nil || st.Mode() != 0o600 {
		t.Errorf("file outside: %v, %v", st.Mode(), err)
	}
	if names, _ := os.ReadDir(outside); len(names) != 1 {
		t.Errorf("%d files outside", len(names))
	}
	must(t, os.Remove(filepath.Join(dst, "stray")))
	if !bytes.Equal(read(t, dst, walk(t, dst)), stream) {
		t.Error("trees differ")
	}
}

func TestWriterResumes(t *testing.T) {
	src := plant(t, 20)
	l := walk(t, src)
	stream := read(t, src, l)
	head := len(stream) - int(l.ContentSize())
	dst := tempDir(t)
	w, err := tree.NewWriter(dst, l)
	must(t, err)
	half := head + (len(stream)-head)/2
	_, err = w.WriteAt(stream[:half], 0)
	must(t, err)
	must(t, w.Close())
	for range 2 { // the second time over a finished tree, with its permissions
		w, err = tree.NewWriter(dst, l)
		must(t, err)
		got := make([]byte, half)
		_, err = w.ReadAt(got, 0)
		must(t, err)
		// bin/su has two names once finished, so it is written anew.
		from := head + len("#!/bin/false\n")
		if !bytes.Equal(got[from:], stream[from:half]) {
			t.Error("what was written is gone")
		}
		_, err = w.WriteAt(stream, 0)
		must(t, err)
		must(t, w.Finish())
		must(t, w.Close())
		if !bytes.Equal(read(t, dst, walk(t, dst)), stream) {
			t.Error("trees differ")
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	l := &tree.Listing{Entries: []tree.Entry{{Path: "f", Kind: tree.File, Mode: 0o644, Size: 10}}}
	w, err := tree.NewWriter(tempDir(t), l)
	must(t, err)
	defer w.Close()
	if _, err := w.WriteAt([]byte{1}, 0); !errors.Is(err, tree.ErrListing) {
		t.Errorf("other listing: %v", err)
	}
	for _, off := range []int64{-1, w.Size(), 1 << 62} {
		if _, err := w.WriteAt([]byte{1}, off); err == nil {
			t.Errorf("write at %d", off)
		}
	}
	must(t, w.Finish())
	if _, err := w.WriteAt([]byte{1}, w.ListingSize()); err == nil {
		t.Error("write after Finish")
	}
	if _, err := tree.NewWriter("/dev/null/x", l); err == nil {
		t.Error("impossible target")
	}
}

func TestSpaceIsReserved(t *testing.T) {
	dir := tempDir(t)
	l := &tree.Listing{Entries: []tree.Entry{{Path: "f", Kind: tree.File, Mode: 0o644, Size: 1 << 20}}}
	w, err := tree.NewWriter(dir, l)
	must(t, err)
	must(t, w.Close())
	var st syscall.Stat_t
	must(t, syscall.Stat(filepath.Join(dir, "f"), &st))
	if st.Size != 1<<20 {
		t.Errorf("size %d", st.Size)
	}
	if st.Blocks*512 < 1<<20 {
		t.Logf("this file system reserves nothing (%d blocks)", st.Blocks)
	}
}

// TestSetuidOfOthers: where the owner cannot be as listed, nothing runs with the rights of whom it is given to instead.
func TestSetuidOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becomes another user")
	}
	const self = 65534
	temp := tempDir(t)
	dir := filepath.Join(temp, "tree")
	must(t, errors.Join(os.Chmod(temp, 0o755), os.Chmod(filepath.Dir(temp), 0o755)))
	must(t, errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, self, self)))
	l := &tree.Listing{Entries: []tree.Entry{
		{Path: "another", Kind: tree.File, Mode: 0o6755, UID: 1234, GID: 1234},
		{Path: "dir", Kind: tree.Dir, Mode: 0o3775, UID: self, GID: 1234},
		{Path: "group", Kind: tree.File, Mode: 0o6755, UID: 1234, GID: self},
		{Path: "own", Kind: tree.File, Mode: 0o6755, UID: self, GID: self},
	}}
	want := map[string]uint32{"another": 0o755, "dir": 0o1775, "group": 0o2755, "own": 0o6755}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- func() error {
			for _, call := range []uintptr{syscall.SYS_SETRESGID, syscall.SYS_SETRESUID} { // of this thread alone
				if _, _, e := syscall.RawSyscall(call, self, self, self); e != 0 {
					return e
				}
			}
			w, err := tree.NewWriter(dir, l)
			if err != nil {
				return err
			}
			return errors.Join(w.Finish(), w.Close())
		}()
	}()
	must(t, <-done)
	for _, e := range walk(t, dir).Entries {
		if e.UID != self || e.GID != self || e.Mode != want[e.Path] {
			t.Errorf("%s: mode %o of %d:%d, want %o", e.Path, e.Mode, e.UID, e.GID, want[e.Path])
		}
	}
}
