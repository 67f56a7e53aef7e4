package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"updraft/testnet/fixture"
)

// runMain in the environment makes the test binary the program: demo and testnet
// run themselves again for every device.
const runMain = "UPDRAFT_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	os.Setenv(runMain, "1")
	os.Exit(m.Run())
}

// TestScripts runs the files of testdata, which read as a session at a terminal:
//
//	updraft ARGS            must exit 0
//	fails CODE updraft ARGS must exit with CODE
//	until updraft ARGS      repeated until it exits 0
//	start updraft ARGS      in the background, until the next line
//	stop [CODE]             ends what start started; it must exit with CODE, or 0
//	stdout RE, stderr RE    of the last command must match; "not stdout RE" must not
//	exists PATH, not exists PATH, same PATH PATH
//	modes PATH PATH         have the same permissions
//	program FILE SEED       writes a made-up program; "program FILE SEED 2" its next release, and so on
//	tree DIR SEED, write FILE TEXT, mkdir DIR, copy FROM TO, link TO NAME, remove PATH
//	flip GLOB OFFSET        changes a byte of the one file that matches
//
// $WORK is the session's directory, in which relative paths of every line lie.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &session{t: t, work: t.TempDir()}
			defer s.stop()
			n := 0
			for line := range strings.Lines(string(b)) {
				n++
				line = strings.TrimSpace(line)
				if line == "" || line[0] == '#' {
					continue
				}
				s.where = fmt.Sprintf("%s:%d: %s", file, n, line)
				s.do(line)
			}
		})
	}
}

// session is a script at work.
type session struct {
	t        *testing.T
	work     string
	where    string
	out, err buffer
	code     int

	cancel context.CancelFunc // of what start started
	ended  chan int
}

// buffer is a bytes.Buffer that a background command may share.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

func (s *session) failf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s\n%s\nstdout: %s\nstderr: %s", s.where, fmt.Sprintf(format, args...), s.out.String(), s.err.String())
}

// path resolves a path of the script.
func (s *session) path(p string) string {
	p = strings.ReplaceAll(p, "$WORK", s.work)
	if !filepath.IsAbs(p) {
		p = filepath.Join(s.work, p)
	}
	return p
}

// args resolves the arguments of a command: those that begin with ./ are paths.
func (s *session) args(f []string) []string {
	out := make([]string, len(f))
	for i, a := range f {
		a = strings.ReplaceAll(a, "$WORK", s.work)
		if rest, ok := strings.CutPrefix(a, "./"); ok {
			a = filepath.Join(s.work, rest)
		}
		out[i] = a
	}
	return out
}

func (s *session) updraft(ctx context.Context, f []string) int {
	if len(f) == 0 || f[0] != "updraft" {
		s.failf("not a command of updraft")
	}
	s.out.reset()
	s.err.reset()
	return run(ctx, s.args(f[1:]), strings.NewReader(""), &s.out, &s.err)
}

func (s *session) do(line string) {
	f := strings.Fields(line)
	rest := strings.TrimSpace(strings.TrimPrefix(line, f[0]))
	want := true
	if f[0] == "not" {
		want = false
		f = f[1:]
		rest = strings.TrimSpace(strings.TrimPrefix(rest, f[0]))
	}
	switch f[0] {
	case "updraft":
		s.expect(s.updraft(s.t.Context(), f), 0)
	case "fails":
		code, err := strconv.Atoi(f[1])
		if err != nil {
			s.failf("%v", err)
		}
		s.expect(s.updraft(s.t.Context(), f[2:]), code)
	case "until":
		s.until(f[1:])
	case "start":
		s.start(f[1:])
	case "stop":
		code := 0
		if len(f) > 1 {
			code, _ = strconv.Atoi(f[1])
		}
		s.expect(s.stop(), code)
	case "stdout", "stderr":
		got := s.out.String()
		if f[0] == "stderr" {
			got = s.err.String()
		}
		re := strings.ReplaceAll(rest, "$WORK", regexp.QuoteMeta(s.work))
		if regexp.MustCompile("(?m)"+re).MatchString(got) != want {
			s.failf("%s matches: %v", f[0], !want)
		}
	case "exists":
		if _, err := os.Lstat(s.path(f[1])); (err == nil) != want {
			s.failf("exists: %v", err == nil)
		}
	default:
		s.files(f, rest)
	}
}

