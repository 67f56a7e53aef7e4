package delta_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"updraft/delta"
	"updraft/delta/patch"
	"updraft/delta/release"
)

// work is a release of two artifacts from three earlier ones, to be interrupted. Of its
// six patches those of the second artifact, which is noise, are dropped.
type work struct {
	in []delta.Input
	o  delta.BuildOptions
	// write writes the inputs of release i, from 0.
	write func(i int)
}

func newWork(t *testing.T) work {
	t.Helper()
	origin := filepath.Join(t.TempDir(), "origin")
	dir := t.TempDir()
	noise := make([]byte, 150_000)
	var list []*release.Manifest
	w := work{in: []delta.Input{{Path: filepath.Join(dir, "app")}, {Path: filepath.Join(dir, "noise")}}}
	w.write = func(i int) {
		writeFile(t, w.in[0].Path, edit(program(50, 200_000), i+12))
		rand.NewChaCha8([32]byte{50, byte(i)}).Read(noise)
		writeFile(t, w.in[1].Path, noise)
	}
	for i, v := range []string{"1", "2", "3"} {
		w.write(i)
		m, _ := publish(t, origin, w.in, delta.BuildOptions{Version: v})
		list = append([]*release.Manifest{m}, list...)
	}
	w.write(3)
	w.o = delta.BuildOptions{Out: filepath.Join(t.TempDir(), "out"), Origin: origin, Channel: "stable", Version: "4", Sequence: 4,
		Previous: list, Deltas: 3, Jobs: 1, Patch: plain, Maker: "this program", Scratch: t.TempDir()}
	return w
}

// build runs Build until stop says so, or to its end.
func (w work) build(t *testing.T, stop func(p delta.Progress) bool) (*release.Manifest, delta.BuildStats, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.o.Progress = func(p delta.Progress) {
		if stop != nil && stop(p) {
			cancel()
		}
	}
	return delta.Build(ctx, w.in, w.o)
}

