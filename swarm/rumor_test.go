package swarm

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm/lease"
	"updraft/swarm/wire"
)

// gossip is a device of a large site with these members.
func gossip(members ...peer.ID) *Swarm {
	s := &Swarm{start: time.Now(), kick: make(chan struct{}, 1), members: map[peer.ID]*member{}, targets: map[peer.ID]*target{"x": nil}, changed: make(chan struct{}),
		rumors: map[string]heard{}, lease: lease.New("self", 0)}
	for _, id := range members {
		s.members[id] = &member{id: id, controlWake: make(chan struct{}, 1)}
	}
	return s
}

// TestRumorsOfARestartedHolder: a holder that has started anew counts from the beginning. What it said before, or what
// somebody says in its name with an epoch that nobody can have got to, does not keep what it says now from going round.
func TestRumorsOfARestartedHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gossip("one", "other")
		say := func(epoch uint64, number uint32) int {
			s.rumorLocked(s.members["one"], wire.Rumor{Kind: wire.LeaseHeartbeat, Epoch: epoch, Number: number, Holder: "far"})
			defer func() { s.members["other"].rumors = nil }()
			return len(s.members["other"].rumors)
		}
		for _, x := range []struct {
			pause  time.Duration
			epoch  uint64
			number uint32
			passed int
		}{
			{0, 3, 2000, 1},
			{0, 3, 2000, 0},
			{time.Second, 3, 1999, 0},
			{0, 1 << 63, 1, 0},
			{time.Second, 3, 2001, 1},
			{5 * time.Second, 3, 1990, 0},
			{0, 1, 1, 1},
			{0, 1, 2, 1},
		} {
			time.Sleep(x.pause)
			if n := say(x.epoch, x.number); n != x.passed {
				t.Errorf("epoch %d, number %d: passed on to %d", x.epoch, x.number, n)
			}
		}
	})
}

// TestRumorsOfOneMemberAreBounded: a member that invents holders has each passed on by everybody, so few are.
func TestRumorsOfOneMemberAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gossip("liar", "honest", "other")
		passed, epoch := 0, uint64(0)
		say := func(from peer.ID, n int) {
			for range n {
				epoch++
				s.rumorLocked(s.members[from], wire.Rumor{Kind: wire.LeaseHeartbeat, Epoch: epoch, Number: 1, Holder: fmt.Sprint("invented", epoch)})
				passed += len(s.members["other"].rumors)
				s.members["other"].rumors = nil
			}
		}
		say("liar", 1000)
		if passed > rumorMost+1 {
			t.Errorf("%d of 1000 rumors are passed on", passed)
		}
		passed = 0
		if say("honest", 1); passed != 1 {
			t.Error("who said nothing before is not heard")
		}
		time.Sleep(time.Minute)
		passed = 0
		if say("liar", 10); passed != 10 || len(s.rumors) > rumorMost {
			t.Errorf("%d of 10 rumors are passed on after a minute; %d holders remembered", passed, len(s.rumors))
		}
	})
}
