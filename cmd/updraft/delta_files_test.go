package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/delta/patch"
	"updraft/delta/tree"
)

// TestFileCosts: what is new in one file of a tree, or of an archive, is told of that file,
// and all files together take the patch.
func TestFileCosts(t *testing.T) {
	noise := rand.NewChaCha8([32]byte{4})
	dir := t.TempDir()
	var tars [2]bytes.Buffer
	content := map[string][]byte{}
	for _, n := range []string{"a", "b", "c"} {
		content[n] = make([]byte, 50_000)
		noise.Read(content[n])
	}
	for i, side := range []string{"old", "new"} {
		if i == 1 {
			noise.Read(content["b"][10_000:40_000])
		}
		if err := os.Mkdir(filepath.Join(dir, side), 0o755); err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(&tars[i])
		for _, n := range []string{"a", "b", "c"} {
			if err := os.WriteFile(filepath.Join(dir, side, n), content[n], 0o644); err != nil {
				t.Fatal(err)
			}
			if err := w.WriteHeader(&tar.Header{Name: n, Size: int64(len(content[n])), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(content[n]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, side+".tar"), tars[i].Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, end := range []string{"", ".tar"} {
		old, out := filepath.Join(dir, "old"+end), filepath.Join(dir, "patch"+end)
		u := &ui{out: new(bytes.Buffer), err: new(bytes.Buffer)}
		if err := deltaCreate(t.Context(), u, old, filepath.Join(dir, "new"+end), out, false, patch.Options{}); err != nil {
			t.Fatal(err)
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
		files, err := fileCosts(t.Context(), p, info, old)
		if err != nil {
			t.Fatal(err)
		}
		var sum, size int64
		for _, f := range files {
			sum, size = sum+f.Bytes, size+f.Size
			if f.Name == "a" && f.Bytes > 200 || f.Name == "c" && f.Bytes > 200 {
				t.Errorf("%s: %+v", out, f)
			}
		}
		if b := files[0]; b.Name != "b" || b.Bytes < 29_900 || b.Bytes > 31_500 || b.Copies+b.Residual+b.Literals+b.Parses != b.Bytes {
			t.Errorf("%s: %+v", out, b)
		}
		if st, err := os.Stat(out); err != nil || st.Size() != sum || size != info.NewSize {
			t.Errorf("%s: files take %d bytes of %v and have %d of %d, %v", out, sum, st, size, info.NewSize, err)
		}
		if _, err := fileCosts(t.Context(), p, info, filepath.Join(dir, "new"+end)); err == nil {
			t.Errorf("%s: another base will do", out)
		}
	}
}

// TestFileNamesInJSON: names that are not UTF-8 can be told apart, and are exact.
func TestFileNamesInJSON(t *testing.T) {
	dir := t.TempDir()
	for i, side := range []string{"old", "new"} {
		if err := os.Mkdir(filepath.Join(dir, side), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"a\xff", "a\xfe", "größe"} {
			if err := os.WriteFile(filepath.Join(dir, side, n), bytes.Repeat([]byte{byte(i)}, 9), 0o644); err != nil {
				t.Skipf("no such names here: %v", err)
			}
		}
	}
	var out bytes.Buffer
	for _, args := range [][]string{{"create", filepath.Join(dir, "old"), filepath.Join(dir, "new"), filepath.Join(dir, "p")},
		{"info", filepath.Join(dir, "p"), "--files", filepath.Join(dir, "old"), "--json"}} {
		out.Reset()
		if code := run(t.Context(), append([]string{"delta"}, args...), strings.NewReader(""), &out, new(bytes.Buffer)); code != exitOK {
			t.Fatalf("%s: exit code %d", args[0], code)
		}
	}
	var got struct {
		Files []map[string]any `json:"files"`
	}
	decodeJSON(t, out.String(), &got)
	names := map[any]bool{}
	for _, f := range got.Files {
		if h, ok := f["name_hex"]; ok {
			names[h] = true
		} else {
			names[f["name"]] = true
		}
	}
	if !maps.Equal(names, map[any]bool{"61ff": true, "61fe": true, "größe": true, "(listing)": true, "(header)": true, "(recipe)": true, "(index)": true, "(shared)": true}) {
		t.Errorf("%v", names)
	}
}

// TestHolesOfArchives: a file that says it is nearly endless, all of it a hole, is not read to its end.
func TestHolesOfArchives(t *testing.T) {
	h := make([]byte, 512) // in the old sparse format of GNU: the size it has in the archive is 0
	copy(h, "hole\x1b[2J")
	for at, n := range map[int]int{100: 8, 108: 8, 116: 8, 124: 12, 136: 12} {
		copy(h[at:], fmt.Sprintf("%0*o\x00", n-1, 0))
	}
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	h[483] = 0x80 // in base 256
	binary.BigEndian.PutUint64(h[483+4:], 1<<62)
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	b := append(h, make([]byte, 1024)...)
	if hd, err := tar.NewReader(bytes.NewReader(b)).Next(); err != nil || hd.Size != 1<<62 {
		t.Fatalf("the archive is not what it should be: %+v, %v", hd, err)
	}
	if files := tarFiles(&countedReader{r: bytes.NewReader(b)}, int64(len(b))); len(files) != 0 {
		t.Errorf("files %+v", files)
	}
}

// TestFileNamesOnTerminals: a name from a patch does nothing to a terminal, nor to the table.
func TestFileNamesOnTerminals(t *testing.T) {
	var out bytes.Buffer
	printFileCosts(&out, []fileCost{{Name: "a\x1b[2J\nb\tc\u202e"}, {Name: "größe"}}, 0)
	if s := out.String(); strings.ContainsAny(s, "\x1b\t\u202e") || strings.Count(s, "\n") != 3 || !strings.Contains(s, "größe") {
		t.Errorf("%q", s)
	}
}

// TestCreateFromWhatIsWritten: no patch is made of a file or tree that changed after it was opened, also if
// only metadata tell, and of a tree of which they do not count.
func TestCreateFromWhatIsWritten(t *testing.T) {
	for _, c := range []struct {
		what       string
		tree, bare bool
		change     func(path string) error
		fails      bool
	}{
		{"nothing", true, true, func(string) error { return nil }, false},
		{"a file", false, false, func(path string) error { return os.WriteFile(path, []byte("newer"), 0o600) }, true},
		{"a file in a tree", true, false, func(path string) error { return os.WriteFile(path, []byte("newer"), 0o600) }, true},
		{"a file in a bare tree", true, true, func(path string) error { return os.WriteFile(path, []byte("newer"), 0o600) }, true},
		{"times in a bare tree", true, true, func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 0)) }, true},
		{"a file beside", true, false, func(path string) error { return os.WriteFile(path+"2", nil, 0o600) }, true},
	} {
		for _, side := range []string{"old", "new"} {
			dir := t.TempDir()
			for _, s := range []string{"old", "new"} {
				if err := errors.Join(os.Mkdir(filepath.Join(dir, s), 0o700), os.WriteFile(filepath.Join(dir, s, "f"), []byte(s), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			paths := []string{filepath.Join(dir, "old"), filepath.Join(dir, "new")}
			if !c.tree {
				paths = []string{filepath.Join(dir, "old", "f"), filepath.Join(dir, "new", "f")}
			}
			old, fresh, err := openPair(paths[0], paths[1], c.bare)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.change(filepath.Join(dir, side, "f")); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(dir, "patch")
			_, err = makePatch(t.Context(), &ui{out: new(bytes.Buffer), err: new(bytes.Buffer)}, old, fresh, out, c.bare, patch.Options{})
			if errors.Is(err, tree.ErrChanged) != c.fails || (err != nil) != c.fails {
				t.Errorf("%s of the %s side: %v", c.what, side, err)
			}
			if _, err := os.Stat(out); (err == nil) == c.fails {
				t.Errorf("%s of the %s side: the patch: %v", c.what, side, err)
			}
			if err := errors.Join(old.Close(), fresh.Close()); err != nil {
				t.Error(err)
			}
		}
	}
}
