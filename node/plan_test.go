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
		name   string
		held   []byte          // bases on the site
		failed string          // versions whose patch is unusable
		left   map[byte]int64  // bytes of patches still missing, where not all
		chunks int64           // bytes by chunks
		want   string          // version of the patch, "" for chunks
		bytes  int64           // over the uplink
		others map[string]bool // part of each other way's reason
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
	} {
		art := &release.Artifact{Name: "app", Patches: patches}
		best, others := choosePlan(art,
			func(b [32]byte) bool { return strings.IndexByte(string(c.held), b[0]) >= 0 },
			func(p *release.Patch) bool { return !strings.Contains(c.failed, p.BaseVersion) },
			func(p *release.Patch) int64 {
				if n, ok := c.left[p.Base[0]]; ok {
					return n
				}
				return p.Size
			}, c.chunks)
		got := ""
		if best.patch != nil {
			got = best.patch.BaseVersion
		}
		if got != c.want || best.bytes != c.bytes {
			t.Errorf("%s: patch from %q, %d bytes; want %q, %d", c.name, got, best.bytes, c.want, c.bytes)
		}
		if len(others) != len(patches) {
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
	none := func([32]byte) bool { return false }
	best, others := choosePlan(&release.Artifact{Name: "app"}, none, nil, nil, 7)
	if best.patch != nil || best.bytes != 7 || len(others) != 0 {
		t.Errorf("%+v, %+v", best, others)
	}
}
