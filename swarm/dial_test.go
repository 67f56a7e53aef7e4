package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	p2pswarm "github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"updraft/swarm"
	"updraft/testnet/simhost"
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

// dialHost is a host that counts its dials, and refuses them while it is told to, as a machine does on which no agent runs.
type dialHost struct {
	host.Host
	dials  atomic.Int64
	refuse atomic.Bool
	hold   atomic.Pointer[chan struct{}] // dials wait until it is closed
}

// addDialHost is add on a fast link, with a dialHost.
func (s *site) addDialHost() (*device, *dialHost) {
	h := new(dialHost)
	d := s.add(simhost.Link{Down: lan, Up: lan}, func(c *swarm.Config) {
		h.Host = c.Host
		c.Host = h
	})
	return d, h
}

func (h *dialHost) Network() network.Network { return dialNetwork{h.Host.Network(), h} }

type dialNetwork struct {
	network.Network
	h *dialHost
}

func (n dialNetwork) DialPeer(ctx context.Context, id peer.ID) (network.Conn, error) {
	n.h.dials.Add(1)
	refuse := n.h.refuse.Load()
	if hold := n.h.hold.Load(); hold != nil {
		<-*hold
	}
	if refuse {
		return nil, errors.New("connection refused")
	}
	return n.Network.DialPeer(ctx, id)
}

// TestMembersAreBackAfterASplit: one device of three was cut off for minutes or an hour, so that nobody is a member any
// more. When its cable is plugged in again it knows the others before it uses the uplink; and if nothing tells it that
// they can be reached again, within seconds, as long as it wants the uplink.
func TestMembersAreBackAfterASplit(t *testing.T) {
	for k, x := range []struct {
		cut, most time.Duration
		told      bool
	}{
		{47 * time.Second, 1500 * time.Millisecond, true},
		{9 * time.Minute, 1500 * time.Millisecond, true},
		{70 * time.Minute, 1500 * time.Millisecond, true},
		{47 * time.Second, 5 * time.Second, false},
		{9 * time.Minute, 5 * time.Second, false},
		{70 * time.Minute, 5 * time.Second, false},
	} {
		t.Run(fmt.Sprint(x.cut, x.told), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 3, nil)
				defer s.close()
				s.open(makeContent(1, 4, 16<<10), swarm.OpenOptions{Receive: true}, nil) // so that the split is noticed
				one := s.dev[k%3]
				s.net.Cut([]peer.ID{one.host.ID()})
				time.Sleep(x.cut)
				if n := len(one.Members()); n > 0 {
					t.Fatalf("%d members in the split", n)
				}
				if x.told {
					s.net.Cut()
					one.Recheck()
				} else {
					lease, err := one.Acquire(t.Context(), swarm.AcquireOptions{})
					if err != nil {
						t.Fatal(err)
					}
					defer lease.Release()
					time.Sleep(13 * time.Second)
					s.net.Cut()
				}
				begin := time.Now()
				eventually(t, one, "all members", func() bool { return len(one.Members()) == 2 })
				if d := time.Since(begin); d > x.most {
					t.Errorf("known again after %v", d)
				}
			})
		})
	}
}

// TestEvictedPeerIsNotDialledForAMinute: the device that had dialled it does not do so at once, as it does when a
// connection is lost, even one that it was long in making.
func TestEvictedPeerIsNotDialledForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 0, nil)
		defer s.close()
		one, h := s.addDialHost()
		other := s.add(simhost.Link{Down: lan, Up: lan}, nil)
		one.Connect(other.info())
		joins := func() { eventually(t, one, "a member", func() bool { return len(one.Members()) == 1 }) }
		leaves := func() {
			t.Helper()
			if err := h.Host.Network().ClosePeer(other.host.ID()); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			eventually(t, one, "none", func() bool { return len(one.Members()) == 0 })
			joins()
			if d := time.Since(begin); d > 2*time.Second {
				t.Errorf("a connection that was lost is made again after %v", d)
			}
		}
		joins()
		leaves()
		before := h.dials.Load()
		one.Evict(other.host.ID())
		time.Sleep(59 * time.Second)
		if n := h.dials.Load() - before; n != 0 || len(one.Members()) != 0 {
			t.Errorf("evicted, and dialled %d times in a minute", n)
		}
		time.Sleep(2 * time.Second)
		joins()

		h.refuse.Store(true)
		if err := h.Host.Network().ClosePeer(other.host.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Minute) // by then dials are a minute apart, but for haste
		h.refuse.Store(false)
		lease, err := one.Acquire(t.Context(), swarm.AcquireOptions{})
		if err != nil {
			t.Fatal(err)
		}
		joins()
		lease.Release()
		leaves()
	})
}

