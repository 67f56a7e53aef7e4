package node

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestBehind writes a file as a release is written, and looks at how much of it is left in memory.
func TestBehind(t *testing.T) {
	const size, piece = 48 << 20, 100 << 10
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skip("a file system in memory keeps everything there:", err)
	}
	data := bytes.Repeat([]byte("a release "), size/10+1)[:size]
	var b behind
	for off := 0; off < size; off += piece {
		end := min(off+piece, size)
		if _, err := f.WriteAt(data[off:end], int64(off)); err != nil {
			t.Fatal(err)
		}
		b.upTo(f, int64(end))
	}
	if got := resident(t, f, size); got > behindKeep+behindStep+4<<20 {
		t.Errorf("%d MiB of %d are in memory", got>>20, size>>20)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, data) {
		t.Error("what was let go of is not what was written:", err)
	}
}

// resident returns how many of a file's bytes are in the page cache.
func resident(t *testing.T, f *os.File, size int) (n int) {
	t.Helper()
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(m) }()
	pages := make([]byte, (size+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(size), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, p := range pages {
		n += int(p&1) * os.Getpagesize()
	}
	return n
}
