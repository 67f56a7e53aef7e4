package delta_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/delta"
	"updraft/delta/patch"
	"updraft/delta/release"
	"updraft/delta/tree"
)

// plant makes a directory of files, with times that do not depend on the clock.
func plant(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "app")
	for name, b := range files {
		writeFile(t, filepath.Join(dir, name), b)
	}
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		must(t, err)
		return os.Chtimes(path, time.Time{}, time.Unix(1_700_000_000, 0))
	}))
	return dir
}

// publish builds a release and copies its objects to origin.
func publish(t testing.TB, origin string, in []delta.Input, o delta.BuildOptions) (*release.Manifest, delta.BuildStats) {
	t.Helper()
	o.Out, o.Origin, o.Channel = filepath.Join(t.TempDir(), "out"), origin, "stable"
	o.Sequence, o.Jobs = max(o.Sequence, 1), max(o.Jobs, 1)
	if o.Scratch == "" {
		o.Scratch = t.TempDir()
	}
	m, stats, err := delta.Build(t.Context(), in, o)
	must(t, err)
	must(t, os.MkdirAll(origin, 0o755))
	must(t, filepath.WalkDir(o.Out, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		rel, _ := filepath.Rel(o.Out, path)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(origin, rel), 0o755)
		}
		if len(filepath.Base(rel)) != 64 {
			t.Errorf("left in the staging directory: %s", rel)
		}
		b, err := os.ReadFile(path)
		must(t, err)
		return os.WriteFile(filepath.Join(origin, rel), b, 0o644)
	}))
	if left, _ := os.ReadDir(o.Scratch); len(left) != 0 {
		t.Errorf("left in the scratch directory: %v", left)
	}
	return m, stats
}

func contents(t testing.TB, origin string, m *release.Manifest, i int) []byte {
	t.Helper()
	s, err := delta.OpenArtifact(origin, m, &m.Artifacts[i])
	must(t, err)
	defer s.Close()
	must(t, delta.CheckStream(io.NewSectionReader(s, 0, s.Size()), &m.Artifacts[i]))
	b, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	must(t, err)
	return b
}

func TestBuildAndReadBack(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	app := program(1, 900_000)
	file := writeFile(t, filepath.Join(t.TempDir(), "app.bin"), app)
	must(t, os.Chmod(file, 0o755))
	dir := plant(t, map[string][]byte{"bin/app": app, "etc/conf": []byte("x=1\n"), "empty": nil})
	empty := writeFile(t, filepath.Join(t.TempDir(), "none"), nil)
	m, stats := publish(t, origin, []delta.Input{{Path: file}, {Path: dir, Name: "tree"}, {Path: empty}},
		delta.BuildOptions{Version: "1.0.0", Sequence: 7, Created: 1_700_000_000, Types: []string{"rpi4"}})
	if m.Version != "1.0.0" || m.Channel != "stable" || m.Sequence != 7 || len(m.Artifacts) != 3 || len(m.Packs) != 1 {
		t.Fatalf("manifest %+v", m)
	}
	a := m.Artifacts
	if a[0].Name != "app.bin" || a[0].Kind != "file" || a[0].Mode != 0o755 || a[0].ListingSize != 0 {
		t.Errorf("file: %+v", a[0])
	}
	if a[1].Name != "tree" || a[1].Kind != "tree" || a[1].ListingSize == 0 {
		t.Errorf("tree: %+v", a[1])
	}
	if a[2].Size != 0 || len(a[2].Pages) != 0 || len(contents(t, origin, m, 2)) != 0 {
		t.Errorf("empty: %+v", a[2])
	}
	if !bytes.Equal(contents(t, origin, m, 0), app) {
		t.Error("file differs")
	}
	// The tree holds the same program: its chunks but the first few are shared.
	if s := stats.Artifacts[1]; s.NewChunks*2 > s.Chunks {
		t.Errorf("%d of %d chunks of the tree are stored again", s.NewChunks, s.Chunks)
	}
	stream := contents(t, origin, m, 1)
	l, err := tree.Parse(stream[:a[1].ListingSize])
	must(t, err)
	dst := t.TempDir()
	w, err := tree.NewWriter(dst, l)
	must(t, err)
	_, err = w.WriteAt(stream, 0)
	must(t, err)
	must(t, w.Finish())
	must(t, w.Close())
	if b, err := os.ReadFile(filepath.Join(dst, "bin", "app")); err != nil || !bytes.Equal(b, app) {
		t.Errorf("restored tree: %v", err)
	}
	if stats.PackSize != m.Packs[0].Size || stats.PackSize >= int64(len(app)) {
		t.Errorf("pack of %d bytes for %d", stats.PackSize, len(app))
	}
}

