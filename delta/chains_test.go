package delta_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"updraft/delta"
	"updraft/delta/patch"
	"updraft/delta/release"
)

// plain patches take no time to make.
var plain = patch.Options{Profile: patch.Plain}

// line publishes n releases of a program that changes a little each time, with patches
// from so many releases before each, and returns the manifests, newest first, and the
// figures of the last one.
func line(t *testing.T, origin string, n, deltas int) (list []*release.Manifest, last delta.BuildStats) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app")
	v := program(20, 1<<17)
	for i := range n {
		v = edit(v, 30+i)
		m, stats := publish(t, origin, []delta.Input{{Path: writeFile(t, path, v)}},
			delta.BuildOptions{Version: fmt.Sprintf("1.%d", i), Sequence: uint64(i + 1), Deltas: deltas, Previous: list, Patch: plain})
		list, last = append([]*release.Manifest{m}, list...), stats
	}
	return list, last
}

// TestChainsReachBack: with patches from the last release alone, the release before
// needs one patch, and each earlier one a step more; all lead to the newest bytes.
func TestChainsReachBack(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	list, stats := line(t, origin, 6, 1)
	m := list[0]
	if len(m.Artifacts[0].Patches) != 1 || len(m.Steps) != 4 {
		t.Fatalf("%d patches, %d steps", len(m.Artifacts[0].Patches), len(m.Steps))
	}
	ways := release.Ways(&m.Artifacts[0], m.Steps)
	if len(ways) != 5 {
		t.Fatalf("%d ways", len(ways))
	}
	for i, w := range ways {
		base := list[i+1]
		if len(w) != i+1 || w.BaseVersion() != base.Version || w.Base() != base.Artifacts[0].Sum {
			t.Errorf("way %d: %d patches from %s", i, len(w), w.BaseVersion())
		}
		stream := contents(t, origin, base, 0)
		for _, s := range w {
			var next bytes.Buffer
			must(t, decode(t, origin, &s.Patch, bytes.NewReader(stream), &next))
			if int64(next.Len()) != s.TargetSize {
				t.Errorf("way %d: a step of %d bytes, said to make %d", i, next.Len(), s.TargetSize)
			}
			stream = next.Bytes()
		}
		must(t, delta.CheckStream(bytes.NewReader(stream), &m.Artifacts[0]))
	}
	chains := stats.Artifacts[0].Chains
	if len(chains) != 4 {
		t.Fatalf("chains %+v", chains)
	}
	for i, c := range chains {
		w := ways[i+1]
		if c.BaseVersion != w.BaseVersion() || c.Patches != len(w) || c.Size != w.Size() || c.Between != w.Between() || c.Size >= c.Chunks*9/10 {
			t.Errorf("chain %+v", c)
		}
	}
	must(t, delta.Verify(t.Context(), origin, m, nil))
	must(t, os.Truncate(filepath.Join(origin, delta.ObjectName(delta.PatchDir, m.Steps[3].Sum)), 10))
	if err := delta.Verify(t.Context(), origin, m, nil); err == nil {
		t.Error("a step that is damaged passes")
	}
}

func TestChainsAreDeterministic(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	list, _ := line(t, origin, 5, 2)
	path := writeFile(t, filepath.Join(t.TempDir(), "app"), edit(contents(t, origin, list[0], 0), 99))
	var first []release.Step
	for range 5 {
		m, _, err := delta.Build(t.Context(), []delta.Input{{Path: path}}, delta.BuildOptions{Out: t.TempDir(), Origin: origin,
			Channel: "stable", Sequence: 6, Version: "2", Deltas: 1, Previous: list, Patch: plain})
		must(t, err)
		if first == nil {
			first = m.Steps
		}
		if len(first) == 0 || !slices.EqualFunc(m.Steps, first, func(a, b release.Step) bool { return a.Sum == b.Sum }) {
			t.Errorf("other steps: %d, %d", len(m.Steps), len(first))
		}
	}
}

