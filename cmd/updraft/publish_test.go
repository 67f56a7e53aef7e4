package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"updraft/testnet/fixture"
)

// publisher is a fleet with two releases of three programs, and the third as files.
type publisher struct {
	t     *testing.T
	dir   string // the fleet
	paths []string
}

func newPublisher(t *testing.T) publisher {
	t.Helper()
	dir := t.TempDir()
	p := publisher{t, filepath.Join(dir, "fleet"), []string{filepath.Join(dir, "app"), filepath.Join(dir, "tool"), filepath.Join(dir, "other")}}
	p.run(exitOK, "init", p.dir)
	programs := []*fixture.Program{fixture.New(1, 200_000), fixture.New(2, 200_000), fixture.New(3, 200_000)}
	for i, version := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		for k, prog := range programs {
			if err := os.WriteFile(p.paths[k], prog.Bytes(), 0o755); err != nil {
				t.Fatal(err)
			}
			programs[k] = prog.Edit(uint64(i), version, 0.02)
		}
		if i < 2 {
			p.run(exitOK, append([]string{"publish", "--fleet", p.dir, "--version", version, "--deltas", "0"}, p.paths...)...)
		}
	}
	return p
}

func (p publisher) run(code int, args ...string) (stdout, stderr string) {
	p.t.Helper()
	var out, errs bytes.Buffer
	if got := run(p.t.Context(), args, strings.NewReader(""), &out, &errs); got != code {
		p.t.Fatalf("%s: exit code %d, want %d\n%s", args[0], got, code, errs.String())
	}
	return out.String(), errs.String()
}

// third is the command line that publishes the third release.
func (p publisher) third(flags ...string) []string {
	return append(append([]string{"publish", "--fleet", p.dir, "--version", "1.2.0"}, flags...), p.paths...)
}

var objectName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// objects lists packs, patches, indexes and maps below dir.
func (p publisher) objects(dir string) map[string]fs.FileInfo {
	p.t.Helper()
	list := map[string]fs.FileInfo{}
	for _, kind := range []string{"packs", "patches", "index", "maps"} {
		entries, err := os.ReadDir(filepath.Join(dir, kind))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.t.Fatal(err)
		}
		for _, e := range entries {
			if !objectName.MatchString(e.Name()) {
				continue
			}
			if info, err := e.Info(); err == nil {
				list[kind+"/"+e.Name()] = info
			}
		}
	}
	return list
}

func patches(objects map[string]fs.FileInfo) (n int) {
	for name := range objects {
		if strings.HasPrefix(name, "patches/") {
			n++
		}
	}
	return n
}

// interrupt publishes in a process of its own, calls meanwhile and sends it sig when so
// many patches are finished, and returns how it ended and what it said.
func (p publisher) interrupt(sig os.Signal, finished int, meanwhile func()) (*os.ProcessState, string) {
	p.t.Helper()
	cmd := exec.Command(os.Args[0], p.third("--jobs", "1")...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for patches(p.objects(p.staging())) < finished {
		select {
		case err := <-ended:
			p.t.Fatalf("ended before %d patches were finished: %v\n%s", finished, err, errs.String())
		case <-time.After(2 * time.Millisecond):
		}
	}
	meanwhile()
	if err := cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	<-ended
	return cmd.ProcessState, errs.String()
}

func (p publisher) staging() string { return filepath.Join(p.dir, "staging", "publish", "objects") }

// TestPublishResumes kills a publish, while another is refused, interrupts the next, and lets a third one end: what
// was finished is not made again, and the origin is the same as without.
func TestPublishResumes(t *testing.T) {
	if testing.Short() {
		t.Skip("publishes many times; delta.TestResume has what runs at once")
	}
	p, whole := newPublisher(t), newPublisher(t)
	published, _ := whole.run(exitOK, whole.third("--json")...)
	var w, got resumption
	decodeJSON(t, published, &w)
	if w.Chunks != 0 || w.Patches != 0 {
		t.Errorf("without interruption: %+v", w)
	}

	before := p.objects(filepath.Join(p.dir, "origin"))
	p.interrupt(syscall.SIGKILL, 1, func() {
		if _, said := p.run(exitError, p.third()...); !strings.Contains(said, "another process is at work") {
			t.Errorf("a second publish at the same time: %s", said)
		}
	})
	first := p.objects(p.staging())
	state, said := p.interrupt(os.Interrupt, patches(first)+1, func() {})
	if state.ExitCode() != exitInterrupted || !strings.Contains(said, "what to do: run the same command again") {
		t.Errorf("interrupted: %v, %s", state, said)
	}
	if n := strings.Count(said, "made by an interrupted run"); n != patches(first) {
		t.Errorf("%d of %d patches are said to be used again:\n%s", n, patches(first), said)
	}
	second := p.objects(p.staging())
	if n := len(p.objects(filepath.Join(p.dir, "origin"))); n != len(before) {
		t.Errorf("%d objects in the origin, %d before", n, len(before))
	}
	published, _ = p.run(exitOK, p.third("--json", "--jobs", "2")...)
	decodeJSON(t, published, &got)
	if got.Patches != patches(second) || got.Chunks == 0 {
		t.Errorf("used again: %+v, finished %d patches", got, patches(second))
	}
	origin, want := p.objects(filepath.Join(p.dir, "origin")), whole.objects(filepath.Join(whole.dir, "origin"))
	for _, finished := range []map[string]fs.FileInfo{first, second} {
		for name, was := range finished {
			if is := origin[name]; strings.HasPrefix(name, "pa") && (is == nil || !os.SameFile(was, is)) {
				t.Errorf("%s was made again", name)
			}
		}
	}
	if len(origin) != len(want) {
		t.Errorf("%d objects, %d without interruption", len(origin), len(want))
	}
	for name := range want {
		a, err := os.ReadFile(filepath.Join(p.dir, "origin", name))
		b, werr := os.ReadFile(filepath.Join(whole.dir, "origin", name))
		if err != nil || werr != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v, %v", name, err, werr)
		}
	}
	if _, err := os.Stat(filepath.Join(p.dir, "staging")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("staging is left: %v", err)
	}
	p.run(exitOK, "verify", p.dir)
}

// resumption is what a test reads of what publish prints.
type resumption struct {
	Chunks  int `json:"resumed_chunks"`
	Patches int `json:"resumed_patches"`
}

func decodeJSON(t *testing.T, s string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), v); err != nil {
		t.Fatal(err)
	}
}
