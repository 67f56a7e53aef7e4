package node

import (
	"strings"
	"testing"

	"updraft/delta/release"
)

func TestChoosePlan(t *testing.T) {
	base := func(b byte) [32]byte { return [32]byte{b} }
	patches := []release.Patch{
		{Base: base(1), BaseVersion: "1.0", Size: 500},
		{Base: base(2), BaseVersion: "2.0", Size: 300},
		{Base: base(3), BaseVersion: "3.0", Size: 100},
	}
	for _, c := range []struct {
		name     string
		held     []byte          // bases on the site
		complete string          // device that has it all
		working  string          // version whose patch is being applied
		failed   string          // versions whose patch is unusable
		left     map[byte]int64  // bytes of patches still missing, where not all
		chunks   int64           // bytes by chunks
		want     string          // version of the patch, "" for chunks
		bytes    int64           // over the uplink
		others   map[string]bool // part of each other way's reason
	}{
		{name: "no base", chunks: 1000, bytes: 1000,
			others: map[string]bool{"1.0 (500 bytes) not possible: no device": true, "2.0 (300": true, "3.0 (100": true}},
		{name: "one base", held: []byte{1}, chunks: 1000, want: "1.0", bytes: 500},
		{name: "the cheapest of two", held: []byte{1, 2}, chunks: 1000, want: "2.0", bytes: 300, others: map[string]bool{"patch from 1.0, 500 bytes": true, "1000 bytes of chunks": true}},
		{name: "all bases", held: []byte{1, 2, 3}, chunks: 1000, want: "3.0", bytes: 100},
		{name: "chunks cost less", held: []byte{1, 2, 3}, chunks: 99, bytes: 99},
		{name: "equal cost: chunks, which nobody has to rebuild", held: []byte{3}, chunks: 100, bytes: 100},
		{name: "chunks are there", held: []byte{3}, chunks: 0, bytes: 0},
		{name: "most of a patch is there", held: []byte{1, 2, 3}, left: map[byte]int64{1: 40}, chunks: 1000, want: "1.0", bytes: 40},
		{name: "a whole patch is there", held: []byte{1, 2, 3}, left: map[byte]int64{2: 0}, chunks: 1000, want: "2.0", bytes: 0},
		{name: "the cheapest failed", held: []byte{1, 2, 3}, failed: "3.0", chunks: 1000, want: "2.0", bytes: 300, others: map[string]bool{"3.0 (100 bytes) not possible: it failed here": true}},
		{name: "all failed", held: []byte{1, 2, 3}, failed: "1.0 2.0 3.0", chunks: 1000, bytes: 1000},
		{name: "being applied, and chunks would cost less by now", held: []byte{1, 3}, working: "1.0", left: map[byte]int64{1: 20}, chunks: 5, want: "1.0", bytes: 20,
			others: map[string]bool{"patch from 1.0, which till-3 is applying, 20 bytes": true}},
		{name: "one that failed here is not waited for", held: []byte{1}, working: "1.0", failed: "1.0", chunks: 5, bytes: 5},
		{name: "complete on the site", held: []byte{1, 2, 3}, working: "1.0", complete: "till-9", chunks: 1000, others: map[string]bool{"nothing to bring, till-9 has it": true}},
	} {
		art := &release.Artifact{Name: "app", Patches: patches}
		best, others := choosePlan(art, siteView{
			complete: c.complete,
			held:     func(p *release.Patch) bool { return strings.IndexByte(string(c.held), p.Base[0]) >= 0 },
			usable:   func(p *release.Patch) bool { return !strings.Contains(c.failed, p.BaseVersion) },
			rebuilding: func(p *release.Patch) string {
				if p.BaseVersion == c.working {
					return "till-3"
				}
				return ""
			},
			patchBytes: func(p *release.Patch) int64 {
				if n, ok := c.left[p.Base[0]]; ok {
					return n
				}
				return p.Size
			}, chunkBytes: c.chunks})
		if best.none != (c.complete != "") {
			t.Errorf("%s: nothing to bring: %v", c.name, best.none)
		}
		got := ""
		if best.patch != nil {
			got = best.patch.BaseVersion
		}
		if got != c.want || best.bytes != c.bytes {
			t.Errorf("%s: patch from %q, %d bytes; want %q, %d", c.name, got, best.bytes, c.want, c.bytes)
		}
		if want := len(patches); len(others) != want && c.complete == "" || c.complete != "" && len(others) != want+1 {
			t.Errorf("%s: %d other ways", c.name, len(others))
		}
		var why []string
		for _, o := range append(others, best) {
			why = append(why, o.why)
			if !strings.HasPrefix(o.why, "app: ") {
				t.Errorf("%s: reason %q", c.name, o.why)
			}
		}
		for part := range c.others {
			if !strings.Contains(strings.Join(why, "\n"), part) {
				t.Errorf("%s: no %q in %q", c.name, part, why)
			}
		}
	}
}

func TestPlanWithoutPatches(t *testing.T) {
	best, others := choosePlan(&release.Artifact{Name: "app"}, siteView{chunkBytes: 7})
	if best.patch != nil || best.bytes != 7 || len(others) != 0 {
		t.Errorf("%+v, %+v", best, others)
	}
}
