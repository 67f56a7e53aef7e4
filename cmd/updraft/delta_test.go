package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"updraft/delta/patch"
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
