package swarm_test

import (
	"bufio"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sys/unix"

	"updraft/swarm"
	"updraft/swarm/wire"
	"updraft/testnet/simhost"
)

// detour forwards TCP connections to a host until it is shut: then nothing passes any more, neither bytes nor the end of
// a connection, as on a LAN that is split. It holds few bytes: who sends faster than they pass has to wait.
type detour struct {
	l    net.Listener
	to   string
	shut atomic.Bool
	rate atomic.Int64 // bytes a second each way; 0: all that come
	wg   sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

func newDetour(t *testing.T, to host.Host) *detour {
	t.Helper()
	a, err := manet.ToNetAddr(to.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	few := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10) }); e != nil {
			return e
		}
		return err
	}}
	l, err := few.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &detour{l: l, to: a.String()}
	d.wg.Go(d.accept)
	t.Cleanup(d.close)
	return d
}

func (d *detour) addr(t *testing.T) multiaddr.Multiaddr {
	t.Helper()
	a, err := manet.FromNetAddr(d.l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (d *detour) accept() {
	for {
		a, err := d.l.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", d.to)
		if err != nil {
			a.Close()
			continue
		}
		d.mu.Lock()
		d.conns = append(d.conns, a, b)
		d.mu.Unlock()
		d.wg.Go(func() { d.pass(a, b) })
		d.wg.Go(func() { d.pass(b, a) })
	}
}

func (d *detour) pass(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		part := len(buf)
		if r := d.rate.Load(); r > 0 {
			part = int(r / 8)
			time.Sleep(time.Second / 8)
		}
		n, err := from.Read(buf[:part])
		if !d.shut.Load() {
			_, _ = to.Write(buf[:n])
			if err != nil {
				to.Close()
			}
		}
		if err != nil {
			return
		}
	}
}

func (d *detour) close() {
	d.l.Close()
	d.mu.Lock()
	for _, c := range d.conns {
		c.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

// TestHalfOpenConnectionGivesWay: the device with the lower ID has dialled the other. The LAN is split, the other ends the
// connection, and its word of that is lost. When it dials after the split, it is let in.
func TestHalfOpenConnectionGivesWay(t *testing.T) {
	type hosted struct {
		h host.Host
		g *swarm.Gate
	}
	make1 := func() hosted {
		g := new(swarm.Gate)
		h, err := swarm.NewHost(swarm.HostConfig{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Gate: g})
		if err != nil {
			t.Fatal(err)
		}
		return hosted{h, g}
	}
	lower, higher := make1(), make1()
	if lower.h.ID() > higher.h.ID() {
		lower, higher = higher, lower
	}
	d, p := startOn(t, lower.h, lower.g, nil), startOn(t, higher.h, higher.g, nil)
	way := newDetour(t, p.host)
	d.Connect(peer.AddrInfo{ID: p.host.ID(), Addrs: []multiaddr.Multiaddr{way.addr(t)}})
	eventually(t, d, "members", func() bool { return len(d.Members()) == 1 && len(p.Members()) == 1 })
	since := d.Members()[0].Since

	way.shut.Store(true)
	if err := p.host.Network().ClosePeer(d.host.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, p, "alone", func() bool { return len(p.Members()) == 0 })
	d.Age(time.Minute)
	if m := d.Members(); len(m) != 1 || !m[0].Since.Equal(since) {
		t.Fatalf("the split was noticed: %v", m)
	}
	p.Connect(d.info())
	eventually(t, p, "members again", func() bool { m := d.Members(); return len(p.Members()) == 1 && len(m) == 1 && m[0].Since.After(since) })
	eventually(t, d, "the dead connection is closed", func() bool { return len(d.host.Network().Conns()) == 1 && len(p.host.Network().Conns()) == 1 })
}

// here returns a device on this machine.
func here(t *testing.T) *device {
	t.Helper()
	g := new(swarm.Gate)
	h, err := swarm.NewHost(swarm.HostConfig{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Gate: g})
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, h, g, nil)
}

// TestRecheck: of two idle members one is no longer there, without a word. When the network of this device has changed, it is
// dropped, and let in again by a new connection; the other one is not touched.
func TestRecheck(t *testing.T) {
	t.Parallel()
	d, near, far := here(t), here(t), here(t)
	way := newDetour(t, far.host)
	d.Connect(near.info())
	d.Connect(peer.AddrInfo{ID: far.host.ID(), Addrs: []multiaddr.Multiaddr{way.addr(t)}})
	eventually(t, d, "members", func() bool { return len(d.Members()) == 2 })
	joined := func(of *device) (at time.Time) {
		for _, m := range d.Members() {
			if m.ID == of.host.ID() {
				at = m.Since
			}
		}
		return at
	}
	nearAt, farAt := joined(near), joined(far)
	d.Recheck()
	time.Sleep(1500 * time.Millisecond) // longer than a sign of life may take
	if joined(near) != nearAt || joined(far) != farAt {
		t.Fatal("members that are there were dropped")
	}
	way.shut.Store(true)
	d.Recheck()
	eventually(t, d, "the one that is gone is dropped", func() bool { return joined(far).IsZero() })
	d.Connect(far.info())
	eventually(t, d, "it is let in again", func() bool { return joined(far).After(farAt) })
	if joined(near) != nearAt {
		t.Error("the one that was there all the time was dropped")
	}
}

// TestRecheckAfterACut: nothing came through for a while, on a connection that both sides keep: either waits for seconds
// before it repeats what was lost. When the network is there again the member is let in by a new connection at once.
func TestRecheckAfterACut(t *testing.T) {
	t.Parallel()
	d, p := here(t), here(t)
	if d.host.ID() < p.host.ID() {
		d, p = p, d // which is to dial, if the network is as it was before
	}
	d.Connect(p.info())
	eventually(t, d, "members", func() bool { return len(d.Members()) == 1 && len(p.Members()) == 1 })
	since := d.Members()[0].Since
	if err := d.Deafen(true); err != nil {
		t.Fatal(err)
	}
	if err := d.Announce(swarm.Profile{Node: []byte("more")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, d, "the kernel waits", func() bool { return d.Unacked() > 2100*time.Millisecond })
	if len(d.Members()) != 1 {
		t.Fatal("the cut was noticed")
	}
	if err := d.Deafen(false); err != nil {
		t.Fatal(err)
	}
	if d.Recheck(); len(d.Members()) != 0 {
		t.Error("a connection on which everything waits is kept")
	}
	if wait := d.DialIn(p.host.ID()); wait > 500*time.Millisecond {
		t.Errorf("it is dialled in %v", wait)
	}
	eventually(t, p, "members again", func() bool { m := d.Members(); return len(m) == 1 && m[0].Since.After(since) && len(p.Members()) == 1 })
	if d.Heard() {
		t.Error("a member that was let in anew is one that was there all the time")
	}
}

// TestRecheckDuringACut: the network changes twice before anybody can be reached again, as when a cable is in first and an
// address comes later. Both times this device may have been cut off.
func TestRecheckDuringACut(t *testing.T) {
	t.Parallel()
	d, p := here(t), here(t)
	d.Connect(p.info())
	eventually(t, d, "members", func() bool { return len(d.Members()) == 1 && len(p.Members()) == 1 })
	if err := d.Deafen(true); err != nil {
		t.Fatal(err)
	}
	if err := p.host.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Announce(swarm.Profile{Node: []byte("more")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, d, "the kernel waits", func() bool { return d.Unacked() > 2100*time.Millisecond })
	if !d.Recheck() || len(d.Members()) != 0 {
		t.Fatal("a member of which nothing came is there")
	}
	if !d.Recheck() {
		t.Error("nobody has been heard of since, and the site may be back now")
	}
	if d.Recheck() {
		t.Error("nobody was given up since the last change")
	}
}

// TestRecheckOfASlowMember: the network of either device changes while one sends the other a blob over a slow link. The
// question for a sign of life waits behind that blob; nobody is dropped for it.
func TestRecheckOfASlowMember(t *testing.T) {
	t.Parallel()
	seed, slow := here(t), here(t)
	way := newDetour(t, slow.host)
	seed.Connect(peer.AddrInfo{ID: slow.host.ID(), Addrs: []multiaddr.Multiaddr{way.addr(t)}})
	eventually(t, seed, "members", func() bool { return len(seed.Members()) == 1 && len(slow.Members()) == 1 })
	since := seed.Members()[0].Since
	way.rate.Store(16 << 10)
	c := makeContent(1, 2, 256<<10)
	b := c.empty()
	for d, b := range map[*device]*memory{seed: c.full(), slow: b} {
		if err := d.Open(c.Object, b, swarm.OpenOptions{Receive: true}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, slow, "bytes come", func() bool { return slow.Counters().Flow > 0 })
	for _, d := range []*device{seed, slow} {
		d.Recheck()
		time.Sleep(1500 * time.Millisecond) // longer than a sign of life may take
	}
	if m := seed.Members(); len(m) != 1 || m[0].Since != since {
		t.Error("a member that is only slow was dropped")
	}
	way.rate.Store(0)
	if err := slow.Wait(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
	check(t, c, b)
}

// TestRecheckTellsOfASplit: a change of the network is one that may have cut the device off if members were there since the
// last, and have been quiet for a while. If they were there all the time, they say so.
func TestRecheckTellsOfASplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, nil)
		defer s.close()
		lone := s.add(simhost.Link{}, nil)
		time.Sleep(time.Minute)
		if lone.Recheck() {
			t.Error("a device that never had a member was cut off")
		}
		one := s.dev[0]
		if !one.Recheck() {
			t.Error("members were quiet for a minute, which may have been a split")
		}
		if time.Sleep(200 * time.Millisecond); !one.Heard() {
			t.Error("a member that is there has not said so")
		}
		if one.Recheck() {
			t.Error("a member has just been heard of")
		}
		time.Sleep(time.Minute)
		s.net.Cut([]peer.ID{one.host.ID()})
		if !one.Recheck() {
			t.Error("a split was not told of")
		}
		time.Sleep(5 * time.Second)
		if one.Heard() || !one.Recheck() {
			t.Error("that the split is over may be what has changed: members were given up in it")
		}
		time.Sleep(5 * time.Second)
		if one.Heard() || one.Recheck() {
			t.Error("nobody was there since the last change")
		}
	})
}

// TestDuplicateIsNotDialledOverAndOver: a peer keeps a connection of which nothing is known here.
func TestDuplicateIsNotDialledOverAndOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, nil)
		defer s.close()
		h, err := s.net.Host(simhost.Link{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		var hellos atomic.Int32
		h.SetStreamHandler(swarm.ProtoHello, func(st network.Stream) {
			hellos.Add(1)
			_, _, _ = wire.ReadFrame(bufio.NewReader(st), wire.MaxHello, nil)
			_, _ = st.Write(wire.AppendVerdict(nil, wire.Duplicate))
			_ = st.Close()
		})
		s.dev[0].Connect(peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
		time.Sleep(2 * time.Minute)
		if n := hellos.Load(); n < 4 || n > 12 {
			t.Errorf("dialled %d times in two minutes", n)
		}
	})
}
