package node

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
)

func TestTurns(t *testing.T) {
	var all []candidate
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"} {
		all = append(all, candidate{id: peer.ID(id), speed: 10})
	}
	ids := func(cs []candidate) string {
		s := ""
		for _, c := range cs {
			s += string(c.id)
		}
		return s
	}
	first := make(map[peer.ID]bool)
	for i := range 40 {
		cs := slices.Clone(all)
		order(cs, [32]byte{byte(i)})
		again := slices.Clone(all)
		slices.Reverse(again)
		order(again, [32]byte{byte(i)})
		if ids(cs) != ids(again) {
			t.Fatalf("devices disagree: %s, %s", ids(cs), ids(again))
		}
		first[cs[0].id] = true
		// Two of nine begin; the others wait, each longer than the one before.
		for at, c := range cs {
			if got, want := turn(cs, c.id), at-1; got != want {
				t.Errorf("device %d of 9 waits for %d, want %d", at, got, want)
			}
		}
	}
	if len(first) < 5 {
		t.Errorf("the work goes to the same devices: %v", first)
	}
	fast := slices.Clone(all)
	fast[4].speed, fast[5].speed, fast[6].working = 12, 11, true
	order(fast, [32]byte{1})
	if got := ids(fast[:3]); got != "gef" {
		t.Errorf("first %s, want those at work and then the fastest, gef", got)
	}
	if turn(nil, "x") <= 0 || turn(all[:1], "a") != 0 || turn(all[:3], "b") != 1 {
		t.Error("one device of a small site rebuilds, and who cannot never does")
	}
}

func TestSlow(t *testing.T) {
	for _, c := range []struct {
		size, work int64
		want       bool
	}{{1 << 30, 1 << 30, false}, {100 << 20, 1600 << 20, true}, {1 << 20, 16 << 20, false}, {100 << 20, 150 << 20, false}} {
		if got := isSlow(&release.Artifact{Size: c.size}, &release.Patch{Work: c.work}); got != c.want {
			t.Errorf("%d bytes of work for %d: slow %v", c.work, c.size, got)
		}
	}
}

func TestAble(t *testing.T) {
	q := &release.Patch{Base: [32]byte{1}, Sum: [32]byte{2}, Memory: 20}
	art := &release.Artifact{Sum: [32]byte{3}}
	p := &profile{Bases: [][32]byte{{1}}, Working: true, Plan: []planEntry{{Artifact: art.Sum, Patch: q.Sum}}}
	if !p.able(q) || !p.applies(art, q) {
		t.Error("a device with the base cannot apply the patch")
	}
	for name, change := range map[string]func(*profile){
		"without the base": func(p *profile) { p.Bases = nil },
		"where it failed":  func(p *profile) { p.Failed = [][32]byte{{2}} },
		"too small":        func(p *profile) { p.Memory = 19 },
	} {
		c := *p
		if change(&c); c.able(q) {
			t.Errorf("able: a device %s", name)
		}
	}
	for name, change := range map[string]func(*profile){
		"at rest":              func(p *profile) { p.Working = false },
		"with another plan":    func(p *profile) { p.Plan = []planEntry{{Artifact: art.Sum}} },
		"where it failed once": func(p *profile) { p.Failed = [][32]byte{{2}} },
	} {
		c := *p
		if change(&c); c.applies(art, q) {
			t.Errorf("applies it: a device %s", name)
		}
	}
}

func TestSpeed(t *testing.T) {
	if s := measureSpeed(); s < 8 || s > 40 {
		t.Errorf("class %d", s)
	}
}
