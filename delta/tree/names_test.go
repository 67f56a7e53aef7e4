package tree

import (
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// collisions are trees whose names are one where case, or how letters are composed, does
// not count.
var collisions = map[string][]Entry{
	"files":            {{Path: "Readme", Kind: File, Mode: 0o644, Size: 3}, {Path: "readme", Kind: File, Mode: 0o644, Size: 3}},
	"normal forms":     {{Path: "cafe\u0301", Kind: File, Mode: 0o644}, {Path: "caf\u00e9", Kind: File, Mode: 0o644}},
	"directories":      {{Path: "D", Kind: Dir, Mode: 0o755}, {Path: "D/x", Kind: File, Mode: 0o644}, {Path: "d", Kind: Dir, Mode: 0o755}},
	"file, directory":  {{Path: "D", Kind: Dir, Mode: 0o755}, {Path: "D/x", Kind: File, Mode: 0o644}, {Path: "d", Kind: File, Mode: 0o644, Size: 1}},
	"file, link":       {{Path: "A", Kind: Symlink, Target: "/etc"}, {Path: "a", Kind: File, Mode: 0o644}},
	"links":            {{Path: "A", Kind: Symlink, Target: "x"}, {Path: "a", Kind: Symlink, Target: "y"}},
	"below each other": {{Path: "l", Kind: Dir, Mode: 0o755}, {Path: "l/A", Kind: File, Mode: 0o644}, {Path: "l/a", Kind: File, Mode: 0o644}},
}

// TestNamesThatAreOne plays a file system that keeps the first of two such names.
func TestNamesThatAreOne(t *testing.T) {
	fold := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "e\u0301", "\u00e9")) }
	for name, entries := range collisions {
		l := &Listing{Entries: entries}
		if err := l.Validate(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, apart := range []bool{true, false} {
			names := func(dir string) (out []string, err error) {
				seen := map[string]bool{}
				for _, e := range entries {
					n := path.Base(e.Path)
					if path.Dir(e.Path) == dir && (apart || !seen[fold(n)]) {
						out = append(out, n)
					}
					seen[fold(n)] = true
				}
				return out, nil
			}
			err := l.namesApart(names, func(*Entry) bool { return true })
			if errors.Is(err, ErrCollision) == apart {
				t.Errorf("%s: told apart %v: %v", name, apart, err)
			}
		}
	}
}

// TestNamesToldApart: here they are several names, also the second time.
func TestNamesToldApart(t *testing.T) {
	for name, entries := range collisions {
		dir := t.TempDir()
		for range 2 {
			w, err := NewWriter(dir, &Listing{Entries: entries})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := errors.Join(w.Finish(), w.Close()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestFoldingFileSystem is for root, where a file system can be made that does not count
// case.
func TestFoldingFileSystem(t *testing.T) {
	image, at := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"mkfs.ext4", "-q", "-O", "casefold", "-E", "encoding=utf8", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v %s", c, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for name, entries := range collisions {
		dir := filepath.Join(at, strings.ReplaceAll(name, " ", "-"))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("chattr", "+F", dir).CombinedOutput(); err != nil {
			t.Skipf("%v %s", err, out)
		}
		w, err := NewWriter(dir, &Listing{Entries: entries})
		if err == nil { // links come last
			err = errors.Join(w.Finish(), w.Close())
		}
		if !errors.Is(err, ErrCollision) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
