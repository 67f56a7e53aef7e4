package tree_test

import (
	"bytes"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"updraft/delta/tree"
)

// pair is a tree and a copy of it with the same metadata, made by a Writer.
func pair(t *testing.T, files int) (src, old string, l *tree.Listing, stream []byte) {
	t.Helper()
	src = plant(t, files)
	old, l, stream = copyOf(t, src)
	return src, old, l, stream
}

// copyOf is a copy of the tree at src, made by a Writer.
func copyOf(t *testing.T, src string) (old string, l *tree.Listing, stream []byte) {
	t.Helper()
	old = tempDir(t)
	l = walk(t, src)
	stream = read(t, src, l)
	w, err := tree.NewWriter(old, l)
	must(t, err)
	write(t, w, stream, 5000)
	must(t, w.Finish())
	must(t, w.Close())
	return old, l, stream
}

func nextTo(t *testing.T, l *tree.Listing, old string) (*tree.Writer, string, *atomic.Int64) {
	t.Helper()
	dst := tempDir(t)
	w, err := tree.NewLinkedWriter(dst, l, old)
	must(t, err)
	written := new(atomic.Int64)
	w.CountTo(written)
	return w, dst, written
}

// TestLinkedWriter writes a tree beside the same one: nothing but links.
func TestLinkedWriter(t *testing.T) {
	_, old, l, stream := pair(t, 40)
	w, dst, written := nextTo(t, l, old)
	if w.Linked() < 40 {
		t.Errorf("%d files linked", w.Linked())
	}
	got := make([]byte, w.Size())
	_, err := w.ReadAt(got, 0)
	must(t, err)
	linked := w.Linked()
	write(t, w, stream, 5000)
	if w.Linked() != linked {
		t.Error("equal bytes unlink a file")
	}
	must(t, w.Finish())
	must(t, w.Finish())
	must(t, w.Close())
	if n := written.Load(); n > 64 {
		t.Errorf("%d bytes written for nothing", n)
	}
	if !bytes.Equal(read(t, dst, walk(t, dst)), stream) || !bytes.Equal(read(t, old, walk(t, old)), stream) {
		t.Error("trees differ")
	}
	// Once more over what is there, as after a crash.
	w, err = tree.NewLinkedWriter(dst, l, old)
	must(t, err)
	must(t, w.Finish())
	must(t, w.Close())
	if !bytes.Equal(read(t, dst, walk(t, dst)), stream) {
		t.Error("trees differ after a crash")
	}
}

// TestLinkedFileChanges: a file that looks the same and is not gets contents of its
// own, and the other tree keeps its own.
func TestLinkedFileChanges(t *testing.T) {
	_, old, l, stream := pair(t, 40)
	w, dst, _ := nextTo(t, l, old)
	next := bytes.Clone(stream)
	head := len(stream) - int(l.ContentSize())
	for i := head + 100; i < len(next); i += 9000 {
		next[i] ^= 1
	}
	write(t, w, next, 700)
	got := make([]byte, w.Size())
	_, err := w.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, next) {
		t.Error("reads other bytes than were written")
	}
	must(t, w.Finish())
	must(t, w.Close())
	if !bytes.Equal(read(t, dst, walk(t, dst)), next) {
		t.Error("the new tree has other bytes")
	}
	if !bytes.Equal(read(t, old, walk(t, old)), stream) {
		t.Error("the old tree has changed")
	}
}

// TestLinkedFileOnAFullDisk: there is no room for the contents of a file that turns out to differ. What was compared and
// found right reads as before, and it can be written once there is room. The limit is one of a process, and go test
// writes a log by its own, so that the test has one for itself.
func TestLinkedFileOnAFullDisk(t *testing.T) {
	const alone = "TEST_FULL_DISK"
	if os.Getenv(alone) == "" {
		c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), alone+"=1")
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	dir := tempDir(t)
	must(t, os.WriteFile(filepath.Join(dir, "f"), bytes.Repeat([]byte("abcdefgh"), 32<<10), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, ".UPdraft"), nil, 0o644))
	old, l, stream := copyOf(t, dir)
	next := bytes.Clone(stream)
	next[len(next)-1] ^= 1
	w, dst, _ := nextTo(t, l, old)
	defer w.Close()
	half := len(next) / 2
	_, err := w.WriteAt(next[:half], 0)
	must(t, err)
	fullAt(t, 64<<10, func() {
		if _, err := w.WriteAt(next[half:], int64(half)); err == nil {
			t.Error("there is room")
		}
	})
	got := make([]byte, len(stream))
	if _, err := w.ReadAt(got, 0); err != nil || !bytes.Equal(got, stream) {
		t.Errorf("what was there is not: %v", err)
	}
	_, err = w.WriteAt(next[half:], int64(half))
	must(t, err)
	must(t, w.Finish())
	if !bytes.Equal(read(t, dst, walk(t, dst)), next) {
		t.Error("the new tree has other bytes")
	}
	if !bytes.Equal(read(t, old, walk(t, old)), stream) {
		t.Error("the old tree has changed")
	}
}