// TestGoldenRelease pins the bytes of everything Build writes but patches.
func TestGoldenRelease(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "app.bin"), program(2, 700_000))
	var b strings.Builder
	for jobs := range 3 {
		origin := filepath.Join(t.TempDir(), "origin")
		m, _ := publish(t, origin, []delta.Input{{Path: file}}, delta.BuildOptions{Version: "1", Jobs: jobs + 1})
		b.Reset()
		a := m.Artifacts[0]
		fmt.Fprintf(&b, "sum %x\nindex %x\nmap %x %d\npack %x %d\npages %d last %d\n",
			a.Sum, a.Index, a.Map, a.MapSize, m.Packs[0].Sum, m.Packs[0].Size, len(a.Pages), a.LastPage)
		golden(t, "release.txt", []byte(b.String()))
	}
}

func TestSecondReleaseStoresWhatIsNew(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	v1 := program(3, 1<<20)
	v2 := append(append(bytes.Clone(v1[:1<<19]), "inserted"...), v1[1<<19:]...)
	path := filepath.Join(t.TempDir(), "app.bin")
	m1, s1 := publish(t, origin, []delta.Input{{Path: writeFile(t, path, v1)}}, delta.BuildOptions{Version: "1"})
	var stages []delta.Progress
	o := delta.BuildOptions{Version: "2", Previous: []*release.Manifest{m1}, Deltas: 3,
		Progress: func(p delta.Progress) { stages = append(stages, p) }}
	m2, s2 := publish(t, origin, []delta.Input{{Path: writeFile(t, path, v2)}}, o)
	if s2.PackSize*4 > s1.PackSize || len(m2.Packs) != 2 || m2.Packs[1] != m1.Packs[0] {
		t.Errorf("second pack %d after %d, packs %v", s2.PackSize, s1.PackSize, m2.Packs)
	}
	if !bytes.Equal(contents(t, origin, m2, 0), v2) {
		t.Error("second release differs")
	}
	if p := s2.Artifacts[0].Patches; len(p) != 1 || p[0].BaseVersion != "1" || !p[0].Kept {
		t.Errorf("patches %+v", p)
	}
	p := m2.Artifacts[0].Patches[0]
	st, err := os.Stat(filepath.Join(origin, delta.ObjectName(delta.PatchDir, p.Sum)))
	if err != nil || st.Size() != p.Size || p.Base != m1.Artifacts[0].Sum || p.BaseVersion != "1" {
		t.Errorf("patch %+v: %v", p, err)
	}
	last := stages[len(stages)-1]
	if last.Stage != delta.StagePatch || last.Patch == nil || !last.Patch.Kept || last.Done != last.Total {
		t.Errorf("last progress %+v", last)
	}
	// Publishing the same again adds nothing: no pack, no patch.
	o.Previous = []*release.Manifest{m2, m1}
	m3, s3 := publish(t, origin, []delta.Input{{Path: path}}, o)
	if s3.PackSize != 0 || m3.Artifacts[0].Sum != m2.Artifacts[0].Sum || len(m3.Packs) != 2 {
		t.Errorf("same again: %+v", s3)
	}
	if p := m3.Artifacts[0].Patches; len(p) != 1 || p[0].Base != m1.Artifacts[0].Sum {
		t.Errorf("same again: %+v", p)
	}
}

func TestDeterministic(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	path := filepath.Join(t.TempDir(), "app.bin")
	v1 := program(4, 400_000)
	m1, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, v1)}}, delta.BuildOptions{Version: "1"})
	writeFile(t, path, edit(v1, 5))
	dir := plant(t, map[string][]byte{"a": v1[:200_000], "b/c": v1[100_000:150_000]})
	var first []byte
	for jobs := 1; jobs <= 3; jobs++ {
		m, _, err := delta.Build(t.Context(), []delta.Input{{Path: path}, {Path: dir}}, delta.BuildOptions{
			Out: t.TempDir(), Origin: origin, Channel: "stable", Sequence: 2, Version: "2", Deltas: 1, Jobs: jobs,
			Previous: []*release.Manifest{m1}})
		must(t, err)
		b, err := m.Encode()
		must(t, err)
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Errorf("%d jobs give another manifest", jobs)
		}
	}
}

