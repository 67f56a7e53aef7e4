package swarm_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
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

// TestAddressesThatHang: of a peer that is said to be in several places, nobody answers in the others.
func TestAddressesThatHang(t *testing.T) {
	t.Parallel()
	a, b := start(t, nil), start(t, nil)
	ai := peer.AddrInfo{ID: b.host.ID()}
	for i := range 7 {
		ai.Addrs = append(ai.Addrs, addrOf(t, mute(t, fmt.Sprintf("127.0.0.%d:0", 60+i))))
	}
	ai.Addrs = append(ai.Addrs, b.info().Addrs...)
	a.Connect(ai)
	eventually(t, a, "a member", func() bool { return len(a.Members()) == 1 })
}

// TestAddressesToldDuringADial: a peer that was not reached for long is tried where it is now as soon as nothing is to be
// expected any more of where it was.
func TestAddressesToldDuringADial(t *testing.T) {
	t.Parallel()
	a, b := start(t, nil), start(t, nil)
	for i := range 6 { // each at another place, since libp2p has a pause of its own for one that was tried
		before := mute(t, fmt.Sprintf("127.0.0.%d:0", 60+i))
		a.Connect(peer.AddrInfo{ID: b.host.ID(), Addrs: []multiaddr.Multiaddr{addrOf(t, before)}})
		c, err := before.Accept() // it is being tried
		if err != nil {
			t.Fatal(err)
		}
		if i == 5 {
			a.Connect(b.info())
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, a, "a member", func() bool { return len(a.Members()) == 1 })
}

// mute is where connections are not answered.
func mute(t *testing.T, at string) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

func addrOf(t *testing.T, l *net.TCPListener) multiaddr.Multiaddr {
	t.Helper()
	at, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestInventedPeersDelayNobody: who has the site's key, or had it, announces devices that do not exist, where nobody
// answers. One that does exist is a member soon all the same, and so is one that was a member before.
func TestInventedPeersDelayNobody(t *testing.T) {
	t.Parallel()
	a, old, young := start(t, nil), start(t, nil), start(t, nil)
	a.Connect(old.info())
	eventually(t, a, "a member", func() bool { return len(a.Members()) == 1 })
	at := addrOf(t, mute(t, "127.0.0.66:0"))
	for range 1000 {
		id, err := peer.IDFromPrivateKey(newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		a.Connect(peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{at}})
	}
	time.Sleep(time.Second) // the attempts have begun
	if err := a.host.Network().ClosePeer(old.host.ID()); err != nil {
		t.Fatal(err)
	}
	a.Connect(young.info())
	eventually(t, a, "both members", func() bool { return len(a.Members()) == 2 })
}
