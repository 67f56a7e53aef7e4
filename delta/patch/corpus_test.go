package patch_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"updraft/delta/patch"
)

// TestCorpus measures real pairs: directories below UPDRAFT_CORPUS with files old
// and new. It prints a table; it checks that every pair round-trips.
func TestCorpus(t *testing.T) {
	dir := os.Getenv("UPDRAFT_CORPUS")
	if dir == "" {
		t.Skip("set UPDRAFT_CORPUS to a directory of pairs (CASE/old, CASE/new) to measure them")
	}
	cases, err := filepath.Glob(filepath.Join(dir, "*", "old"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		name := filepath.Base(filepath.Dir(c))
		if fi, err := os.Stat(c); err != nil || !fi.Mode().IsRegular() {
			continue
		}
		old, err := os.ReadFile(c)
		if err != nil {
			t.Fatal(err)
		}
		new, err := os.ReadFile(filepath.Join(filepath.Dir(c), "new"))
		if err != nil {
			t.Fatal(err)
		}
		var p bytes.Buffer
		t0 := time.Now()
		st, err := patch.Create(context.Background(), bytes.NewReader(old), bytes.NewReader(new), &p, patch.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t1 := time.Now()
		var out bytes.Buffer
		out.Grow(len(new))
		if _, err := patch.Decode(context.Background(), bytes.NewReader(p.Bytes()), bytes.NewReader(old), &out, patch.DecodeOptions{}); err != nil {
			t.Fatal(name, err)
		}
		if !bytes.Equal(out.Bytes(), new) {
			t.Fatal(name, "output differs")
		}
		t.Logf("%-24s new %10d patch %9d covers %7d segments %4d create %6.1fs decode %5.2fs", name, len(new), p.Len(), st.Covers, len(st.Segments), t1.Sub(t0).Seconds(), time.Since(t1).Seconds())
	}
}