func TestWhichBase(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	in := func(name string, b []byte) delta.Input {
		return delta.Input{Path: writeFile(t, filepath.Join(t.TempDir(), name), b)}
	}
	v := program(5, 150_000)
	other := program(6, 150_000)
	// One artifact under another name; two, one of which has the name; two others; a tree.
	m1, _ := publish(t, origin, []delta.Input{in("old-name", v)}, delta.BuildOptions{Version: "1"})
	m2, _ := publish(t, origin, []delta.Input{in("x", other), in("app", edit(v, 1))}, delta.BuildOptions{Version: "2"})
	m3, _ := publish(t, origin, []delta.Input{in("x", v), in("y", v[1:])}, delta.BuildOptions{Version: "3"})
	m4, _ := publish(t, origin, []delta.Input{{Path: plant(t, map[string][]byte{"app": v})}}, delta.BuildOptions{Version: "4"})
	prev := []*release.Manifest{m4, m3, m2, m1}
	for deltas, want := range []string{"", "2", "2 1", "2 1"} {
		m, _ := publish(t, origin, []delta.Input{in("app", edit(v, 2))},
			delta.BuildOptions{Version: "5", Previous: prev, Deltas: deltas})
		var got []string
		for _, p := range m.Artifacts[0].Patches {
			got = append(got, p.BaseVersion)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%d deltas: patches from %q, want %q", deltas, got, want)
		}
	}
	m, _ := publish(t, origin, []delta.Input{in("app", edit(v, 2))},
		delta.BuildOptions{Version: "5", Previous: prev, Deltas: 1, Bases: []string{"1", "2"}})
	if p := m.Artifacts[0].Patches; len(p) != 2 || p[0].BaseVersion != "2" || p[1].BaseVersion != "1" {
		t.Errorf("one delta, and bases that are named: %+v", p)
	}
}

func TestUselessPatchIsDropped(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	path := filepath.Join(t.TempDir(), "app")
	m1, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, program(7, 200_000))}}, delta.BuildOptions{Version: "1"})
	noise := make([]byte, 300_000)
	rand.NewChaCha8([32]byte{8}).Read(noise)
	m2, s2 := publish(t, origin, []delta.Input{{Path: writeFile(t, path, noise)}},
		delta.BuildOptions{Version: "2", Previous: []*release.Manifest{m1}, Deltas: 1})
	if p := s2.Artifacts[0].Patches; len(p) != 1 || p[0].Kept || len(m2.Artifacts[0].Patches) != 0 {
		t.Errorf("patch %+v", p)
	}
	if files, _ := os.ReadDir(filepath.Join(origin, delta.PatchDir)); len(files) != 0 {
		t.Errorf("%d patches published", len(files))
	}
}

func TestFullPatch(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	app := program(15, 200_000)
	m, stats := publish(t, origin, []delta.Input{{Path: plant(t, map[string][]byte{"a/b": app, "c": app[:100_000]})}},
		delta.BuildOptions{Version: "1", Full: true})
	p := stats.Artifacts[0].Patches
	if len(p) != 1 || p[0].BaseVersion != delta.EmptyVersion || p[0].Chunks != stats.PackSize {
		t.Fatalf("patches %+v", p)
	}
	if p[0].Kept != (len(m.Artifacts[0].Patches) == 1) {
		t.Error("kept, but not in the manifest")
	}
	if !p[0].Kept {
		t.Skip("not worth keeping with this engine")
	}
	var got bytes.Buffer
	must(t, decode(t, origin, &m.Artifacts[0].Patches[0], bytes.NewReader(nil), &got))
	if !bytes.Equal(got.Bytes(), contents(t, origin, m, 0)) {
		t.Error("stream from nothing differs")
	}
}

// decode applies a patch that lies at the origin.
func decode(t *testing.T, origin string, p *release.Patch, base patch.Source, w io.Writer) error {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(origin, delta.ObjectName(delta.PatchDir, p.Sum)))
	must(t, err)
	_, err = patch.Decode(t.Context(), bytes.NewReader(b), base, w, patch.DecodeOptions{})
	return err
}

