package swarm_test

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// TestNewestAddressesAreDialled: where a peer was said to be before is not tried any more, however often that was said.
func TestNewestAddressesAreDialled(t *testing.T) {
	t.Parallel()
	a, b := start(t, nil), start(t, nil)
	for i := range 8 {
		ai := peer.AddrInfo{ID: b.host.ID()}
		for k := range 8 {
			ai.Addrs = append(ai.Addrs, multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.%d/tcp/%d", 2+i, 1+k)))
		}
		a.Connect(ai)
	}
	a.Connect(b.info())
	eventually(t, a, "a member", func() bool { return len(a.Members()) == 1 })
	for _, m := range a.host.Peerstore().Addrs(b.host.ID()) {
		if p, _ := m.ValueForProtocol(multiaddr.P_TCP); len(p) < 4 {
			t.Errorf("%s is still known", m)
		}
	}
}
