package tree

import (
	"errors"
	"path"
	"path/filepath"
	"slices"
	"testing"
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

// TestFoldingFileSystem writes trees where names are folded.
func TestFoldingFileSystem(t *testing.T) {
	at := mountFolding(t)
	write := func(t *testing.T, dir string, entries []Entry) error {
		t.Helper()
		w, err := NewWriter(dir, &Listing{Entries: entries})
		if err != nil {
			return err
		}
		return errors.Join(w.Finish(), w.Close()) // links come last
	}
	for name, entries := range collisions {
		if err := write(t, filepath.Join(at, name), entries); !errors.Is(err, ErrCollision) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What an earlier run has left under such a name is no entry's.
	for name, c := range map[string][2][]Entry{
		"file":            {{{Path: "Readme", Kind: File, Mode: 0o644, Size: 3}}, {{Path: "readme", Kind: File, Mode: 0o644, Size: 3}}},
		"file, directory": {{{Path: "D", Kind: File, Mode: 0o644}}, {{Path: "d", Kind: Dir, Mode: 0o755}, {Path: "d/x", Kind: File, Mode: 0o644}}},
		"directory": {{{Path: "D", Kind: Dir, Mode: 0o555}, {Path: "D/x", Kind: File, Mode: 0o644}},
			{{Path: "d", Kind: Dir, Mode: 0o755}, {Path: "d/X", Kind: File, Mode: 0o644}}},
		"link":       {{{Path: "L", Kind: Symlink, Target: "x"}}, {{Path: "l", Kind: Symlink, Target: "x"}}},
		"link, file": {{{Path: "L", Kind: Symlink, Target: "x"}}, {{Path: "l", Kind: File, Mode: 0o600}}},
		"hard link": {{{Path: "A", Kind: File, Mode: 0o600}, {Path: "B", Kind: Hardlink, Target: "A"}},
			{{Path: "a", Kind: File, Mode: 0o600}, {Path: "b", Kind: Hardlink, Target: "a"}}},
	} {
		dir := filepath.Join(at, "left "+name)
		if err := write(t, dir, c[0]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for range 2 {
			if err := write(t, dir, c[1]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := write(t, dir, append(slices.Clone(c[0]), c[1]...)); !errors.Is(err, ErrCollision) {
			t.Errorf("%s, both: %v", name, err)
		}
	}
}
