package release_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"updraft/delta/release"
)

// step is a patch between two artifacts that are known by a letter.
func step(from, to string, size int64) release.Step {
	return release.Step{Target: sum(to), TargetSize: 1000, Patch: release.Patch{Base: sum(from), BaseVersion: from,
		Sum: sum(fmt.Sprint(from, to, size)), Size: size, BlockSize: 256 << 10, Memory: size, Work: 10}}
}

// spell writes ways as the bases of their patches.
func spell(ways []release.Way) string {
	var out []string
	for _, w := range ways {
		s := ""
		for i := range w {
			s += w[i].BaseVersion
		}
		out = append(out, fmt.Sprint(s, w.Size()))
	}
	return strings.Join(out, " ")
}

func TestWays(t *testing.T) {
	for _, c := range []struct {
		name    string
		patches []release.Step // that end in z
		steps   []release.Step
		want    string
	}{
		{name: "nothing"},
		{name: "patches alone", patches: []release.Step{step("y", "z", 5), step("x", "z", 7)}, want: "y5 x7"},
		{name: "a chain", patches: []release.Step{step("y", "z", 5)}, steps: []release.Step{step("x", "y", 6), step("w", "x", 7)}, want: "y5 xy11 wxy18"},
		{name: "the shortest of two by bytes", patches: []release.Step{step("y", "z", 5), step("x", "z", 9)},
			steps: []release.Step{step("w", "y", 6), step("w", "x", 1)}, want: "y5 x9 wx10"},
		{name: "of equal bytes the one with fewer patches", patches: []release.Step{step("y", "z", 5)},
			steps: []release.Step{step("w", "x", 3), step("x", "y", 3), step("w", "y", 6)}, want: "y5 wy11 xy8"},
		{name: "a chain that is cheaper than the patch", patches: []release.Step{step("x", "z", 50), step("y", "z", 5)},
			steps: []release.Step{step("x", "y", 6)}, want: "x50 y5 xy11"},
		{name: "a patch that is cheaper than the chain", patches: []release.Step{step("x", "z", 10), step("y", "z", 5)},
			steps: []release.Step{step("x", "y", 6)}, want: "x10 y5"},
		{name: "steps that lead nowhere", patches: []release.Step{step("y", "z", 5)}, steps: []release.Step{step("a", "b", 1), step("y", "c", 1)}, want: "y5"},
		{name: "circles", patches: []release.Step{step("y", "z", 5)},
			steps: []release.Step{step("y", "x", 1), step("x", "y", 1), step("x", "w", 1), step("w", "x", 1), step("z", "w", 1), step("a", "b", 1), step("b", "a", 1)}, want: "y5 xy6 wxy7"},
		{name: "an earlier patch that ends in the same bytes", patches: []release.Step{step("y", "z", 5)}, steps: []release.Step{step("x", "z", 3)}, want: "y5 x3"},
	} {
		a := &release.Artifact{Sum: sum("z"), Size: 1000}
		for _, p := range c.patches {
			a.Patches = append(a.Patches, p.Patch)
		}
		got := release.Ways(a, c.steps)
		if spell(got) != c.want {
			t.Errorf("%s: %q, want %q", c.name, spell(got), c.want)
		}
		for _, w := range got {
			if w[len(w)-1].Target != a.Sum || w.Base() != w[0].Base || w.Name() != w[0].Sum {
				t.Errorf("%s: %+v", c.name, w)
			}
			for i := range w[1:] {
				if w[i].Target != w[i+1].Base {
					t.Errorf("%s: patch %d makes what patch %d does not start from", c.name, i, i+1)
				}
			}
		}
		for range 5 { // maps have an order of their own
			if !reflect.DeepEqual(release.Ways(a, c.steps), got) {
				t.Errorf("%s: other ways the second time", c.name)
			}
		}
		slices.Reverse(c.steps)
		if len(release.Ways(a, c.steps)) != len(got) {
			t.Errorf("%s: the order of the steps counts", c.name)
		}
	}
}

func TestWhatAWayTakes(t *testing.T) {
	w := release.Way{step("a", "b", 3), step("b", "c", 9), step("c", "d", 4)}
	w[0].TargetSize, w[1].TargetSize, w[2].TargetSize = 100, 70, 1<<40
	if w.Size() != 16 || w.Memory() != 9 || w.Between() != 170 || w.Room() != 170 || w.Work() != 200 || w.BaseVersion() != "a" {
		t.Errorf("size %d, memory %d, between %d, room %d, work %d", w.Size(), w.Memory(), w.Between(), w.Room(), w.Work())
	}
	longer := append(w[:2:2], step("c", "e", 1), step("e", "f", 1))
	longer[2].TargetSize = 20
	if longer.Between() != 190 || longer.Room() != 170 {
		t.Errorf("between %d, room %d", longer.Between(), longer.Room())
	}
	if one := w[:1]; one.Between() != 0 || one.Room() != 0 || one.Work() != 10 {
		t.Error("one patch makes nothing in between")
	}
}
