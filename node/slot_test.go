package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"

	"updraft/delta/release"
)

// TestCompleteArtifactFreesTheRoomOfItsChain: a chain of which the artifact has come from
// others is given up, so that the next has its room.
func TestCompleteArtifactFreesTheRoomOfItsChain(t *testing.T) {
	b := random(1, 1<<20)
	art, index := artifactOf(t, b, 0)
	a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var w release.Way
		var files []*patchFile
		for i := range 2 {
			w = append(w, release.Step{Patch: release.Patch{Sum: [32]byte{byte(i + 1)}, Size: 1000, BlockSize: 1000}})
			pf, err := openPatch(filepath.Join(dir, fmt.Sprint(i)), &w[i].Patch)
			if err != nil {
				t.Fatal(err)
			}
			defer pf.f.Close()
			files = append(files, pf)
		}
		u := &update{n: &Node{}, m: &release.Manifest{}, arts: []*assembly{a}, chain: make(chan struct{}, 1), active: make(map[[32]byte]rebuildJob), notes: make(map[[32]byte]string)}
		ctx, cancel := context.WithCancelCause(t.Context())
		u.active[art.Sum] = rebuildJob{way: w.Name(), stop: cancel}
		go u.reportRebuild(ctx, a, w)
		ended := make(chan error, 1)
		go func() {
			_, _, err := u.between(ctx, a, w, files, source{bytes.NewReader(b), int64(len(b))}) // waits for its first patch
			ended <- err
		}()
		synctest.Wait()
		if len(u.chain) != 1 || u.explained() == nil {
			t.Fatal("no chain is under way")
		}
		learn(t, a, index)
		for _, p := range a.snapshot() {
			for i := range p.chunks {
				bring(t, a, p, i, b)
			}
		}
		if err := <-ended; !errors.Is(err, errComplete) {
			t.Errorf("the chain ended with %v", err)
		}
		if len(u.chain) != 0 {
			t.Error("the next chain has no room")
		}
		cancel(nil)
	})
}
