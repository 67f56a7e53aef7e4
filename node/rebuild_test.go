package node

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"updraft/delta/patch"
)

// bytesSource is a base or patch in memory.
type bytesSource struct{ *bytes.Reader }

func inMemory(b []byte) bytesSource { return bytesSource{bytes.NewReader(b)} }

func makePatch(t *testing.T, old, now []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := patch.Create(t.Context(), inMemory(old), inMemory(now), &out, patch.Options{Profile: patch.Plain, SegmentSize: 4 << 20, Jobs: 1}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// changed is b with regions that differ, through its whole length.
func changed(b []byte) []byte {
	out := bytes.Clone(b)
	for off := 0; off+300 < len(out); off += 1 << 20 {
		copy(out[off:], random(uint64(off>>20)+500, 300))
	}
	return out
}

func TestRebuild(t *testing.T) {
	old := random(1, 1<<20)
	now := changed(bytes.Repeat(old, 20))
	art, _ := artifactOf(t, now, 0)
	a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
	if err := a.rebuild(t.Context(), inMemory(makePatch(t, old, now)), inMemory(old), t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	whole(t, a)
	if w := wrote(t, a); w != art.Size {
		t.Errorf("wrote %d bytes of %d", w, art.Size)
	}
}

func TestCopyOfSameArtifact(t *testing.T) {
	b := random(2, 3<<20)
	art, _ := artifactOf(t, b, 0)
	a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
	if err := a.rebuild(t.Context(), nil, inMemory(b), t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	whole(t, a)
}

// stopping is a patch whose end never comes: reads beyond at fail.
type stopping struct {
	bytesSource
	at  int64
	err error
}

func (s stopping) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > s.at {
		return 0, s.err
	}
	return s.bytesSource.ReadAt(b, off)
}

// TestRebuildResumes goes on after the pages that were complete, in the same
// process and in the next.
func TestRebuildResumes(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	old := random(3, 1<<20)
	now := changed(bytes.Repeat(old, 40))
	art, _ := artifactOf(t, now, 0)
	p, dir, reg := makePatch(t, old, now), t.TempDir(), loneRegistry(t)
	a := assemblyOf(t, reg, dir, art)
	broken := errors.New("cut off")
	err := a.rebuild(t.Context(), stopping{inMemory(p), int64(len(p)) * 3 / 4, broken}, inMemory(old), t.TempDir(), 0)
	if !errors.Is(err, broken) {
		t.Fatalf("rebuild of a patch that was cut off: %v", err)
	}
	have := a.progress()
	if have == 0 || have == art.Size {
		t.Fatalf("%d of %d bytes when it was cut off", have, art.Size)
	}
	if err := a.forget(); err != nil {
		t.Fatal(err)
	}
	a = assemblyOf(t, reg, dir, art)
	if got := a.progress(); got < have {
		t.Errorf("%d bytes after the restart, %d before", got, have)
	}
	if err := a.rebuild(t.Context(), inMemory(p), inMemory(old), t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	whole(t, a)
	// What is there of the page that was not complete is not written again.
	if w := wrote(t, a); w > art.Size-have || w > art.Size*3/10 {
		t.Errorf("wrote %d bytes after the restart, %d were missing", w, art.Size-have)
	}
}

// TestOvertakenRebuildWritesOnce: what a rebuild wrote before it was given up, be it twice,
// is not written again when chunks come from others.
func TestOvertakenRebuildWritesOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	old := random(8, 1<<20)
	now := changed(bytes.Repeat(old, 20))
	art, index := artifactOf(t, now, 0)
	p, a := makePatch(t, old, now), assemblyOf(t, loneRegistry(t), t.TempDir(), art)
	overtaken := errors.New("overtaken")
	for _, at := range []int64{3, 7, 9} {
		if err := a.rebuild(t.Context(), stopping{inMemory(p), int64(len(p)) * at / 10, overtaken}, inMemory(old), t.TempDir(), 0); !errors.Is(err, overtaken) {
			t.Fatal(err)
		}
	}
	if w := wrote(t, a); w < art.Size/2 {
		t.Fatalf("gave up after %d of %d bytes", w, art.Size)
	}
	learn(t, a, index)
	if a.progress() < art.Size/2 {
		t.Errorf("found %d bytes", a.progress())
	}
	for _, p := range a.snapshot() {
		for i := range p.chunks {
			bring(t, a, p, i, now)
		}
	}
	whole(t, a)
	w := wrote(t, a)
	t.Logf("wrote %d bytes of %d", w, art.Size)
	if w > art.Size*102/100 {
		t.Errorf("wrote %d bytes of %d", w, art.Size)
	}
}

// TestRebuildWritesOnce: a device that took chunks before its turn came to rebuild
// writes only the others.
func TestRebuildWritesOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	old := random(4, 1<<20)
	now := changed(bytes.Repeat(old, 40))
	art, index := artifactOf(t, now, 0)
	a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
	learn(t, a, index)
	var had int64
	for k, p := range a.snapshot() {
		for i := k; i < len(p.chunks); i += 3 {
			bring(t, a, p, i, now)
			had += int64(p.chunks[i].Len)
		}
	}
	if w := wrote(t, a); w != had || w == 0 {
		t.Fatalf("wrote %d bytes for %d of chunks", w, had)
	}
	if err := a.rebuild(t.Context(), inMemory(makePatch(t, old, now)), inMemory(old), t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	whole(t, a)
	if w := wrote(t, a); w != art.Size {
		t.Errorf("wrote %d bytes of %d", w, art.Size)
	}
}

// TestRebuildOfWrongBytes gives up: a patch that leads elsewhere, a copy that is
// too short, too long or another.
func TestRebuildOfWrongBytes(t *testing.T) {
	old := random(4, 2<<20)
	now := changed(old)
	art, _ := artifactOf(t, now, 0)
	reg := loneRegistry(t)
	for name, c := range map[string]struct{ patch, base []byte }{
		"another file": {makePatch(t, old, old), old},
		"other base":   {makePatch(t, old, now), random(5, 2<<20)},
		"no patch":     {random(6, 1000), old},
		"short":        {nil, now[:len(now)-1]},
		"long":         {nil, append(bytes.Clone(now), 1)},
		"empty":        {nil, []byte{}},
		"one bit":      {nil, append(append(bytes.Clone(now[:1<<20]), now[1<<20]^1), now[1<<20+1:]...)},
	} {
		a := assemblyOf(t, reg, t.TempDir(), art)
		var src patch.Source
		if c.patch != nil {
			src = inMemory(c.patch)
		}
		err := a.rebuild(t.Context(), src, inMemory(c.base), t.TempDir(), 0)
		if err == nil || a.complete() {
			t.Errorf("%s: %v, complete %v", name, err, a.complete())
		}
		if isBase(err) != (name == "other base") {
			t.Errorf("%s: blamed on the base: %v", name, err)
		}
		// The way by chunks is open as before.
		if a.mu.Lock(); !a.receive || a.produce {
			t.Errorf("%s: receives %v, produces %v", name, a.receive, a.produce)
		}
		a.mu.Unlock()
		if err := a.forget(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRebuildIsStopped(t *testing.T) {
	b := random(7, 2<<20)
	art, _ := artifactOf(t, b, 0)
	a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errOtherPlan)
	if err := a.rebuild(ctx, nil, inMemory(b), t.TempDir(), 0); !errors.Is(err, errOtherPlan) {
		t.Errorf("stopped: %v", err)
	}
	if a.progress() != 0 {
		t.Errorf("%d bytes", a.progress())
	}
}

// TestRebuiltTree rebuilds a tree whose contents partly came before.
func TestRebuiltTree(t *testing.T) {
	b, ls := treeOf(t, 300<<10, 5, 500<<10, 0, 70<<10)
	art, index := artifactOf(t, b, ls)
	dir := t.TempDir()
	reg := loneRegistry(t)
	st := newTree(t, dir, ls, len(b))
	f, err := os.OpenFile(filepath.Join(dir, "index"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	a := newAssembly(art, reg, st, f)
	if err := a.start(true); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.forget() }()
	learn(t, a, index)
	p := a.snapshot()[0]
	bring(t, a, p, len(p.chunks)-1, b)
	bring(t, a, p, 3, b)
	if err := a.rebuild(t.Context(), nil, inMemory(b), t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	whole(t, a)
	if err := a.st.finish(); err != nil {
		t.Fatal(err)
	}
	complete(t, dir, b)
}

// TestRebuildReachesAllPlaces: a page that has been rebuilt is the page's in every
// artifact. Else the swarm believes that they have it, and they wait for ever.
func TestRebuildReachesAllPlaces(t *testing.T) {
	b := image(t, 36<<20)
	art, index := artifactOf(t, b, 0)
	reg := loneRegistry(t)
	a := assemblyOf(t, reg, t.TempDir(), art)
	learn(t, a, index)
	broken := errors.New("cut off")
	half := stopping{inMemory(b), 20 << 20, broken}
	if err := a.rebuild(t.Context(), nil, struct{ patch.Source }{half}, t.TempDir(), 0); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	for _, p := range a.snapshot() {
		for _, i := range reg.sw.Missing(p.id) {
			bring(t, a, p, i, b)
		}
	}
	whole(t, a)
}

// TestRebuildSharesWithOtherArtifact is the same for two artifacts.
func TestRebuildSharesWithOtherArtifact(t *testing.T) {
	b1 := random(8, 24<<20)
	b2 := append(bytes.Clone(b1), random(9, 1<<20)...)
	art1, _ := artifactOf(t, b1, 0)
	art2, index2 := artifactOf(t, b2, 0)
	reg := loneRegistry(t)
	a1, a2 := assemblyOf(t, reg, t.TempDir(), art1), assemblyOf(t, reg, t.TempDir(), art2)
	learn(t, a2, index2)
	if err := a1.rebuild(t.Context(), nil, inMemory(b1), t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	whole(t, a1)
	for _, p := range a2.snapshot() {
		for _, i := range reg.sw.Missing(p.id) {
			bring(t, a2, p, i, b2)
		}
	}
	whole(t, a2)
}
