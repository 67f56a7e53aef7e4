package node

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"updraft/delta/release"
	"updraft/delta/tree"
)

// setBackUpdate returns an update of one artifact whose ways, by patches with these sums, were set back.
func setBackUpdate(t *testing.T, a *assembly, sums ...byte) *update {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	dir := t.TempDir()
	n := &Node{status: newStatusBoard(), lib: newLibrary(paths{dir}, nil, log), log: log}
	n.cfg.Data = dir
	u := &update{n: n, m: &release.Manifest{}, arts: []*assembly{a}, chosen: map[[32]byte][32]byte{}, setbacks: map[[32]byte]*setback{}, failed: map[[32]byte]bool{}}
	for _, sum := range sums {
		w := oneStep(sum)
		u.failed[w[0].Sum] = true
		u.setBack(a.art, w, w[0].Sum)
	}
	return u
}

func oneStep(sum byte) release.Way { return release.Way{{Patch: release.Patch{Sum: [32]byte{sum}}}} }

// TestSetbackOfWhatHasCome: an artifact whose rebuild was set back comes from others; nothing is tried again, and who
// waited for that ends.
func TestSetbackOfWhatHasCome(t *testing.T) {
	b := random(1, 1<<20)
	art, index := artifactOf(t, b, 0)
	a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
	learn(t, a, index)
	synctest.Test(t, func(t *testing.T) {
		a.planned = make(chan struct{}, 1)
		u := setBackUpdate(t, a, 1)
		done := make(chan error, 1)
		go func() { done <- u.rebuildWhenPossible(t.Context(), a) }()
		synctest.Wait()
		u.overcome(art)
		time.Sleep(time.Minute) // the time of the setback passes while others are awaited
		synctest.Wait()
		for _, p := range a.snapshot() {
			p.markAll()
		}
		a.signalPlan()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestTwoSetbacks: what failed for want of room may all be tried again.
func TestTwoSetbacks(t *testing.T) {
	art, _ := artifactOf(t, random(1, 1<<18), 0)
	a := &assembly{art: art}
	u := setBackUpdate(t, a, 1, 2)
	u.measureRoom()
	if !u.goAgain(art) {
		t.Error("the ways are not gone again")
	}
	for sum := byte(1); sum <= 2; sum++ {
		if u.wayFailed(oneStep(sum)) {
			t.Errorf("way %d still counts as failed", sum)
		}
	}
}

// TestZerosBeforeTheListing: contents that are zeros, and come before the tree can be opened, are written over what the
// old release has there.
func TestZerosBeforeTheListing(t *testing.T) {
	folder := func(b []byte) string {
		dir := t.TempDir()
		path, at := filepath.Join(dir, "f"), time.Unix(1, 0)
		if err := os.WriteFile(path, b, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	old := folder(bytes.Repeat([]byte{0xaa}, 256<<10))
	now := folder(append(make([]byte, 128<<10), bytes.Repeat([]byte{0xbb}, 128<<10)...))
	l, err := tree.Walk(now)
	if err != nil {
		t.Fatal(err)
	}
	r, err := tree.Open(now, l)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	list, dir := r.ListingSize(), t.TempDir()
	s, err := createTree(filepath.Join(dir, "app"), filepath.Join(dir, "listing"), list, int64(len(b)), old)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := &assembly{st: s, art: &release.Artifact{Size: int64(len(b)), ListingSize: list}, rough: span{0, int64(len(b))}}
	mid := list + 128<<10
	for _, p := range []span{{mid, int64(len(b)) - mid}, {list, mid - list}, {0, list}} {
		if err := a.writeAt(b[p.off:p.off+p.n], p.off); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(b))
	if _, err := s.ReadAt(got, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b) {
		t.Error("the tree is not what was written")
	}
}