// interrupt runs Build until n patches have been made.
func (w work) interrupt(t *testing.T, n int) {
	t.Helper()
	_, _, err := w.build(t, func(p delta.Progress) bool {
		if p.Patch != nil {
			n--
		}
		return p.Patch != nil && n == 0
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// copied is w with a copy of its staging directory.
func (w work) copied(t *testing.T) work {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	must(t, os.CopyFS(out, os.DirFS(w.o.Out)))
	w.o.Out = out
	return w
}

// result is what a release consists of: its manifest, and the objects of it.
type result struct {
	manifest []byte
	objects  map[string]string
}

func (w work) result(t *testing.T, m *release.Manifest) result {
	t.Helper()
	b, err := m.Encode()
	must(t, err)
	r := result{b, map[string]string{}}
	for _, dir := range []string{delta.PackDir, delta.PatchDir, delta.IndexDir, delta.MapDir} {
		entries, err := os.ReadDir(filepath.Join(w.o.Out, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(w.o.Out, dir, e.Name()))
			must(t, err)
			r.objects[dir+"/"+e.Name()] = string(b)
		}
	}
	return r
}

// uninterrupted is the result without any interruption, or use of one.
func (w work) uninterrupted(t *testing.T) result {
	t.Helper()
	w.o.Out, w.o.Maker = filepath.Join(t.TempDir(), "out"), ""
	m, stats, err := w.build(t, nil)
	must(t, err)
	if c, p := resumed(stats); c+p != 0 {
		t.Errorf("%d chunks and %d patches of no interrupted Build", c, p)
	}
	return w.result(t, m)
}

func (r result) same(t *testing.T, want result) {
	t.Helper()
	if !bytes.Equal(r.manifest, want.manifest) {
		t.Error("another manifest than without interruption")
	}
	for name, b := range want.objects {
		if r.objects[name] != b {
			t.Errorf("%s differs", name)
		}
	}
	for name := range r.objects {
		if _, ok := want.objects[name]; !ok {
			t.Errorf("%s is of no use", name)
		}
	}
}

func resumed(s delta.BuildStats) (chunks, patches int) {
	for _, a := range s.Artifacts {
		chunks += a.Resumed
		for _, p := range a.Patches {
			if p.Resumed {
				patches++
			}
		}
	}
	return chunks, patches
}

func newChunks(s delta.BuildStats) (n int) {
	for _, a := range s.Artifacts {
		n += a.NewChunks
	}
	return n
}

// object returns the path of the one object of a kind.
func (w work) object(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(w.o.Out, pattern))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names[0]
}

// TestResume interrupts a Build after its patches, and once more later, and repeats one
// that came to its end: what was finished is taken as it is, and the release is the same
// to the byte, whatever the jobs.
func TestResume(t *testing.T) {
	w := newWork(t)
	want := w.uninterrupted(t)
	after := []int{1, 3, 5, 6}
	if testing.Short() {
		after = []int{3, 6}
	}
	for _, n := range after {
		w.o.Out, w.o.Jobs = filepath.Join(t.TempDir(), "out"), 1
		if n < 6 {
			w.interrupt(t, n)
		} else if _, _, err := w.build(t, nil); err != nil {
			t.Fatal(err)
		}
		before := map[string]os.FileInfo{}
		must(t, filepath.WalkDir(w.o.Out, func(name string, d fs.DirEntry, err error) error {
			must(t, err)
			before[name], err = d.Info()
			return err
		}))
		w.o.Jobs = 3
		if n < 5 {
			w.interrupt(t, n+1)
		}
		m, stats, err := w.build(t, nil)
		must(t, err)
		if c, p := resumed(stats); c != newChunks(stats) || c == 0 || p != n+min(1, max(0, 5-n)) {
			t.Errorf("after %d patches: %d patches and %d of %d chunks are used again", n, p, c, newChunks(stats))
		}
		// The very files: nobody has made them anew.
		kept := 0
		for name, was := range before {
			rel, _ := filepath.Rel(w.o.Out, name)
			if is, err := os.Stat(name); strings.HasPrefix(rel, "pa") && !was.IsDir() {
				if err != nil || !os.SameFile(was, is) || strings.HasPrefix(rel, delta.PatchDir) && !is.ModTime().Equal(was.ModTime()) {
					t.Errorf("after %d patches: %s was written again: %v", n, rel, err)
				}
				kept++
			}
		}
		if kept != 1+min(n, 3) {
			t.Errorf("after %d patches: a pack and patches, %d together", n, kept)
		}
		w.result(t, m).same(t, want)
	}
}

// TestResumeOfChunks interrupts a Build while it compresses.
func TestResumeOfChunks(t *testing.T) {
	w := newWork(t)
	writeFile(t, w.in[1].Path, append(must1(os.ReadFile(w.in[1].Path)), make([]byte, 2<<20)...)) // reports more often
	want := w.uninterrupted(t)
	_, _, err := w.build(t, func(p delta.Progress) bool { return p.Artifact == "noise" && p.Done > 1<<20 })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	m, stats, err := w.build(t, nil)
	must(t, err)
	if c, _ := resumed(stats); c == 0 || c > newChunks(stats) {
		t.Errorf("%d of %d chunks", c, newChunks(stats))
	}
	w.result(t, m).same(t, want)
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestResumeFindsDamage: what is not whole any more is made again, and only that.
func TestResumeFindsDamage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds many times; what runs at once does so in TestResume too")
	}
	interrupted := newWork(t)
	want := interrupted.uninterrupted(t)
	interrupted.interrupt(t, 1)
	flip := func(at func(size int64) int64) func(name string) {
		return func(name string) {
			b := must1(os.ReadFile(name))
			b[at(int64(len(b)))] ^= 1
			must(t, os.WriteFile(name, b, 0o644))
		}
	}
	half := func(n int64) int64 { return n / 2 }
	link := func(name string) {
		elsewhere := filepath.Join(t.TempDir(), "moved")
		must(t, os.Rename(name, elsewhere))
		must(t, os.Symlink(elsewhere, name))
	}
	folder := func(name string) {
		must(t, os.Remove(name))
		must(t, os.MkdirAll(filepath.Join(name, "x"), 0o755))
	}
	for name, c := range map[string]struct {
		file    string
		damage  func(name string)
		patches int
		chunks  func(n, all int) bool
	}{
		"patch altered":          {"patches/*", flip(half), 0, all},
		"patch cut":              {"patches/*", func(n string) { must(t, os.Truncate(n, 900)) }, 0, all},
		"patch gone":             {"patches/*", func(n string) { must(t, os.Remove(n)) }, 0, all},
		"patch longer":           {"patches/*", func(n string) { must(t, os.WriteFile(n, append(must1(os.ReadFile(n)), 0), 0o644)) }, 0, all},
		"note altered":           {"made/?????*[0-9a-f][0-9a-f]", flip(func(int64) int64 { return 66 }), 0, all},
		"note cut":               {"made/?????*[0-9a-f][0-9a-f]", func(n string) { must(t, os.Truncate(n, 60)) }, 0, all},
		"pack altered":           {"packs/*", flip(half), 1, some},
		"pack cut":               {"packs/*", func(n string) { must(t, os.Truncate(n, 100_000)) }, 1, some},
		"pack gone":              {"packs/*", func(n string) { must(t, os.Remove(n)) }, 1, none},
		"table altered":          {"made/chunks", flip(half), 1, some},
		"table cut":              {"made/chunks", func(n string) { must(t, os.Truncate(n, 32+68+30)) }, 1, some},
		"table of another maker": {"made/chunks", flip(func(int64) int64 { return 0 }), 1, none},
		"table gone":             {"made/chunks", func(n string) { must(t, os.Remove(n)) }, 1, none},
		"patch is a link":        {"patches/*", link, 0, all},
		"note is a directory":    {"made/?????*[0-9a-f][0-9a-f]", folder, 0, all},
		"pack is a link":         {"packs/*", link, 1, none},
		"pack is a directory":    {"packs/*", folder, 1, none},
		"table is a directory":   {"made/chunks", folder, 1, none},
		"table is a link":        {"made/chunks", link, 1, none},
	} {
		w := interrupted.copied(t)
		c.damage(w.object(t, c.file))
		m, stats, err := w.build(t, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n, p := resumed(stats); p != c.patches || !c.chunks(n, newChunks(stats)) {
			t.Errorf("%s: %d patches and %d of %d chunks are used again", name, p, n, newChunks(stats))
		}
		w.result(t, m).same(t, want)
	}
}

// TestSameTwice: a patch that serves two artifacts is made once, which is no interruption.
func TestSameTwice(t *testing.T) {
	w := newWork(t)
	w.in[1].Path = filepath.Join(t.TempDir(), "noise")
	writeFile(t, w.in[1].Path, must1(os.ReadFile(w.in[0].Path)))
	first, _ := publish(t, w.o.Origin, w.in, delta.BuildOptions{Version: "3.1", Sequence: 4, Previous: w.o.Previous})
	w.write(4)
	writeFile(t, w.in[1].Path, must1(os.ReadFile(w.in[0].Path)))
	w.o.Previous, w.o.Sequence = append([]*release.Manifest{first}, w.o.Previous...), 5
	want := w.uninterrupted(t)
	m, stats, err := w.build(t, nil)
	must(t, err)
	if c, p := resumed(stats); c+p != 0 || len(stats.Artifacts[1].Patches) == 0 {
		t.Errorf("%d chunks and %d patches of no interrupted Build, %d patches of the second", c, p, len(stats.Artifacts[1].Patches))
	}
	w.result(t, m).same(t, want)
}

func all(n, all int) bool  { return n == all }
func some(n, all int) bool { return n > 0 && n < all }
func none(n, _ int) bool   { return n == 0 }

// TestResumeIsOfTheSame: other contents, options and makers take nothing that they would
// not make themselves, and leave nothing of it.
func TestResumeIsOfTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("builds many times; what runs at once does so in TestResume too")
	}
	interrupted := newWork(t)
	interrupted.interrupt(t, 4)
	for name, c := range map[string]struct {
		change  func(t *testing.T, w *work)
		patches int
		chunks  func(n, all int) bool
	}{
		"maker":    {func(_ *testing.T, w *work) { w.o.Maker = "that program" }, 0, none},
		"segments": {func(_ *testing.T, w *work) { w.o.Patch = patch.Options{Profile: patch.Plain, SegmentSize: 64 << 10} }, 0, all},
		"memory":   {func(_ *testing.T, w *work) { w.o.Patch = patch.Options{Profile: patch.Plain, Memory: 16 << 20} }, 0, all},
		"profile":  {func(_ *testing.T, w *work) { w.o.Patch = patch.Options{} }, 0, all},
		"contents": {func(t *testing.T, w *work) {
			writeFile(t, w.in[0].Path, edit(must1(os.ReadFile(w.in[0].Path)), 2000))
		}, 1, func(n, all int) bool { return n < all }},
		"one of two contents": {func(t *testing.T, w *work) { writeFile(t, w.in[1].Path, program(51, 90_000)) }, 3, some},
		"fewer chunks":        {func(_ *testing.T, w *work) { w.in = w.in[:1] }, 3, all},
		"one base":            {func(_ *testing.T, w *work) { w.o.Previous = w.o.Previous[1:2] }, 1, func(int, int) bool { return true }},
		"version":             {func(_ *testing.T, w *work) { w.o.Version, w.o.Sequence = "5", 9 }, 4, all},
	} {
		w := interrupted.copied(t)
		w.write(3)
		c.change(t, &w)
		want := w.uninterrupted(t)
		m, stats, err := w.build(t, nil)
		must(t, err)
		if n, p := resumed(stats); p != c.patches || !c.chunks(n, newChunks(stats)) {
			t.Errorf("other %s: %d patches and %d of %d chunks are used again", name, p, n, newChunks(stats))
		}
		w.result(t, m).same(t, want)
		notes := must1(os.ReadDir(filepath.Join(w.o.Out, "made")))
		patches := 0
		for _, a := range stats.Artifacts {
			patches += len(a.Patches)
		}
		if len(notes) != 1+patches {
			t.Errorf("other %s: %d notes for %d patches", name, len(notes), patches)
		}
	}
}

// TestResumeNeedsAStage: what is in the staging directory is removed, which must not be an
// origin.
func TestResumeNeedsAStage(t *testing.T) {
	w := newWork(t)
	w.o.Out = w.o.Origin
	if _, _, err := w.build(t, nil); !errors.Is(err, delta.ErrInput) {
		t.Error(err)
	}
	if files := must1(os.ReadDir(filepath.Join(w.o.Origin, delta.PackDir))); !slices.ContainsFunc(files, func(e os.DirEntry) bool { return len(e.Name()) == 64 }) {
		t.Error("the packs of the origin are gone")
	}
}
