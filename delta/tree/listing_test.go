package tree_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updraft/delta/tree"
)

// sample has every kind of entry and the orders that are easy to get wrong.
func sample() *tree.Listing {
	return &tree.Listing{Entries: []tree.Entry{
		{Path: "a", Kind: tree.Dir, Mode: 0o755, MTime: 1_700_000_000_123_456_789},
		{Path: "a-b", Kind: tree.File, Mode: 0o644, UID: 1000, GID: 100, MTime: 1_700_000_000_000_000_000, Size: 300},
		{Path: "a/c", Kind: tree.File, Mode: 0o4755, MTime: -5, Size: 0},
		{Path: "a/d\n\xff", Kind: tree.Symlink, MTime: 7, Target: "/etc/passwd"},
		{Path: "a/e", Kind: tree.Hardlink, Target: "a-b"},
	}}
}

func TestListingVector(t *testing.T) {
	path := filepath.Join("testdata", "sample.listing.hex")
	got := hex.EncodeToString(sample().Append(nil)) + "\n"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("listing differs from the published vector:\n%s%s", got, want)
	}
}

func TestListingRoundTrip(t *testing.T) {
	for _, l := range []*tree.Listing{{}, sample()} {
		b := l.Append(nil)
		back, err := tree.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(back.Append(nil), b) || len(back.Entries) != len(l.Entries) {
			t.Error("round trip differs")
		}
		for i := range l.Entries {
			if back.Entries[i] != l.Entries[i] {
				t.Errorf("entry %d: %+v", i, back.Entries[i])
			}
		}
	}
	if n := sample().ContentSize(); n != 300 {
		t.Errorf("ContentSize %d", n)
	}
}

func TestHostileListings(t *testing.T) {
	dir := func(p string) tree.Entry { return tree.Entry{Path: p, Kind: tree.Dir} }
	file := func(p string) tree.Entry { return tree.Entry{Path: p, Kind: tree.File} }
	link := func(p, to string) tree.Entry { return tree.Entry{Path: p, Kind: tree.Symlink, Target: to} }
	hard := func(p, to string) tree.Entry { return tree.Entry{Path: p, Kind: tree.Hardlink, Target: to} }
	for name, list := range map[string][]tree.Entry{
		"empty path":            {file("")},
		"dot":                   {dir(".")},
		"dot dot":               {dir("..")},
		"climbs":                {dir("a"), file("a/../../x")},
		"absolute":              {file("/etc/passwd")},
		"trailing slash":        {dir("a/")},
		"double slash":          {dir("a"), file("a//b")},
		"NUL":                   {file("a\x00b")},
		"long name":             {file(strings.Repeat("x", 256))},
		"long path":             {file(strings.Repeat("x/", 2100) + "y")},
		"no parent":             {file("a/b")},
		"parent is a file":      {file("a"), file("a/b")},
		"parent is a symlink":   {link("a", "/tmp"), file("a/b")},
		"parent is a hard link": {file("0"), hard("a", "0"), file("a/b")},
		"twice":                 {file("a"), file("a")},
		"file and directory":    {dir("a"), link("a", "b")},
		"out of order":          {file("b"), file("a")},
		"no target":             {link("a", "")},
		"target with NUL":       {link("a", "b\x00")},
		"long target":           {link("a", strings.Repeat("x", 4096))},
		"file with target":      {{Path: "a", Kind: tree.File, Target: "b"}},
		"link with mode":        {{Path: "a", Kind: tree.Symlink, Target: "b", Mode: 0o777}},
		"link with size":        {{Path: "a", Kind: tree.Symlink, Target: "b", Size: 1}},
		"hard link forward":     {hard("a", "b"), file("b")},
		"hard link to itself":   {hard("a", "a")},
		"hard link outside":     {hard("a", "../../etc/shadow")},
		"hard link to symlink":  {link("a", "/etc/shadow"), hard("b", "a")},
		"hard link to dir":      {dir("a"), hard("b", "a")},
		"hard link with owner":  {file("a"), {Path: "b", Kind: tree.Hardlink, Target: "a", UID: 1}},
		"mode":                  {{Path: "a", Kind: tree.File, Mode: 0o10000}},
		"kind":                  {{Path: "a", Kind: 4}},
		"negative size":         {{Path: "a", Kind: tree.File, Size: -1}},
		"too large":             {{Path: "a", Kind: tree.File, Size: tree.MaxContent}, {Path: "b", Kind: tree.File, Size: 1}},
	} {
		l := &tree.Listing{Entries: list}
		if err := l.Validate(); !errors.Is(err, tree.ErrListing) {
			t.Errorf("%s: Validate: %v", name, err)
		}
		switch name {
		case "kind", "negative size", "file with target", "hard link with owner", "link with size":
			continue // the format has no way to say it
		}
		if _, err := tree.Parse(l.Append(nil)); !errors.Is(err, tree.ErrListing) {
			t.Errorf("%s: Parse: %v", name, err)
		}
		if _, err := tree.NewWriter(filepath.Join(t.TempDir(), "x"), l); !errors.Is(err, tree.ErrListing) {
			t.Errorf("%s: NewWriter: %v", name, err)
		}
	}
}

