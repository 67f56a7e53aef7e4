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

// TestRumorsOfOneMemberAreBounded: a member that invents holders has each passed on by everybody, so few are.
func TestRumorsOfOneMemberAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Swarm{start: time.Now(), kick: make(chan struct{}, 1), members: map[peer.ID]*member{}, targets: map[peer.ID]*target{"x": nil}, changed: make(chan struct{}),
			rumors: map[string]heard{}, lease: lease.New("self", 0)}
		for _, id := range []peer.ID{"liar", "honest", "other"} {
			s.members[id] = &member{id: id, controlWake: make(chan struct{}, 1)}
		}
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
