package swarm

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm/wire"
)

type namedConn struct {
	network.Conn
	name string
}

// TestWhichConnectionIsKept: of two with a peer, both sides keep the same; one on which nothing has come for long gives
// way to one that the peer dials, unless the peer still has it.
func TestWhichConnectionIsKept(t *testing.T) {
	const ours, theirs = true, false
	for _, c := range []struct {
		what    string
		old, at bool // who has dialled
		quiet   time.Duration
		lower   wire.Verdict // of the side with the lower ID
		higher  wire.Verdict
	}{
		{"dialled again", ours, ours, 0, wire.Admitted, wire.Admitted},
		{"dialled again by the peer", theirs, theirs, 0, wire.Admitted, wire.Admitted},
		{"both dialled", ours, theirs, 0, wire.Duplicate, wire.Admitted},
		{"both dialled", theirs, ours, 0, wire.Admitted, wire.Duplicate},
		{"lost by the peer", ours, theirs, time.Minute, wire.Admitted, wire.Admitted},
		{"dialled before that of the peer was up", theirs, ours, time.Minute, wire.Admitted, wire.Duplicate},
	} {
		for self, want := range map[peer.ID]wire.Verdict{"a": c.lower, "z": c.higher} {
			s := &Swarm{self: self, start: time.Now().Add(-time.Hour), members: map[peer.ID]*member{}}
			s.members["m"] = &member{id: "m", instance: 1, dialled: c.old, conn: namedConn{name: "old"}, heard: s.now() - c.quiet}
			if v := s.judge(&member{id: "m", instance: 1, dialled: c.at, conn: namedConn{name: "new"}}); v != want {
				t.Errorf("%s: device %q says %d, want %d", c.what, self, v, want)
			}
		}
	}
}