// TestLongPathsAreBounded: what takes ten bytes of a listing does not take thousands of memory
// without an end.
func TestLongPathsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("paths of 128 MiB")
	}
	l := &tree.Listing{}
	for p := "a"; len(p) < 4000; p += "/" + strings.Repeat("a", 250) {
		l.Entries = append(l.Entries, tree.Entry{Path: p, Kind: tree.Dir})
	}
	deep := l.Entries[len(l.Entries)-1].Path
	for i := range 200 {
		l.Entries = append(l.Entries, tree.Entry{Path: fmt.Sprintf("%s/%05d", deep, i), Kind: tree.File})
	}
	if _, err := tree.Parse(l.Append(nil)); err != nil {
		t.Fatal(err)
	}
	for i := 200; i*len(deep) < tree.MaxPaths; i++ {
		l.Entries = append(l.Entries, tree.Entry{Path: fmt.Sprintf("%s/%05d", deep, i), Kind: tree.File})
	}
	b := l.Append(nil)
	l.Entries = nil
	if _, err := tree.Parse(b); !errors.Is(err, tree.ErrListing) {
		t.Errorf("a listing of %d bytes: %v", len(b), err)
	}
}

// TestLongListings: of a listing that nobody would read no stream is begun.
func TestLongListings(t *testing.T) {
	l := &tree.Listing{Entries: []tree.Entry{}}
	target := strings.Repeat("x", tree.MaxPath-1)
	for i := range tree.MaxListing / len(target) {
		l.Entries = append(l.Entries, tree.Entry{Path: fmt.Sprintf("%05d", i), Kind: tree.Symlink, Target: target})
	}
	for name, open := range map[string]func(dir string) error{
		"Open":      func(dir string) error { _, err := tree.Open(dir, l); return err },
		"NewWriter": func(dir string) error { _, err := tree.NewWriter(dir, l); return err },
	} {
		want := fmt.Sprintf("a listing of %d bytes, at most 64 MiB", len(l.Append(nil)))
		if err := open(tempDir(t)); !errors.Is(err, tree.ErrListing) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", name, err, want)
		}
	}
}

func TestMalformedBytes(t *testing.T) {
	good := sample().Append(nil)
	for i := range good {
		if _, err := tree.Parse(good[:i]); !errors.Is(err, tree.ErrListing) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	for name, b := range map[string][]byte{
		"trailing":        append(bytes.Clone(good), 0),
		"version":         append([]byte("UDTREE2\n"), good[8:]...),
		"long count":      append([]byte("UDTREE1\n\x80\x00"), good[9:]...),
		"huge count":      []byte("UDTREE1\n\xff\xff\x3f"),
		"long varint":     []byte("UDTREE1\n\x01\x00\x00\x01a\x80\x00\x00\x00"),
		"unshared prefix": []byte("UDTREE1\n\x02\x00\x00\x01a\x00\x00\x00\x00\x00\x02ab\x00\x00\x00"),
	} {
		if _, err := tree.Parse(b); !errors.Is(err, tree.ErrListing) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tree.Parse(make([]byte, tree.MaxListing+1)); !errors.Is(err, tree.ErrListing) {
		t.Errorf("too long: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample().Append(nil))
	f.Add((&tree.Listing{}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := tree.Parse(b)
		if err != nil {
			return
		}
		if err := l.Validate(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(l.Append(nil), b) {
			t.Fatal("a listing that parses must be written as it was read")
		}
	})
}
