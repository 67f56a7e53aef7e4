package swarm

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// TestLimitsLetASiteIn opens the connections of a whole site behind one prefix: the defaults of libp2p refuse them,
// and never show it on loopback.
func TestLimitsLetASiteIn(t *testing.T) {
	for _, pattern := range []string{
		"/ip6/fd00::%x/tcp/4001", "/ip6/fe80::%x/tcp/4001", "/ip4/192.168.1.%d/tcp/4001", "/ip4/10.0.0.%d/tcp/4001", "/ip6/2001:db8::%x/tcp/4001",
	} {
		rm, err := newResourceManager(false)
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i <= 60; i++ {
			c, err := rm.OpenConnection(network.DirInbound, true, multiaddr.StringCast(fmt.Sprintf(pattern, i)))
			if err != nil {
				t.Fatalf("%s, connection %d: %v", pattern, i, err)
			}
			if err := c.SetPeer(peer.ID(fmt.Sprint("peer", i))); err != nil {
				t.Fatalf("%s, peer %d: %v", pattern, i, err)
			}
			for range 4 {
				s, err := rm.OpenStream(peer.ID(fmt.Sprint("peer", i)), network.DirInbound)
				if err != nil {
					t.Fatalf("%s, stream of peer %d: %v", pattern, i, err)
				}
				if err := s.SetProtocol(ProtoBlob); err != nil {
					t.Fatalf("%s, protocol of peer %d: %v", pattern, i, err)
				}
			}
		}
		rm.Close()
	}
}

func TestLimitsEnd(t *testing.T) {
	rm, err := newResourceManager(false)
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	n := 0
	for i := range 1000 {
		if _, err := rm.OpenConnection(network.DirInbound, true, multiaddr.StringCast(fmt.Sprintf("/ip4/10.0.%d.%d/tcp/4001", i/250, i%250+1))); err != nil {
			break
		}
		n++
	}
	if n < 96 || n > 192 {
		t.Errorf("%d connections were let in", n)
	}
}

// TestOneAddressTakesNotAll: a stranger with a thousand connections leaves room for the site, whatever its address.
func TestOneAddressTakesNotAll(t *testing.T) {
	for _, addr := range []string{"/ip4/192.168.1.66/tcp/%d", "/ip4/203.0.113.9/tcp/%d", "/ip6/fe80::66/tcp/%d", "/ip6/fd00::66/tcp/%d", "/ip6/2001:db8::66/tcp/%d"} {
		rm, err := newResourceManager(false)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for i := 1; i <= 1000; i++ {
			if _, err := rm.OpenConnection(network.DirInbound, true, multiaddr.StringCast(fmt.Sprintf(addr, i))); err == nil {
				n++
			}
		}
		if n != perAddress {
			t.Errorf("%s has %d connections", addr, n)
		}
		for i := 1; i <= 60; i++ {
			if _, err := rm.OpenConnection(network.DirInbound, true, multiaddr.StringCast(fmt.Sprintf("/ip4/192.168.1.%d/tcp/4001", 100+i))); err != nil {
				t.Fatalf("%s: device %d: %v", addr, i, err)
			}
		}
		rm.Close()
	}
}

// TestHandshakesOfOneAddressAreFew: who opens and closes connections all the time is let in a few times a second only.
func TestHandshakesOfOneAddressAreFew(t *testing.T) {
	for pattern, least := range map[string]int{"/ip4/192.168.1.66/tcp/%d": handshakes.Burst, "/ip6/fe80::66/tcp/%d": handshakes.Burst, "/ip4/127.0.0.1/tcp/%d": 1000} {
		synctest.Test(t, func(t *testing.T) {
			rm, err := newResourceManager(false)
			if err != nil {
				t.Fatal(err)
			}
			defer rm.Close()
			open := func() (n int) {
				for i := 1; i <= 1000; i++ {
					if c, err := rm.OpenConnection(network.DirInbound, true, multiaddr.StringCast(fmt.Sprintf(pattern, i))); err == nil {
						c.Done()
						n++
					}
				}
				return n
			}
			if n := open(); n != least {
				t.Errorf("%s is let in %d times at once, want %d", pattern, n, least)
			}
			time.Sleep(10 * time.Second)
			if n, want := open(), min(least, int(10*handshakes.RPS)); least < 1000 && n != want {
				t.Errorf("%s is let in %d times after 10 s, want %d", pattern, n, want)
			}
			if _, err := rm.OpenConnection(network.DirInbound, true, multiaddr.StringCast("/ip4/192.168.1.7/tcp/4001")); err != nil {
				t.Errorf("another: %v", err)
			}
		})
	}
}

// TestHandshakesOfManyAddressesAreFew: a machine that opens connections from 250 addresses all the time is let in a few
// times a second only. A site that starts at once is let in before, and a device of it afterwards.
func TestHandshakesOfManyAddressesAreFew(t *testing.T) {
	for gateway, site := range map[bool]int{false: 200, true: 500} {
		synctest.Test(t, func(t *testing.T) {
			rm, err := newResourceManager(gateway)
			if err != nil {
				t.Fatal(err)
			}
			defer rm.Close()
			room := inbound(connections(gateway))
			l := lanListener{rm: rm, rush: newRush(room)}
			open := func(pattern string, from, n int) (in int) {
				for i := range n {
					if c := l.letIn(multiaddr.StringCast(fmt.Sprintf(pattern, from+i))); c != nil {
						c.Done()
						in++
					}
				}
				return in
			}
			const device, stranger = "/ip6/fd00::%x/tcp/4001", "/ip6/fe80::%x/tcp/4001"
			for range 2 { // a site that starts, and starts once more
				if n := open(device, 1, site); n != site {
					t.Fatalf("gateway %v: %d of %d devices are let in", gateway, n, site)
				}
			}
			const seconds = 30
			in := 0
			for s := range seconds {
				in += open(stranger, 1, 250) + open(stranger, 1, 250)
				if n := open(device, 1000+s, 1); n != 1 {
					t.Errorf("gateway %v: a new device is not let in", gateway)
				}
				time.Sleep(time.Second)
			}
			if most := 2*room + seconds*rushRate + 250*int(seconds*time.Second/rushPause); in > most {
				t.Errorf("gateway %v: strangers are let in %d times, want at most %d", gateway, in, most)
			}
			if n := open("/ip6/2001:db8::%x/tcp/4001", 1, 4*rushKnown); n != 4*rushKnown || len(l.rush.last) > rushKnown {
				t.Errorf("gateway %v: %d are let in and %d known of %d addresses", gateway, n, len(l.rush.last), 4*rushKnown)
			}
		})
	}
}

