package tree

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fold is what a name counts as where case, and how letters are composed, do not.
func fold(s string) string { return strings.ToLower(strings.ReplaceAll(s, "e\u0301", "\u00e9")) }

// mountFolding mounts a file system in memory that folds names, as those of ext4 with
// casefold, vfat and others do, and keeps the name with which something was made. It is
// served, by FUSE, from a process of its own: what waits for it might be all there is to run.
func mountFolding(t *testing.T) string {
	at := t.TempDir()
	c := exec.Command(os.Args[0], "-test.run=^TestServeFolding$")
	c.Env = append(os.Environ(), foldingEnv+"="+at)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(at, unix.MNT_DETACH) // there is none where it is skipped
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	switch {
	case err != nil:
		t.Fatal(err)
	case line != foldingReady:
		t.Skipf("no such file system here: %s", line)
	}
	return at
}

const (
	foldingEnv   = "UPDRAFT_TEST_FOLDING"
	foldingReady = "mounted\n"
)

// TestServeFolding is the process of mountFolding.
func TestServeFolding(t *testing.T) {
	at := os.Getenv(foldingEnv)
	if at == "" {
		t.Skip("for mountFolding")
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Mount("folding", at, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd))
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(foldingReady)
	s := &foldingFS{nodes: []*foldingNode{nil, {mode: unix.S_IFDIR | 0o755, links: 1}}}
	for b := make([]byte, 1<<20); ; {
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.ENODEV) {
			return // unmounted
		}
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		le := binary.LittleEndian
		reply, errno := s.do(le.Uint32(b[4:]), le.Uint64(b[16:]), b[40:n])
		if errno == silent {
			continue
		}
		if errno != 0 {
			reply = nil
		}
		out := le.AppendUint32(nil, uint32(16+len(reply)))
		out = le.AppendUint32(out, uint32(-int32(errno)))
		out = le.AppendUint64(out, le.Uint64(b[8:]))
		if _, err := unix.Write(fd, append(out, reply...)); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
	}
}

// silent stands for no answer.
const silent = syscall.Errno(1 << 12)

// foldingFS is what there is; nodes are never given up, the first is none, the second the root.
type foldingFS struct{ nodes []*foldingNode }

type foldingNode struct {
	mode, uid, gid, links uint32
	mtime                 uint64
	nano                  uint32
	data                  []byte // or a link's target
	entries               []foldingEntry
}

type foldingEntry struct {
	name string
	node uint64
}

// at returns the index of the entry that name counts as, or -1.
func (n *foldingNode) at(name string) int {
	return slices.IndexFunc(n.entries, func(e foldingEntry) bool { return fold(e.name) == fold(name) })
}

// do does what the kernel asks for, by the number of its request.
func (s *foldingFS) do(op uint32, id uint64, b []byte) ([]byte, syscall.Errno) {
	le := binary.LittleEndian
	n := s.nodes[id]
	switch op {
	case 1: // LOOKUP
		if i := n.at(text(b)); i >= 0 {
			return s.entry(n.entries[i].node), 0
		}
		return nil, unix.ENOENT
	case 2, 36, 42: // FORGET, INTERRUPT, BATCH_FORGET
		return nil, silent
	case 3: // GETATTR
		return append(make([]byte, 16), s.attr(id)...), 0
	case 4: // SETATTR
		return s.set(id, b)
	case 5: // READLINK
		return n.data, 0
	case 6: // SYMLINK
		name := text(b)
		return s.add(n, name, &foldingNode{mode: unix.S_IFLNK | 0o777, data: []byte(text(b[len(name)+1:]))})
	case 9: // MKDIR
		return s.add(n, text(b[8:]), &foldingNode{mode: unix.S_IFDIR | le.Uint32(b)})
	case 10, 11: // UNLINK, RMDIR
		return nil, s.remove(n, text(b), op == 11)
	case 13: // LINK
		return s.link(n, text(b[8:]), le.Uint64(b))
	case 14, 27: // OPEN, OPENDIR
		return make([]byte, 16), 0
	case 15: // READ
		off := min(le.Uint64(b[8:]), uint64(len(n.data)))
		return n.data[off:min(off+uint64(le.Uint32(b[16:])), uint64(len(n.data)))], 0
	case 16: // WRITE
		off, d := le.Uint64(b[8:]), b[40:40+le.Uint32(b[16:])]
		n.resize(max(uint64(len(n.data)), off+uint64(len(d))))
		copy(n.data[off:], d)
		return le.AppendUint64(nil, uint64(len(d))), 0
	case 18, 20, 25, 29, 30: // RELEASE, FSYNC, FLUSH, RELEASEDIR, FSYNCDIR
		return nil, 0
	case 26: // INIT
		out := le.AppendUint32(le.AppendUint32(nil, 7), 31)
		out = append(out, make([]byte, 56)...)
		le.PutUint32(out[20:], 64<<10) // the most that is written at once
		le.PutUint32(out[24:], 1)
		return out, 0
	case 28: // READDIR
		return n.list(le.Uint64(b[8:]), int(le.Uint32(b[16:]))), 0
	case 35: // CREATE
		out, err := s.add(n, text(b[16:]), &foldingNode{mode: unix.S_IFREG | le.Uint32(b[4:])&0o7777})
		return append(out, make([]byte, 16)...), err
	}
	return nil, unix.ENOSYS
}