// TestMembersThatAreOffAreDialledSparingly: a device that wants the uplink looks in haste for members that it lacks: no
// more often for two dozen that are switched off, and less where others look, too.
func TestMembersThatAreOffAreDialledSparingly(t *testing.T) {
	for _, x := range []struct {
		others int
		most   float64 // dials per second
	}{{0, 5}, {3, 2}} {
		t.Run(fmt.Sprint(x.others, " others"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 0, nil)
				defer s.close()
				one, h := s.addDialHost()
				for range 24 + x.others {
					one.Connect(s.add(simhost.Link{Down: lan, Up: lan}, nil).info())
				}
				eventually(t, one, "members", func() bool { return len(one.Members()) == 24+x.others })
				var off []peer.ID
				for _, d := range s.dev[1:25] {
					off = append(off, d.host.ID())
				}
				s.net.Cut(off)
				h.refuse.Store(true)
				lease, err := one.Acquire(t.Context(), swarm.AcquireOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer lease.Release()
				time.Sleep(3 * time.Minute) // by then dials are a minute apart, but for haste
				if n := len(one.Members()); n != x.others {
					t.Fatalf("%d members", n)
				}
				before := h.dials.Load()
				time.Sleep(time.Minute)
				rate := float64(h.dials.Load()-before) / 60
				if rate > x.most {
					t.Errorf("%.1f dials per second", rate)
				}
				h.refuse.Store(false)
				s.net.Cut(off[12:])
				eventually(t, one, "those that are back are members", func() bool { return len(one.Members()) == x.others+12 })
			})
		})
	}
}

