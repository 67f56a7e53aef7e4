package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"updraft/delta/patch"
	"updraft/delta/tree"
)

// restless is a stream in which byte at is another one each time that it is read.
type restless struct {
	patch.Source
	at    int64
	reads byte
}

func (r *restless) ReadAt(b []byte, off int64) (int, error) {
	n, err := r.Source.ReadAt(b, off)
	if k := r.at - off; k >= 0 && k < int64(n) {
		r.reads++
		b[k] = r.reads
	}
	return n, err
}

// TestCreateChecks: of a new side that changes while it is read no patch is left, nor of one
// that is not read to its end.
func TestCreateChecks(t *testing.T) {
	dir := t.TempDir()
	var both []byte
	for i := range 1000 {
		both = fmt.Appendf(both, "what is in both, line %d\n", i)
	}
	for _, side := range []string{"old", "new"} {
		path := filepath.Join(dir, side+".tree", "f")
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{filepath.Join(dir, side), path} {
			if err := os.WriteFile(p, append(slices.Clip(both), side...), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name, end string
		restless  bool
		code      int
	}{
		{"file", "", false, 0},
		{"tree", ".tree", false, 0},
		{"new file changes", "", true, exitVerify},
		{"new tree changes", ".tree", true, exitVerify},
		{"stopped", "", false, exitInterrupted},
	} {
		old, fresh, err := openPair(filepath.Join(dir, "old"+c.end), filepath.Join(dir, "new"+c.end), false)
		if err != nil {
			t.Fatal(err)
		}
		if c.restless {
			fresh.Source = &restless{Source: fresh.Source, at: fresh.Size() / 2}
		}
		out := filepath.Join(t.TempDir(), "patch")
		u := &ui{out: new(bytes.Buffer), err: new(bytes.Buffer)}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		if c.code == exitInterrupted {
			stop()
		}
		_, err = makePatch(ctx, u, old, fresh, out, false, patch.Options{})
		if code, _ := classify(ctx, err); code != c.code {
			t.Errorf("%s: %v, exit code %d, not %d", c.name, err, code, c.code)
		}
		left, rerr := os.ReadDir(filepath.Dir(out))
		if rerr != nil || (len(left) > 0) != (c.code == 0) {
			t.Errorf("%s: %v is there, %v", c.name, left, rerr)
		}
		if err := errors.Join(old.Close(), fresh.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestTreeHeader pins what stands in front of the patch of a tree.
func TestTreeHeader(t *testing.T) {
	const want = "UDTREE1\n\x34\x12\x00\x00\x00\x00\x00\x80"
	p, err := readPatch(strings.NewReader(want), int64(len(want)))
	if got := treeHeader(0x1234, true); string(got) != want || err != nil || !p.tree || !p.bare || p.listing != 0x1234 || p.Size() != 0 || p.whole() != int64(len(want)) {
		t.Errorf("%q, %+v, %v", got, p, err)
	}
	for _, size := range []string{"\x00\x00\x00\x00", "\x01\x00\x00\x04"} { // none, and a byte too many
		head := want[:8] + size + want[12:]
		if _, err := readPatch(strings.NewReader(head), int64(len(head))); !errors.Is(err, patch.ErrCorrupt) {
			t.Errorf("%q: %v", head, err)
		}
	}
}

// TestWriteTreeEnds refuses output that ends before the tree does, and leaves nothing of it.
func TestWriteTreeEnds(t *testing.T) {
	l := tree.Listing{Entries: []tree.Entry{{Path: "a", Kind: tree.File, Size: 3}, {Path: "b", Kind: tree.File, Size: 4}}}
	head := l.Append(nil)
	whole := append(slices.Clip(head), "abcdefg"...)
	for n := range len(whole) + 1 {
		out := filepath.Join(t.TempDir(), "out")
		err := writeTree(out, int64(len(head)), func(w io.Writer) error {
			_, err := w.Write(whole[:n])
			return err
		})
		left, rerr := os.ReadDir(filepath.Dir(out))
		if rerr != nil || (err == nil) != (n == len(whole)) || (len(left) > 0) != (err == nil) {
			t.Errorf("%d bytes of %d: %v; %v is there, %v", n, len(whole), err, left, rerr)
		}
		if err != nil && !errors.Is(err, patch.ErrCorrupt) {
			t.Errorf("%d bytes of %d: %v", n, len(whole), err)
		}
	}
}

// TestBlockDevices makes a patch of a loop device and applies it to another that is longer than
// what is on it; that takes the rights to make them.
func TestBlockDevices(t *testing.T) {
	var use usageError
	if _, err := openStream(os.DevNull, false); !errors.As(err, &use) {
		t.Errorf("a character device: %v", err)
	}
	dir := t.TempDir()
	data := make([]byte, 64<<10)
	rand.NewChaCha8([32]byte{9}).Read(data)
	device := func(b []byte) string {
		path := filepath.Join(dir, "image")
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("losetup", "--read-only", "--find", "--show", path).Output()
		if err != nil {
			t.Skipf("no loop device: %v", err)
		}
		name := strings.TrimSpace(string(out))
		t.Cleanup(func() {
			if err := exec.Command("losetup", "--detach", name).Run(); err != nil {
				t.Error(err)
			}
		})
		return name
	}
	old, longer := device(data), device(append(slices.Clip(data), make([]byte, 4<<10)...))
	fresh, out, made := filepath.Join(dir, "new"), filepath.Join(dir, "patch"), filepath.Join(dir, "made")
	copy(data[1000:], "what is new")
	if err := os.WriteFile(fresh, data, 0o600); err != nil {
		t.Fatal(err)
	}
	u := &ui{out: new(bytes.Buffer), err: new(bytes.Buffer)}
	if err := deltaCreate(t.Context(), u, old, fresh, out, false, patch.Options{}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(out); err != nil || st.Size() > 1000 {
		t.Errorf("patch %v, %v", st, err)
	}
	if err := deltaApply(t.Context(), u, longer, out, made, ""); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(made)
	if st, serr := os.Stat(made); err != nil || serr != nil || !bytes.Equal(got, data) || st.Mode() != filePerm {
		t.Errorf("%d bytes, %v, %v, %v", len(got), st, err, serr)
	}
	p, err := openPatch(out)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close() //nolint:errcheck // read only
	info, err := patch.Inspect(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fileCosts(t.Context(), p, info, longer); err != nil {
		t.Error(err)
	}
}

// TestApplyLimit: the entries of many files have room, a patch of files only what it needs.
func TestApplyLimit(t *testing.T) {
	for _, c := range []struct{ decoder, listings, want int64 }{{1 << 20, 0, applyLeast}, {100 << 20, 0, 110 << 20}, {100 << 20, 5 << 20, 150 << 20}} {
		if got := applyLimit(c.decoder, c.listings); got != c.want {
			t.Errorf("%d of the decoder, listings of %d: %d", c.decoder, c.listings, got)
		}
	}
}
