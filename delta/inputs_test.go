package delta_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"updraft/delta"
	"updraft/delta/release"
	"updraft/delta/tree"
)

// TestInputChangesWhileBuilding: a release of a moving target is refused.
func TestInputChangesWhileBuilding(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	path := filepath.Join(t.TempDir(), "app")
	v1 := program(40, 300_000)
	m1, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, v1)}}, delta.BuildOptions{Version: "1"})
	for name, c := range map[string]struct {
		stage  delta.Stage
		change func()
	}{
		// Seen when the patch is made: its target is not what was cut into chunks.
		"edited": {delta.StageBase, func() {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte("later"), 1000)
			must(t, err)
		}},
		"cut":       {delta.StageBase, func() { must(t, os.Truncate(path, 10)) }},
		"cut early": {delta.StageChunks, func() { must(t, os.Truncate(path, 10)) }},
	} {
		writeFile(t, path, append(edit(v1, 4), make([]byte, 1<<20)...)) // more than is read at once
		done := false
		_, _, err := delta.Build(t.Context(), []delta.Input{{Path: path}}, delta.BuildOptions{Out: t.TempDir(),
			Origin: origin, Channel: "stable", Version: "2", Sequence: 2, Jobs: 1, Deltas: 1, Scratch: t.TempDir(),
			Previous: []*release.Manifest{m1}, Progress: func(p delta.Progress) {
				if p.Stage == c.stage && !done {
					done = true
					c.change()
				}
			}})
		if !done || err == nil {
			t.Errorf("%s: %v", name, err)
		}
		if !errors.Is(err, tree.ErrChanged) || name == "edited" && !errors.Is(err, delta.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestArtifactsShareChunks: what several artifacts have in common is stored once,
// and each is still whole.
func TestArtifactsShareChunks(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	b := program(41, 400_000)
	dir := t.TempDir()
	in := []delta.Input{
		{Path: writeFile(t, filepath.Join(dir, "one"), b)},
		{Path: writeFile(t, filepath.Join(dir, "two"), b)},
		{Path: writeFile(t, filepath.Join(dir, "zeros"), make([]byte, 2<<20))},
	}
	m, stats := publish(t, origin, in, delta.BuildOptions{Version: "1"})
	if s := stats.Artifacts; s[0].NewChunks != s[0].Chunks || s[1].NewChunks != 0 || s[2].NewChunks != 1 || s[2].Chunks != 8 {
		t.Errorf("new chunks: %+v", s)
	}
	if m.Artifacts[0].Map != m.Artifacts[1].Map || m.Artifacts[0].Index != m.Artifacts[1].Index {
		t.Error("equal artifacts have different tables")
	}
	for i, want := range [][]byte{b, b, make([]byte, 2<<20)} {
		if !bytes.Equal(contents(t, origin, m, i), want) {
			t.Errorf("artifact %d differs", i)
		}
	}
}

// TestProgressAddsUp: every stage ends with Done equal to Total and never goes back.
func TestProgressAddsUp(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	path := filepath.Join(t.TempDir(), "app")
	v1 := program(42, 1_200_000)
	m1, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, v1)}}, delta.BuildOptions{Version: "1"})
	last := map[delta.Stage]delta.Progress{}
	publish(t, origin, []delta.Input{{Path: writeFile(t, path, edit(v1, 3))}}, delta.BuildOptions{Version: "2",
		Previous: []*release.Manifest{m1}, Deltas: 1, Progress: func(p delta.Progress) {
			if p.Done < last[p.Stage].Done || p.Artifact != "app" || p.Done > p.Total {
				t.Errorf("%+v after %+v", p, last[p.Stage])
			}
			last[p.Stage] = p
		}})
	for _, stage := range []delta.Stage{delta.StageChunks, delta.StageBase, delta.StagePatch} {
		if p := last[stage]; p.Done != p.Total || p.Total == 0 || (stage != delta.StageChunks) != (p.Base == "1") {
			t.Errorf("%s ends with %+v", stage, p)
		}
	}
}

// TestChangedWhileRead: what is written while it is published makes no release, and one of what it is then can be made.
func TestChangedWhileRead(t *testing.T) {
	for what, change := range map[string]func(path string) error{
		"in place": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte("new"), 0)
			return err
		},
		"longer": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteString("more")
			return err
		},
		"replaced": func(path string) error {
			writeFile(t, path+".new", program(2, 2<<20))
			return os.Rename(path+".new", path)
		},
		"removed": os.Remove,
		"beside":  func(path string) error { return os.WriteFile(path+"2", nil, 0o644) },
	} {
		for _, tr := range []bool{false, true} {
			if what == "beside" && !tr || what != "in place" && testing.Short() {
				continue
			}
			t.Run(fmt.Sprint(what, " in a tree ", tr), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "app")
				must(t, os.Mkdir(dir, 0o755))
				path := writeFile(t, filepath.Join(dir, "a"), program(1, 2<<20))
				must(t, os.Chtimes(path, time.Time{}, time.Unix(1_700_000_000, 0))) // a clock tick may be longer than the test
				in := []delta.Input{{Path: path}}
				if tr {
					in[0].Path = dir
				}
				o := delta.BuildOptions{Out: t.TempDir(), Channel: "stable", Version: "1", Sequence: 1, Scratch: t.TempDir()}
				changed := false
				o.Progress = func(p delta.Progress) {
					if !changed && p.Done > 0 {
						changed = true
						must(t, change(path))
					}
				}
				_, _, err := delta.Build(t.Context(), in, o)
				if !errors.Is(err, tree.ErrChanged) || !errors.Is(err, delta.ErrInput) || !strings.Contains(err.Error(), "a") {
					t.Errorf("got %v", err)
				}
				if what == "removed" {
					return
				}
				o.Progress = nil
				if _, _, err := delta.Build(t.Context(), in, o); err != nil {
					t.Errorf("again: %v", err)
				}
			})
		}
	}
}

// TestOddInputs: links, special files and unreadable places.
func TestOddInputs(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	dir := t.TempDir()
	file := writeFile(t, filepath.Join(dir, "app-1.2"), []byte("hello"))
	must(t, syscall.Chmod(file, 0o4755))
	link := filepath.Join(dir, "app")
	must(t, os.Symlink(file, link))
	m, _ := publish(t, origin, []delta.Input{{Path: link}}, delta.BuildOptions{Version: "1"})
	if a := m.Artifacts[0]; a.Name != "app" || a.Mode != 0o4755 || string(contents(t, origin, m, 0)) != "hello" {
		t.Errorf("through a link: %+v", a)
	}
	must(t, os.Mkdir(filepath.Join(dir, "tree"), 0o755))
	must(t, syscall.Mkfifo(filepath.Join(dir, "tree", "pipe"), 0o644))
	o := delta.BuildOptions{Out: filepath.Join(dir, "out"), Channel: "stable", Version: "1", Sequence: 1}
	if _, _, err := delta.Build(t.Context(), []delta.Input{{Path: filepath.Join(dir, "tree")}}, o); !errors.Is(err, delta.ErrInput) {
		t.Errorf("pipe: %v", err)
	}
	o.Scratch = filepath.Join(dir, "none")
	if _, _, err := delta.Build(t.Context(), []delta.Input{{Path: file}}, o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no scratch directory: %v", err)
	}
	o.Scratch, o.Out = "", filepath.Join(file, "out")
	if _, _, err := delta.Build(t.Context(), []delta.Input{{Path: file}}, o); err == nil {
		t.Error("staging below a file")
	}
}