// TestNoDialIsRefusedForFailuresOfOthers: on a LAN with global IPv6 addresses a hundred dials have failed, as in a split. The
// next ones are made all the same.
func TestNoDialIsRefusedForFailuresOfOthers(t *testing.T) {
	t.Parallel()
	h, err := swarm.NewHost(swarm.HostConfig{Key: newKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for err == nil { // until no more are allowed, so that no dial gets as far as the network of this machine
		_, err = h.Network().ResourceManager().OpenConnection(network.DirOutbound, true, multiaddr.StringCast("/ip4/127.0.0.1/tcp/9"))
	}
	for k := range 120 {
		id, err := peer.IDFromPrivateKey(newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		h.Peerstore().AddAddr(id, multiaddr.StringCast(fmt.Sprintf("/ip6/3ffe::%x/tcp/9", k+1)), peerstore.TempAddrTTL)
		if _, err = h.Network().DialPeer(t.Context(), id); err == nil || errors.Is(err, p2pswarm.ErrDialRefusedBlackHole) {
			t.Fatalf("dial %d: %v", k, err)
		}
	}
}

// TestTwins: two devices with one key, as of a copied card, do not take turns for ever, and are told of.
func TestTwins(t *testing.T) {
	key := newKey(t)
	var mu sync.Mutex
	admits, twins := 0, 0
	third := start(t, func(c *swarm.Config) {
		c.Admit = func(peer.ID, []byte) (swarm.Identity, error) {
			mu.Lock()
			defer mu.Unlock()
			admits++
			return swarm.Identity{Name: "x"}, nil
		}
		c.Blamed = func(_ peer.ID, _ swarm.Identity, why error, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(why, swarm.ErrTwin) {
				twins++
			}
		}
	})
	var ds []*device
	for range 2 {
		gate := new(swarm.Gate)
		h, err := swarm.NewHost(swarm.HostConfig{Key: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Gate: gate})
		if err != nil {
			t.Fatal(err)
		}
		d := startOn(t, h, gate, nil)
		d.Connect(third.info())
		third.Connect(d.info())
		ds = append(ds, d)
	}
	time.Sleep(8 * time.Second) // 3 or 4 attempts with a pause that doubles, 40 without
	mu.Lock()
	if admits > 15 || twins == 0 {
		t.Errorf("%d handshakes, told of %d times", admits, twins)
	}
	mu.Unlock()
	for k, d := range ds {
		if len(d.Members()) == 1 {
			d.close()
			eventually(t, ds[1-k], "the other", func() bool { return len(ds[1-k].Members()) == 1 })
			return
		}
	}
	t.Error("neither is connected")
}

// TestForgottenMemberIsDialled: when multicast has stopped to work, discovery forgets everybody; members whose connection
// ends after that find each other again. Who is gone for a day is forgotten, and who never was a member at once.
func TestForgottenMemberIsDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, nil)
		defer s.close()
		a, b := s.dev[0], s.dev[1]
		a.Forget(b.host.ID())
		b.Forget(a.host.ID())
		time.Sleep(time.Minute)
		if err := a.host.Network().ClosePeer(b.host.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if n := len(a.Members()); n != 1 {
			t.Errorf("%d members after the connection has ended", n)
		}
		b.close()
		time.Sleep(23 * time.Hour)
		if n := a.Held().Targets; n != 1 {
			t.Errorf("%d peers are remembered", n)
		}
		time.Sleep(2 * time.Hour)
		stranger := peer.AddrInfo{ID: "stranger", Addrs: b.info().Addrs}
		a.Connect(stranger)
		a.Forget(stranger.ID)
		if n := a.Held().Targets; n != 0 {
			t.Errorf("%d peers are remembered for ever", n)
		}
	})
}

// TestForgottenDuringADial: nothing tells of a peer any more while it is dialled for the first time, and then something
// does again. It is not dialled a second time meanwhile, which would be on the same connection; and it is forgotten after
// that dial if nothing tells of it.
func TestForgottenDuringADial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, nil)
		defer s.close()
		d, h := s.addDialHost()
		hold := make(chan struct{})
		h.hold.Store(&hold)
		for i, told := range []bool{true, false} {
			to := s.dev[i].info()
			d.Connect(to)
			time.Sleep(2 * time.Second)
			d.Forget(to.ID)
			if told {
				d.Connect(to)
			}
		}
		time.Sleep(2 * time.Second)
		if n := h.dials.Load(); n != 2 {
			t.Errorf("%d dials", n)
		}
		h.refuse.Store(true) // what is dialled from now on
		close(hold)
		eventually(t, d, "members", func() bool { return len(d.Members()) == 2 })
		time.Sleep(time.Minute)
		if n := len(d.Members()); n != 2 {
			t.Errorf("%d members", n)
		}
	})
}

// TestForgottenAndOutOfReach: what is dialled for the first time is forgotten when that is over, if nothing tells of it.
func TestForgottenAndOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, nil)
		defer s.close()
		d, h := s.addDialHost()
		hold := make(chan struct{})
		h.hold.Store(&hold)
		h.refuse.Store(true)
		d.Connect(s.dev[0].info())
		time.Sleep(2 * time.Second)
		d.Forget(s.dev[0].host.ID())
		if n := d.Held().Targets; n != 1 {
			t.Errorf("%d peers are dialled", n)
		}
		close(hold)
		time.Sleep(time.Second)
		if n := d.Held().Targets; n != 0 {
			t.Errorf("%d peers are remembered", n)
		}
	})
}