func TestGate(t *testing.T) {
	var g Gate
	if g.Shunned("a") {
		t.Error("the zero gate refuses")
	}
	if d := g.Shun("a", time.Minute); d != time.Minute {
		t.Errorf("first time %v", d)
	}
	if d := g.Shun("a", time.Minute); d != 2*time.Minute {
		t.Errorf("second time %v", d)
	}
	if !g.Shunned("a") || g.InterceptPeerDial("a") || g.InterceptSecured(network.DirInbound, "a", nil) || !g.InterceptPeerDial("b") {
		t.Error("a shunned peer passes, or another does not")
	}
	for i := range 3 * shunEntries {
		g.Shun(peer.ID(fmt.Sprint(i)), time.Minute)
	}
	if len(g.m) > shunEntries {
		t.Errorf("%d entries", len(g.m))
	}
}

// TestShunsEndAndAreForgotten: a shun lasts a day at most, and what a peer did long ago
// does not count for ever.
func TestShunsEndAndAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		shun := func(want time.Duration) {
			t.Helper()
			if d := g.Shun("a", 10*time.Minute); d != want {
				t.Errorf("shunned for %v, want %v", d, want)
			}
			time.Sleep(want - time.Second)
			if !g.Shunned("a") {
				t.Errorf("not shunned for %v", want)
			}
			time.Sleep(time.Second)
			if g.Shunned("a") {
				t.Errorf("shunned for longer than %v", want)
			}
		}
		for want := 10 * time.Minute; want < 24*time.Hour; want *= 2 {
			shun(want)
		}
		for range 20 {
			shun(24 * time.Hour)
		}
		time.Sleep(23 * time.Hour)
		shun(24 * time.Hour) // a liar that is good for less than a day gains nothing
		time.Sleep(2 * 24 * time.Hour)
		shun(640 * time.Minute)
		time.Sleep(4 * 24 * time.Hour)
		shun(80 * time.Minute)
		time.Sleep(365 * 24 * time.Hour)
		shun(10 * time.Minute)
		shun(20 * time.Minute)
	})
}

func TestBitmap(t *testing.T) {
	b := newBitmap(130)
	for _, i := range []int{0, 63, 64, 129} {
		if !b.set(i) || b.set(i) {
			t.Errorf("set %d", i)
		}
	}
	var got []int
	for i := b.next(0); i >= 0; i = b.next(i + 1) {
		got = append(got, i)
	}
	if fmt.Sprint(got) != "[0 63 64 129]" || b.count() != 4 {
		t.Errorf("members %v, count %d", got, b.count())
	}
	if c := bitmapFrom(b.appendBytes(nil, 130), 130); fmt.Sprint(c) != fmt.Sprint(b) {
		t.Errorf("wire form: %v, want %v", c, b)
	}
	if !b.clear(64) || b.clear(64) || b.has(64) || bitmap(nil).has(3) || bitmap(nil).clear(3) || bitmap(nil).next(0) != -1 {
		t.Error("clear, or the nil bitmap")
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c cache
	for i := range 100 {
		f := newBuffer(100 << 10)
		c.add(blobKey{i: uint32(i)}, f)
		f.release()
	}
	if c.size > cacheBytes || len(c.m) != len(c.order) {
		t.Errorf("%d bytes, %d entries, %d in order", c.size, len(c.m), len(c.order))
	}
	if c.get(blobKey{i: 0}) != nil {
		t.Error("the oldest is still there")
	}
	f := c.get(blobKey{i: 99})
	if f == nil {
		t.Fatal("the latest is not there")
	}
	c.drop(blobKey{i: 99})
	c.clear()
	if f.refs.Load() != 1 || c.size != 0 {
		t.Errorf("%d references, %d bytes", f.refs.Load(), c.size)
	}
	f.release()
}

// TestRoomForAFullHouse: as many members as there may be have a control stream and a blob stream in either direction, for
// each of which yamux reserves a window with this priority.
func TestRoomForAFullHouse(t *testing.T) {
	for gateway, members := range map[bool]int{false: DefaultMaxPeers, true: GatewayMaxPeers} {
		rm, err := newResourceManager(gateway)
		if err != nil {
			t.Fatal(err)
		}
		for i := range members {
			c, err := rm.OpenConnection(network.DirInbound, true, multiaddr.StringCast(fmt.Sprintf("/ip4/10.0.%d.%d/tcp/4001", i/250, i%250+1)))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.SetPeer(peer.ID(fmt.Sprint("peer", i))); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				span, err := c.PeerScope().BeginSpan()
				if err != nil {
					t.Fatal(err)
				}
				if err := span.ReserveMemory(streamMemory, network.ReservationPriorityAlways); err != nil {
					t.Fatalf("gateway %v: member %d of %d: %v", gateway, i+1, members, err)
				}
			}
		}
		if err := rm.Close(); err != nil {
			t.Error(err)
		}
	}
}