// TestTreeFromInstalledTree goes the way of a device: what is installed is the
// base, the patch gives the stream, the stream the new tree.
func TestTreeFromInstalledTree(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	app := program(14, 800_000)
	old := plant(t, map[string][]byte{"bin/app": app, "etc/conf": []byte("x=1\n"), "gone": app[:50_000]})
	m1, _ := publish(t, origin, []delta.Input{{Path: old}}, delta.BuildOptions{Version: "1"})
	next := plant(t, map[string][]byte{"bin/app": edit(app, 9), "etc/conf": []byte("x=2\n"), "etc/new": app[:60_000]})
	m2, _ := publish(t, origin, []delta.Input{{Path: next}},
		delta.BuildOptions{Version: "2", Previous: []*release.Manifest{m1}, Deltas: 1})
	a := &m2.Artifacts[0]
	if len(a.Patches) != 1 {
		t.Fatal("no patch")
	}
	l, err := tree.Walk(old)
	must(t, err)
	base, err := tree.Open(old, l)
	must(t, err)
	defer base.Close()
	var stream bytes.Buffer
	must(t, decode(t, origin, &a.Patches[0], base, &stream))
	must(t, delta.CheckStream(bytes.NewReader(stream.Bytes()), a))
	list, err := tree.Parse(stream.Bytes()[:a.ListingSize])
	must(t, err)
	dst := t.TempDir()
	w, err := tree.NewWriter(dst, list)
	must(t, err)
	_, err = w.WriteAt(stream.Bytes(), 0)
	must(t, err)
	must(t, w.Finish())
	must(t, w.Close())
	got, err := tree.Walk(dst)
	must(t, err)
	want, err := tree.Walk(next)
	must(t, err)
	if !bytes.Equal(got.Append(nil), want.Append(nil)) {
		t.Error("installed tree differs from the published one")
	}
}

func TestMissingPackIsNotReferredTo(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	path := writeFile(t, filepath.Join(t.TempDir(), "app"), program(9, 400_000))
	m1, s1 := publish(t, origin, []delta.Input{{Path: path}}, delta.BuildOptions{Version: "1"})
	pack := filepath.Join(origin, delta.ObjectName(delta.PackDir, m1.Packs[0].Sum))
	must(t, os.Truncate(pack, m1.Packs[0].Size-1))
	m2, s2 := publish(t, origin, []delta.Input{{Path: path}},
		delta.BuildOptions{Version: "2", Previous: []*release.Manifest{m1}})
	if s2.PackSize != s1.PackSize || len(m2.Packs) != 1 {
		t.Errorf("pack %d, want %d", s2.PackSize, s1.PackSize)
	}
	contents(t, origin, m2, 0)
	// A release of which nothing is left is no base, and no error.
	_, s3 := publish(t, filepath.Join(t.TempDir(), "fresh"), []delta.Input{{Path: path}},
		delta.BuildOptions{Version: "3", Previous: []*release.Manifest{m1}, Deltas: 1})
	if len(s3.Artifacts[0].Patches) != 0 {
		t.Errorf("patches %+v", s3.Artifacts[0].Patches)
	}
}

func TestCorruptOriginIsNoticed(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	path := filepath.Join(t.TempDir(), "app")
	m, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, program(10, 400_000))}}, delta.BuildOptions{Version: "1"})
	a := &m.Artifacts[0]
	writeFile(t, path, program(11, 400_000))
	for _, object := range []string{
		delta.ObjectName(delta.PackDir, m.Packs[0].Sum),
		delta.ObjectName(delta.IndexDir, a.Index),
		delta.ObjectName(delta.MapDir, a.Map),
	} {
		name := filepath.Join(origin, object)
		good, err := os.ReadFile(name)
		must(t, err)
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		writeFile(t, name, bad)
		s, err := delta.OpenArtifact(origin, m, a)
		if err == nil {
			_, err = io.Copy(io.Discard, io.NewSectionReader(s, 0, s.Size()))
			s.Close()
		}
		if !errors.Is(err, delta.ErrCorrupt) {
			t.Errorf("%s: %v", object, err)
		}
		_, _, err = delta.Build(t.Context(), []delta.Input{{Path: path}}, delta.BuildOptions{Out: t.TempDir(),
			Origin: origin, Channel: "stable", Sequence: 2, Version: "2", Previous: []*release.Manifest{m}, Deltas: 1})
		if !errors.Is(err, delta.ErrCorrupt) {
			t.Errorf("build on %s: %v", object, err)
		}
		writeFile(t, name, good)
	}
}