// files runs the lines that prepare and compare files.
func (s *session) files(f []string, rest string) {
	var err error
	switch f[0] {
	case "same":
		a, e1 := os.ReadFile(s.path(f[1]))
		b, e2 := os.ReadFile(s.path(f[2]))
		if e1 != nil || e2 != nil || !bytes.Equal(a, b) {
			s.failf("differ: %v %v", e1, e2)
		}
	case "modes":
		a, e1 := os.Stat(s.path(f[1]))
		b, e2 := os.Stat(s.path(f[2]))
		if e1 != nil || e2 != nil || a.Mode() != b.Mode() {
			s.failf("%v %v, %v %v", a, e1, b, e2)
		}
	case "program", "tree":
		seed, perr := strconv.ParseUint(f[2], 10, 64)
		if perr != nil {
			s.failf("%v", perr)
		}
		p := fixture.New(seed, 200_000)
		for k := uint64(1); len(f) > 3 && fmt.Sprint(k) != f[3]; k++ {
			p = p.Edit(seed+k-1, fmt.Sprintf("1.%d.0", k), 0.02)
		}
		if f[0] == "tree" {
			err = fixture.WriteTree(s.path(f[1]), p)
		} else {
			err = os.WriteFile(s.path(f[1]), p.Bytes(), 0o755)
		}
	case "write":
		text := strings.TrimSpace(strings.TrimPrefix(rest, f[1]))
		err = os.WriteFile(s.path(f[1]), []byte(strings.ReplaceAll(s.expand(text), `\n`, "\n")), 0o644)
	case "mkdir":
		err = os.MkdirAll(s.path(f[1]), 0o755)
	case "copy":
		if st, serr := os.Stat(s.path(f[1])); serr == nil && st.IsDir() {
			err = os.CopyFS(s.path(f[2]), os.DirFS(s.path(f[1])))
			break
		}
		var b []byte
		if b, err = os.ReadFile(s.path(f[1])); err == nil {
			err = os.WriteFile(s.path(f[2]), b, 0o600)
		}
	case "link":
		err = os.Symlink(f[1], s.path(f[2]))
	case "remove":
		err = os.RemoveAll(s.path(f[1]))
	case "flip":
		s.flip(f[1], f[2])
	default:
		s.failf("unknown line")
	}
	if err != nil {
		s.failf("%v", err)
	}
}

func (s *session) expand(text string) string { return strings.ReplaceAll(text, "$WORK", s.work) }

func (s *session) flip(glob, offset string) {
	names, err := filepath.Glob(s.path(glob))
	if err != nil || len(names) != 1 {
		s.failf("%d files match: %v", len(names), err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		s.failf("%v", err)
	}
	at, err := strconv.Atoi(offset)
	if err != nil || at >= len(b) {
		s.failf("offset %q of %d bytes", offset, len(b))
	}
	b[at] ^= 0x55
	if err := os.Chmod(names[0], 0o644); err != nil {
		s.failf("%v", err)
	}
	if err := os.WriteFile(names[0], b, 0o644); err != nil {
		s.failf("%v", err)
	}
}

func (s *session) expect(code, want int) {
	s.t.Helper()
	s.code = code
	if code != want {
		s.failf("exit code %d, want %d", code, want)
	}
}

func (s *session) until(f []string) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for s.updraft(ctx, f) != 0 {
		select {
		case <-ctx.Done():
			s.failf("never exited 0")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *session) start(f []string) {
	s.stop()
	ctx, cancel := context.WithCancel(s.t.Context())
	s.cancel, s.ended = cancel, make(chan int, 1)
	args := s.args(f[1:])
	var out buffer
	go func(ended chan<- int) {
		ended <- run(ctx, args, strings.NewReader(""), &out, &out)
		if s.t.Failed() {
			s.t.Logf("in the background: %s", out.String())
		}
	}(s.ended)
}

func (s *session) stop() int {
	if s.cancel == nil {
		return 0
	}
	s.cancel()
	s.cancel = nil
	return <-s.ended
}
