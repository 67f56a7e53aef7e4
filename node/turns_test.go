package node

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
	"updraft/swarm"
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
		if got := isSlow(&release.Artifact{Size: c.size}, release.Way{{Patch: release.Patch{Work: c.work}}}); got != c.want {
			t.Errorf("%d bytes of work for %d: slow %v", c.work, c.size, got)
		}
	}
}

func TestAble(t *testing.T) {
	q := release.Way{{Patch: release.Patch{Base: [32]byte{1}, Sum: [32]byte{2}, Memory: 20}}}
	art := &release.Artifact{Sum: [32]byte{3}}
	p := &profile{Bases: [][32]byte{{1}}, Working: true, Plan: []planEntry{{Artifact: art.Sum, Way: q.Name()}}}
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

// TestAbleToGoAChain: that takes room for what lies on the way, and a program that knows
// chains, which tells of its room.
func TestAbleToGoAChain(t *testing.T) {
	w := release.Way{
		{Patch: release.Patch{Base: [32]byte{1}, Sum: [32]byte{2}, Size: 5, Memory: 20}, Target: [32]byte{3}, TargetSize: 100},
		{Patch: release.Patch{Base: [32]byte{3}, Sum: [32]byte{4}, Size: 6, Memory: 30}, Target: [32]byte{5}, TargetSize: 70},
		{Patch: release.Patch{Base: [32]byte{5}, Sum: [32]byte{6}, Size: 7, Memory: 10}, Target: [32]byte{7}, TargetSize: 1000},
	}
	p := &profile{Bases: [][32]byte{{1}}, Room: 188, Memory: 30}
	if !p.able(w) {
		t.Error("a device with base, memory and room cannot go the chain")
	}
	for name, change := range map[string]func(*profile){
		"that tells of no room":           func(p *profile) { p.Room = 0 },
		"with too little room":            func(p *profile) { p.Room = 187 },
		"too small for one of its steps":  func(p *profile) { p.Memory = 29 },
		"with what lies on the way alone": func(p *profile) { p.Bases = [][32]byte{{3}, {5}} },
		"where the second patch failed":   func(p *profile) { p.Failed = [][32]byte{{4}} },
	} {
		c := *p
		if change(&c); c.able(w) {
			t.Errorf("able: a device %s", name)
		}
	}
	if none := (&profile{Bases: [][32]byte{{5}}}); !none.able(w[2:]) {
		t.Error("a single patch asks for room")
	}
}

// TestWhoBringsChunksBesideAChain: an earlier program, but only where it could have the uplink
// and the release is for it.
func TestWhoBringsChunksBesideAChain(t *testing.T) {
	to := &target{m: &release.Manifest{Types: []string{"till"}}}
	for name, c := range map[string]struct {
		typ  string
		p    profile
		want bool
	}{
		"an earlier program": {"till", profile{V: 1, Uplink: uplinkOK}, true},
		"an earlier program that has not tried the origin":   {"till", profile{V: 1}, true},
		"an earlier program without a way to the origin":     {"till", profile{V: 1, Uplink: uplinkBad}, false},
		"an earlier program on a device of another type":     {"kiosk", profile{V: 1, Uplink: uplinkOK}, false},
		"a program that knows of chains and has no room":     {"till", profile{V: 1, Uplink: uplinkOK, Room: 1}, false},
		"a device that has said nothing of itself until now": {"till", profile{}, false},
	} {
		if got := (member{swarm.Member{Type: c.typ}, &c.p}).besides(to); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCoarse(t *testing.T) {
	for n, want := range map[int64]int64{-1: 0, 0: 0, 7: 7, 8: 8, 9: 8, 15: 14, 1<<40 + 5: 1 << 40, 1<<63 - 1: 7 << 60} {
		if got := coarse(n); got != want {
			t.Errorf("%d becomes %d, want %d", n, got, want)
		}
	}
}

func TestSpeed(t *testing.T) {
	if s := measureSpeed(); s < 8 || s > 40 {
		t.Errorf("class %d", s)
	}
}