func TestReadAt(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	want := program(12, 1<<20)
	m, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, filepath.Join(t.TempDir(), "app"), want)}},
		delta.BuildOptions{Version: "1"})
	s, err := delta.OpenArtifact(origin, m, &m.Artifacts[0])
	must(t, err)
	defer s.Close()
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		off := r.IntN(len(want))
		p := make([]byte, r.IntN(300_000))
		n, err := s.ReadAt(p, int64(off))
		if k := min(len(p), len(want)-off); n != k || (err == io.EOF) != (n < len(p)) || !bytes.Equal(p[:n], want[off:off+k]) {
			t.Fatalf("%d at %d: %d, %v", len(p), off, n, err)
		}
	}
	if _, err := s.ReadAt(nil, -1); err == nil {
		t.Error("negative offset")
	}
	if n, err := s.ReadAt(make([]byte, 1), s.Size()+5); n != 0 || err != io.EOF {
		t.Errorf("past the end: %d, %v", n, err)
	}
}

func TestCancel(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	path := filepath.Join(t.TempDir(), "app")
	v1 := program(13, 600_000)
	m1, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, v1)}}, delta.BuildOptions{Version: "1"})
	writeFile(t, path, edit(v1, 40))
	for _, stage := range []delta.Stage{delta.StageChunks, delta.StageBase, delta.StagePatch} {
		ctx, cancel := context.WithCancel(t.Context())
		scratch := t.TempDir()
		_, _, err := delta.Build(ctx, []delta.Input{{Path: path}}, delta.BuildOptions{Out: t.TempDir(), Origin: origin,
			Channel: "stable", Sequence: 2, Version: "2", Previous: []*release.Manifest{m1}, Deltas: 1, Scratch: scratch,
			Progress: func(p delta.Progress) {
				if p.Stage == stage && p.Patch == nil {
					cancel()
				}
			}})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled in %s: %v", stage, err)
		}
		if left, _ := os.ReadDir(scratch); len(left) != 0 {
			t.Errorf("cancelled in %s: left %v", stage, left)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	dir := t.TempDir()
	file := writeFile(t, filepath.Join(dir, "app"), []byte("x"))
	ok := delta.BuildOptions{Out: filepath.Join(dir, "out"), Channel: "stable", Sequence: 2, Version: "1"}
	with := func(f func(o *delta.BuildOptions)) delta.BuildOptions { o := ok; f(&o); return o }
	for name, c := range map[string]struct {
		in []delta.Input
		o  delta.BuildOptions
	}{
		"nothing":      {nil, ok},
		"missing file": {[]delta.Input{{Path: filepath.Join(dir, "none")}}, ok},
		"device":       {[]delta.Input{{Path: "/dev/null"}}, ok},
		"same names":   {[]delta.Input{{Path: file}, {Path: file}}, ok},
		"bad name":     {[]delta.Input{{Path: file, Name: "../x"}}, ok},
		"no version":   {[]delta.Input{{Path: file}}, with(func(o *delta.BuildOptions) { o.Version = "" })},
		"no sequence":  {[]delta.Input{{Path: file}}, with(func(o *delta.BuildOptions) { o.Sequence = 0 })},
		"bad type":     {[]delta.Input{{Path: file}}, with(func(o *delta.BuildOptions) { o.Types = []string{"a b"} })},
		"no channel":   {[]delta.Input{{Path: file}}, with(func(o *delta.BuildOptions) { o.Channel = "" })},
		"no staging":   {[]delta.Input{{Path: file}}, with(func(o *delta.BuildOptions) { o.Out = "" })},
	} {
		if _, _, err := delta.Build(t.Context(), c.in, c.o); !errors.Is(err, delta.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestObjectName(t *testing.T) {
	if got := delta.ObjectName(delta.PackDir, [32]byte{31: 0xab}); got != "packs/"+strings.Repeat("0", 62)+"ab" {
		t.Errorf("name %s", got)
	}
	if len(hex.EncodeToString(make([]byte, 32))) != 64 {
		t.Error("length")
	}
}