// TestChainsAreBounded: steps reach back no further than their limit, and what is no
// longer at the origin, or cannot be read, ends them.
func TestChainsAreBounded(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	list, stats := line(t, origin, 20, 1)
	if n := len(list[0].Steps); n != 15 || len(stats.Artifacts[0].Chains) != 15 {
		t.Errorf("%d steps, %d chains", n, len(stats.Artifacts[0].Chains))
	}
	if oldest := list[0].Steps[14].BaseVersion; oldest != "1.3" {
		t.Errorf("back to %s", oldest)
	}
	gone := list[0].Steps[2]
	must(t, os.Remove(filepath.Join(origin, delta.ObjectName(delta.PatchDir, gone.Sum))))
	m, s := publish(t, origin, []delta.Input{{Path: writeFile(t, filepath.Join(t.TempDir(), "app"), edit(contents(t, origin, list[0], 0), 99))}},
		delta.BuildOptions{Version: "2", Deltas: 1, Previous: list, Patch: plain})
	if len(m.Steps) != 3 || len(s.Artifacts[0].Chains) != 3 {
		t.Errorf("%d steps without one in the middle", len(m.Steps))
	}
	// One that this program cannot read, as if a later one had made it, ends them too.
	strange := list[0].Steps[1]
	name := filepath.Join(origin, delta.ObjectName(delta.PatchDir, strange.Sum))
	b, err := os.ReadFile(name)
	must(t, err)
	b[0]++
	writeFile(t, name, b)
	m, _ = publish(t, origin, []delta.Input{{Path: writeFile(t, filepath.Join(t.TempDir(), "app"), edit(contents(t, origin, list[0], 0), 98))}},
		delta.BuildOptions{Version: "2", Deltas: 1, Previous: list, Patch: plain})
	if len(m.Steps) != 2 {
		t.Errorf("%d steps with one that cannot be read", len(m.Steps))
	}
}

// TestChainsThatSaveNothing are left out: where a later patch is as large as what it
// replaces, and where little is at stake.
func TestChainsThatSaveNothing(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "origin")
	path := filepath.Join(t.TempDir(), "app")
	var list []*release.Manifest
	for i, b := range [][]byte{program(1, 60_000), edit(program(1, 60_000), 3), edit(program(1, 60_000), 5)} {
		m, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, b)}},
			delta.BuildOptions{Version: fmt.Sprint(i), Deltas: 1, Previous: list, Patch: plain})
		list = append([]*release.Manifest{m}, list...)
		if i > 0 && len(m.Artifacts[0].Patches) != 1 {
			t.Fatalf("release %d has %d patches", i, len(m.Artifacts[0].Patches))
		}
	}
	if n := len(list[0].Steps); n != 1 {
		t.Errorf("a chain that saves a little has %d steps", n)
	}
	small := edit(program(2, 9_000), 1)
	list = nil
	for i := range 3 {
		m, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, edit(small, i+2))}},
			delta.BuildOptions{Version: fmt.Sprint(i), Deltas: 1, Previous: list, Patch: plain})
		list = append([]*release.Manifest{m}, list...)
	}
	if n := len(list[0].Steps); n != 0 {
		t.Errorf("%d steps for what costs less than a step", n)
	}
	// What was published before comes back: no way leads over it, and none is needed.
	v := edit(program(3, 300_000), 7)
	list = nil
	for i, b := range [][]byte{program(3, 300_000), v, program(3, 300_000)} {
		m, _ := publish(t, origin, []delta.Input{{Path: writeFile(t, path, b)}},
			delta.BuildOptions{Version: fmt.Sprint(i), Deltas: 1, Previous: list, Patch: plain})
		list = append([]*release.Manifest{m}, list...)
	}
	if n := len(list[0].Steps); n != 0 {
		t.Errorf("%d steps to what the base is already", n)
	}
}
