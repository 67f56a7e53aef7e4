package delta_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updraft/delta"
	"updraft/delta/release"
)

func TestVerify(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	path := filepath.Join(t.TempDir(), "app")
	v1 := program(30, 500_000)
	m1, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, v1)}}, delta.BuildOptions{Version: "1"})
	m2, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, edit(v1, 30))}},
		delta.BuildOptions{Version: "2", Previous: []*release.Manifest{m1}, Deltas: 1})
	if len(m2.Artifacts[0].Patches) != 1 {
		t.Fatal("no patch to verify")
	}
	var seen []string
	err := delta.Verify(t.Context(), origin, m2, func(p delta.Progress) {
		if p.Done == p.Total {
			seen = append(seen, p.Artifact)
		}
	})
	if err != nil || len(seen) < 3 {
		t.Fatalf("%v, saw %q", err, seen)
	}
	must(t, delta.Verify(t.Context(), origin, m1, nil))

	a := &m2.Artifacts[0]
	pack, patch := delta.ObjectName(delta.PackDir, m2.Packs[0].Sum), delta.ObjectName(delta.PatchDir, a.Patches[0].Sum)
	must(t, os.Truncate(filepath.Join(origin, patch), a.Patches[0].Size-1))
	must(t, os.Remove(filepath.Join(origin, pack)))
	err = delta.Verify(t.Context(), origin, m2, nil)
	if !errors.Is(err, delta.ErrCorrupt) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), patch) {
		t.Errorf("two faults: %v", err)
	}
	must(t, delta.Verify(t.Context(), origin, m1, nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := delta.Verify(ctx, origin, m2, nil); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}
