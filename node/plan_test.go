package node

import (
	"strings"
	"testing"

	"updraft/delta/release"
)

func TestChoosePlan(t *testing.T) {
	base := func(b byte) [32]byte { return [32]byte{b} }
	patches := []release.Patch{
		{Base: base(1), BaseVersion: "1.0", Size: 500, Sum: base(11)},
		{Base: base(2), BaseVersion: "2.0", Size: 300, Sum: base(12)},
		{Base: base(3), BaseVersion: "3.0", Size: 100, Sum: base(13)},
	}
	steps := []release.Step{
		{Patch: release.Patch{Base: base(8), BaseVersion: "0.8", Size: 40, Sum: base(18)}, Target: base(2), TargetSize: 7000},
		{Patch: release.Patch{Base: base(7), BaseVersion: "0.7", Size: 30, Sum: base(17)}, Target: base(8), TargetSize: 6000},
	}
	for _, c := range []struct {
		name     string
		held     []byte         // bases on the site, of devices that can go what starts there
		unaware  string         // device that knows of no chains
		cramped  string         // bases of devices that cannot
		complete string         // device that has it all
		working  string         // version whose patch is being applied
		failed   string         // versions whose patch is unusable
		left     map[byte]int64 // bytes of patches still missing, where not all
		steps    []release.Step
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
		{name: "the only base needs a chain", held: []byte{7}, steps: steps, chunks: 1000, want: "0.7", bytes: 370,
			others: map[string]bool{"app: chain of 3 patches from 0.7 by 0.8, 2.0, 370 bytes, and 13000 bytes written on the way that are not kept": true,
				"2.0 (300 bytes) not possible: no device of the site holds its base": true}},
		{name: "an earlier program on the site", held: []byte{1, 7}, unaware: "till-5", steps: steps, chunks: 1000, want: "1.0", bytes: 500,
			others: map[string]bool{"chain of 3 patches from 0.7 by 0.8, 2.0 (370 bytes) not possible: the program of till-5 knows of no chains": true}},
		{name: "an earlier program comes while a chain is applied", held: []byte{7}, unaware: "till-5", working: "0.7", steps: steps, chunks: 10, want: "0.7", bytes: 370},
		{name: "no room for a chain", cramped: "\x07\x08", steps: steps, chunks: 1000, bytes: 1000, others: map[string]bool{
			"chain of 3 patches from 0.7 by 0.8, 2.0 (370 bytes) not possible: no device with its base has memory and 13370 bytes of room": true,
			"chain of 2 patches from 0.8 by 2.0 (340 bytes) not possible: no device with its base has memory and 7340 bytes of room":       true}},
		{name: "a patch is cheaper than a chain", held: []byte{2, 7, 8}, steps: steps, chunks: 1000, want: "2.0", bytes: 300, others: map[string]bool{"from 0.7 by 0.8, 2.0, 370 bytes": true}},
		{name: "a chain is cheaper than a patch", held: []byte{1, 8}, steps: steps, chunks: 1000, want: "0.8", bytes: 340, others: map[string]bool{"patch from 1.0, 500 bytes": true}},
		{name: "chunks are cheaper than a chain", held: []byte{7, 8}, steps: steps, chunks: 300, bytes: 300, others: map[string]bool{"0.8 by 2.0, 340 bytes, and 7000 bytes written": true}},
		{name: "most of a chain is there", held: []byte{2, 7}, steps: steps, left: map[byte]int64{7: 12}, chunks: 1000, want: "0.7", bytes: 12},
		{name: "a chain failed", held: []byte{7}, steps: steps, failed: "0.7", chunks: 1000, bytes: 1000, others: map[string]bool{"(370 bytes) not possible: it failed here": true}},
		{name: "a chain is being applied", held: []byte{3, 7}, steps: steps, working: "0.7", chunks: 1000, want: "0.7", bytes: 370, others: map[string]bool{"2.0, which till-3 is applying, 370 bytes": true}},
	} {
		art := &release.Artifact{Name: "app", Sum: base(99), Patches: patches}
		ways := release.Ways(art, c.steps)
		best, others := choosePlan(art, siteView{
			complete: c.complete,
			ways:     ways,
			unaware:  c.unaware,
			based:    func(w release.Way) bool { return strings.IndexByte(string(c.held)+c.cramped, w.Base()[0]) >= 0 },
			held:     func(w release.Way) bool { return strings.IndexByte(string(c.held), w.Base()[0]) >= 0 },
			usable:   func(w release.Way) bool { return !strings.Contains(c.failed, w.BaseVersion()) },
			rebuilding: func(w release.Way) string {
				if w.BaseVersion() == c.working {
					return "till-3"
				}
				return ""
			},
			wayBytes: func(w release.Way) int64 {
				if n, ok := c.left[w.Base()[0]]; ok {
					return n
				}
				return w.Size()
			}, chunkBytes: c.chunks})
		if best.none != (c.complete != "") {
			t.Errorf("%s: nothing to bring: %v", c.name, best.none)
		}
		got := ""
		if best.way != nil {
			got = best.way.BaseVersion()
		}
		if got != c.want || best.bytes != c.bytes {
			t.Errorf("%s: patch from %q, %d bytes; want %q, %d", c.name, got, best.bytes, c.want, c.bytes)
		}
		want := 0
		for _, w := range ways {
			if len(w) == 1 || strings.IndexByte(string(c.held)+c.cramped, w.Base()[0]) >= 0 {
				want++ // chains from bases that nobody has are not spoken of
			}
		}
		if len(others) != want && c.complete == "" || c.complete != "" && len(others) != want+1 {
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
	if best.way != nil || best.bytes != 7 || !best.about || !strings.Contains(best.why, "about 7 bytes") || !strings.Contains(best.why, "until its index is here") || len(others) != 0 {
		t.Errorf("%+v, %+v", best, others)
	}
	if best, _ = choosePlan(&release.Artifact{Name: "app"}, siteView{chunkBytes: 7, indexed: true}); !best.about || strings.Contains(best.why, "index") {
		t.Errorf("with an index: %+v", best)
	}
	if best, _ = choosePlan(&release.Artifact{Name: "app"}, siteView{}); best.about || strings.Contains(best.why, "about") {
		t.Errorf("nothing to bring: %+v", best)
	}
}

// TestPackedSize: what chunks cost is told in proportion, and never as more than they
// are themselves.
func TestPackedSize(t *testing.T) {
	m := &release.Manifest{Artifacts: []release.Artifact{{Size: 600}, {Size: 400}}, Packs: []release.Pack{{Size: 300}, {Size: 100}}}
	if got := packedSize(m, 600); got < 239 || got > 240 {
		t.Errorf("%d bytes", got)
	}
	m.Packs = append(m.Packs, release.Pack{Size: 5000}) // of earlier releases
	if got := packedSize(m, 600); got != 600 {
		t.Errorf("%d bytes, more than the artifact has", got)
	}
}