// fullAt calls fn while no file can grow beyond size bytes, as on a disk without room. Nothing else may write meanwhile.
func fullAt(t *testing.T, size uint64, fn func()) {
	t.Helper()
	var before syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: before.Max}))
	defer func() { must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)) }()
	fn()
}

// TestCopyLeftByACrash: a crash has left a file for which there was no time to get its name.
func TestCopyLeftByACrash(t *testing.T) {
	for name, entry := range map[string]string{".updraft": "f", ".updraft~": ".Updraft"} {
		dir := tempDir(t)
		must(t, os.WriteFile(filepath.Join(dir, entry), []byte("abc"), 0o644))
		old, l, stream := copyOf(t, dir)
		dst := tempDir(t)
		must(t, os.WriteFile(filepath.Join(dst, name), []byte("a"), 0o600))
		w, err := tree.NewLinkedWriter(dst, l, old)
		must(t, err)
		stream[len(stream)-1] ^= 1
		write(t, w, stream, 100)
		must(t, w.Finish())
		must(t, w.Close())
		if !bytes.Equal(read(t, dst, walk(t, dst)), stream) {
			t.Errorf("%s: another tree", name)
		}
	}
}

// TestNotLinked: what differs in anything that the listing says is made anew.
func TestNotLinked(t *testing.T) {
	for name, change := range map[string]func(p string) error{
		"time":   func(p string) error { return os.Chtimes(p, time.Time{}, time.Unix(77, 0)) },
		"mode":   func(p string) error { return os.Chmod(p, 0o611) },
		"size":   func(p string) error { return os.Truncate(p, 3) },
		"gone":   os.Remove,
		"a link": func(p string) error { return os.Rename(p, p+"~") },
		"a directory": func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.Mkdir(p, 0o755)
		},
	} {
		dir := tempDir(t)
		must(t, os.WriteFile(filepath.Join(dir, "f"), []byte(strings.Repeat("x", 100)), 0o644))
		old, l, stream := copyOf(t, dir)
		must(t, change(filepath.Join(old, "f")))
		if name == "a link" {
			must(t, os.Symlink("f~", filepath.Join(old, "f")))
		}
		w, dst, written := nextTo(t, l, old)
		if w.Linked() != 0 {
			t.Errorf("%s: linked", name)
		}
		write(t, w, stream, 100)
		must(t, w.Finish())
		must(t, w.Close())
		if !bytes.Equal(read(t, dst, walk(t, dst)), stream) || written.Load() != 100 {
			t.Errorf("%s: other bytes, or not once: %d", name, written.Load())
		}
	}
	if _, err := tree.NewLinkedWriter(tempDir(t), &tree.Listing{}, "/none/such"); err == nil {
		t.Error("a tree that is not there to link from")
	}
}

// TestOthersMayWrite: a file that somebody else can write to, or could let himself, is not shared with the tree in which
// he has it.
func TestOthersMayWrite(t *testing.T) {
	for _, c := range []struct {
		mode   os.FileMode
		uid    int
		linked int
	}{{0o644, os.Geteuid(), 1}, {0o555, os.Geteuid(), 1}, {0o664, os.Geteuid(), 0}, {0o646, os.Geteuid(), 0}, {0o444, 1234, 0}, {0o644, 1234, 0}} {
		if c.uid != os.Geteuid() && os.Geteuid() != 0 {
			continue // only root gives files away
		}
		dir := tempDir(t)
		path := filepath.Join(dir, "f")
		must(t, os.WriteFile(path, []byte(strings.Repeat("x", 100)), 0o600))
		must(t, os.Chown(path, c.uid, -1))
		must(t, os.Chmod(path, c.mode))
		old, l, stream := copyOf(t, dir)
		w, dst, written := nextTo(t, l, old)
		if w.Linked() != c.linked {
			t.Errorf("mode %v of %d: %d linked", c.mode, c.uid, w.Linked())
		}
		write(t, w, stream, 100)
		must(t, w.Finish())
		must(t, w.Close())
		if !bytes.Equal(read(t, dst, walk(t, dst)), stream) || written.Load() != int64(100*(1-c.linked)) {
			t.Errorf("mode %v of %d: other bytes, or not once: %d", c.mode, c.uid, written.Load())
		}
	}
}
