package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"updraft/delta"
	"updraft/delta/patch"
	"updraft/delta/release"
	"updraft/delta/tree"
	"updraft/node/report"
)

func TestParseRate(t *testing.T) {
	for in, want := range map[string]int64{
		"20mbit": 2_500_000, "20Mbit/s": 2_500_000, "1gbit": 125_000_000, "800kbit": 100_000, "0": 0, "2500000": 2_500_000,
		"2.5MB": 2_500_000, "10 kB": 10_000, "16bit": 2,
	} {
		if got, err := parseRate(in); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "fast", "-1", "-5mbit", "1e30gbit", "nan"} {
		if got, err := parseRate(in); err == nil {
			t.Errorf("%q is taken for %d", in, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "1000": 1000, "256MiB": 256 << 20, "1.5 GB": 1.5e9, "8kib": 8 << 10, " 2GiB ": 2 << 30} {
		var f sizeFlag
		if err := f.Set(in); err != nil || int64(f) != want {
			t.Errorf("%q is %d: %v", in, f, err)
		}
	}
	for _, in := range []string{"", "x", "-1", "1mbit", "NaN", "inf", "1e30", "MiB"} {
		if n, err := parseSize(in); err == nil {
			t.Errorf("%q is %d", in, n)
		}
	}
}

func TestClassify(t *testing.T) {
	ctx := context.Background()
	gone, cancel := context.WithCancel(ctx)
	cancel()
	for _, c := range []struct {
		name  string
		ended bool
		err   error
		code  int
	}{
		{"none", false, nil, exitOK},
		{"any", false, errors.New("x"), exitError},
		{"usage", false, usagef("x"), exitUsage},
		{"agent", false, fmt.Errorf("a: %w", report.ErrNotRunning), exitUnreachable},
		{"patch", false, fmt.Errorf("a: %w", patch.ErrBase), exitVerify},
		{"interrupted", true, fmt.Errorf("a: %w", context.Canceled), exitInterrupted},
		{"canceled by itself", false, context.Canceled, exitError},
		{"input", false, fmt.Errorf("%w: %w", delta.ErrInput, release.ErrManifest), exitUsage},
		{"input that changed", false, fmt.Errorf("%w: %w", delta.ErrInput, tree.ErrChanged), exitVerify},
		{"input that is gone", false, fmt.Errorf("%w: %w", delta.ErrInput, &fs.PathError{Err: syscall.ENOENT}), exitNotFound},
		{"input that may not be read", false, fmt.Errorf("%w: %w", delta.ErrInput, &fs.PathError{Err: syscall.EACCES}), exitError},
		{"tree that cannot be listed", false, treeError(fmt.Errorf("%w: a", tree.ErrListing)), exitUsage},
		{"hint", false, hinted{fmt.Errorf("a: %w", patch.ErrCorrupt), "do this"}, exitVerify},
	} {
		use := ctx
		if c.ended {
			use = gone
		}
		if code, hint := classify(use, c.err); code != c.code || c.name == "hint" && hint != "do this" {
			t.Errorf("%s: %d %q, want %d", c.name, code, hint, c.code)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 9999: "9999 B", 10_000: "10.0 kB", 12_345_678: "12.3 MB", 20_000_000_000: "20.0 GB", -5: "-5 B"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// TestMeter checks that bars are drawn on a terminal only, and nothing where one
// JSON value is wanted.
func TestMeter(t *testing.T) {
	for _, c := range []struct {
		name      string
		tty, json bool
		escapes   bool
	}{{"terminal", true, false, true}, {"pipe", false, false, false}, {"json", true, true, false}} {
		var errs buffer
		u := &ui{out: &bytes.Buffer{}, err: &errs, tty: c.tty, json: c.json}
		m := u.meter("app")
		for i := range int64(11) {
			m.set(i*100, 1000, "")
		}
		m.end("done")
		m.set(1, 2, "late")
		m.end("twice")
		unfinished := u.meter("other")
		unfinished.set(1, 10, "")
		unfinished.end("")
		u.finish()
		u.note("words")
		if got := strings.Contains(errs.String(), "\x1b"); got != c.escapes {
			t.Errorf("%s: control codes %v: %q", c.name, got, errs.String())
		}
		if got := strings.Contains(errs.String(), "words"); got == c.json {
			t.Errorf("%s: remarks %v", c.name, got)
		}
	}
}

// TestFileThatShrinks: what is read of a file that has become shorter names it.
func TestFileThatShrinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app-1.0")
	if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := openStream(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // read only
	if err := os.Truncate(path, 40); err != nil {
		t.Fatal(err)
	}
	if n, err := s.ReadAt(make([]byte, 10), 90); n != 0 || !errors.Is(err, tree.ErrChanged) || !strings.Contains(err.Error(), path) {
		t.Errorf("%d bytes behind the end: %v", n, err)
	}
	if n, err := s.ReadAt(make([]byte, 200), 20); n != 20 || !errors.Is(err, tree.ErrChanged) {
		t.Errorf("%d bytes from 20 on: %v", n, err)
	}
	if n, err := s.ReadAt(make([]byte, 40), 0); n != 40 || err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes that are there: %v", n, err)
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestResultThatCannotBeWritten fails, as text and as JSON; a token that nobody could read is none.
func TestResultThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	do := func(out io.Writer, args ...string) int {
		return run(t.Context(), args, strings.NewReader(""), out, io.Discard)
	}
	if code := do(io.Discard, "init", dir); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, more := range [][]string{nil, {"--json"}} {
		if code := do(fullDisk{}, append([]string{"token", "create", "--fleet", dir, "--uses", "1", "--expires", "1h"}, more...)...); code != exitError {
			t.Errorf("exit code %d", code)
		}
		var list bytes.Buffer
		if code := do(&list, "token", "list", "--fleet", dir, "--json"); code != 0 || !strings.Contains(list.String(), `"tokens": []`) {
			t.Errorf("exit code %d, tokens %s", code, &list)
		}
	}
}