// text returns the string that b begins with.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

func (s *foldingFS) add(dir *foldingNode, name string, n *foldingNode) ([]byte, syscall.Errno) {
	s.nodes = append(s.nodes, n)
	return s.link(dir, name, uint64(len(s.nodes)-1))
}

func (s *foldingFS) link(dir *foldingNode, name string, id uint64) ([]byte, syscall.Errno) {
	if dir.at(name) >= 0 {
		return nil, unix.EEXIST
	}
	dir.entries = append(dir.entries, foldingEntry{name, id})
	s.nodes[id].links++
	return s.entry(id), 0
}

func (s *foldingFS) remove(dir *foldingNode, name string, isDir bool) syscall.Errno {
	i := dir.at(name)
	if i < 0 {
		return unix.ENOENT
	}
	n := s.nodes[dir.entries[i].node]
	switch d := n.mode&unix.S_IFMT == unix.S_IFDIR; {
	case d && !isDir:
		return unix.EISDIR
	case !d && isDir:
		return unix.ENOTDIR
	case len(n.entries) > 0:
		return unix.ENOTEMPTY
	}
	n.links--
	dir.entries = slices.Delete(dir.entries, i, i+1)
	return 0
}

func (n *foldingNode) resize(size uint64) {
	n.data = append(n.data[:min(uint64(len(n.data)), size)], make([]byte, size-min(uint64(len(n.data)), size))...)
}

func (n *foldingNode) list(from uint64, room int) (out []byte) {
	le := binary.LittleEndian
	for i := from; i < uint64(len(n.entries)); i++ {
		e := n.entries[i]
		if len(out)+24+len(e.name)+7 > room {
			break
		}
		out = le.AppendUint64(le.AppendUint64(out, e.node), i+1)
		out = le.AppendUint32(le.AppendUint32(out, uint32(len(e.name))), 0)
		out = append(out, e.name...)
		for len(out)%8 > 0 {
			out = append(out, 0)
		}
	}
	return out
}

func (s *foldingFS) set(id uint64, b []byte) ([]byte, syscall.Errno) {
	le, n := binary.LittleEndian, s.nodes[id]
	valid := le.Uint32(b)
	for bit, do := range map[uint32]func(){
		1 << 0: func() { n.mode = n.mode&unix.S_IFMT | le.Uint32(b[68:])&0o7777 },
		1 << 1: func() { n.uid = le.Uint32(b[76:]) },
		1 << 2: func() { n.gid = le.Uint32(b[80:]) },
		1 << 3: func() { n.resize(le.Uint64(b[16:])) },
		1 << 5: func() { n.mtime, n.nano = le.Uint64(b[40:]), le.Uint32(b[60:]) },
	} {
		if valid&bit != 0 {
			do()
		}
	}
	return append(make([]byte, 16), s.attr(id)...), 0
}

// entry is how the kernel is told of a node; it is to ask again each time.
func (s *foldingFS) entry(id uint64) []byte {
	out := binary.LittleEndian.AppendUint64(nil, id)
	return append(append(out, make([]byte, 32)...), s.attr(id)...)
}

func (s *foldingFS) attr(id uint64) (out []byte) {
	n := s.nodes[id]
	for _, v := range []uint64{id, uint64(len(n.data)), uint64(len(n.data)+511) / 512, n.mtime, n.mtime, n.mtime} {
		out = binary.LittleEndian.AppendUint64(out, v)
	}
	for _, v := range []uint32{n.nano, n.nano, n.nano, n.mode, n.links, n.uid, n.gid, 0, 4096, 0} {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	return out
}
