package swarm_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"updraft/swarm"
	"updraft/swarm/wire"
	"updraft/testnet/simhost"
)

// raw is a peer that speaks the protocol by hand.
type raw struct {
	t       *testing.T
	h       host.Host
	to      peer.ID
	control network.Stream
	r       *bufio.Reader
}

func (s *site) raw(to *device) *raw {
	s.t.Helper()
	h, err := s.net.Host(simhost.Link{}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := h.Connect(s.t.Context(), to.info()); err != nil {
		s.t.Fatal(err)
	}
	return &raw{t: s.t, h: h, to: to.host.ID()}
}

// join does the handshake.
func (p *raw) join() {
	p.t.Helper()
	p.open()
	p.send(wire.AppendHello(nil, wire.Hello{Version: 1, Instance: 9, Credential: []byte("fleet")}))
	if typ, _, err := wire.ReadFrame(p.r, wire.MaxHello, nil); err != nil || typ != wire.TypeHello {
		p.t.Fatalf("hello: type %d, %v", typ, err)
	}
	p.send(wire.AppendVerdict(nil, wire.Admitted))
}

func (p *raw) open() {
	p.t.Helper()
	st, err := p.h.NewStream(p.t.Context(), p.to, swarm.ProtoHello)
	if err != nil {
		p.t.Fatal(err)
	}
	p.control, p.r = st, bufio.NewReader(st)
}

func (p *raw) send(b []byte) {
	p.t.Helper()
	if _, err := p.control.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// cutOff reports whether the other side ends the connection within d.
func (p *raw) cutOff(d time.Duration) bool {
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		if p.h.Network().Connectedness(p.to) != network.Connected {
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}

// hostile runs f with one device of two, which both know c, and a raw peer.
func hostile(t *testing.T, f func(t *testing.T, s *site, c content, p *raw)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, nil)
		defer s.close()
		c := makeContent(11, 8, 32<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, nil)
		p := s.raw(s.dev[0])
		defer p.h.Close()
		f(t, s, c, p)
	})
}

func TestLyingPeerIsShunned(t *testing.T) {
	hostile(t, func(t *testing.T, s *site, c content, p *raw) {
		p.join()
		p.send(wire.AppendInterest(nil, wire.Interest{ID: c.ID, Count: 8, Flags: wire.FlagAll}))
		st, err := p.h.NewStream(t.Context(), p.to, swarm.ProtoBlob)
		if err != nil {
			t.Fatal(err)
		}
		b := wire.AppendBlobHeader(nil, wire.BlobHeader{ID: c.ID, Index: 3, Len: c.Sizes[3], Flags: wire.BlobRelay})
		if _, err := st.Write(append(b, make([]byte, c.Sizes[3])...)); err != nil {
			t.Fatal(err)
		}
		if !p.cutOff(5 * time.Second) {
			t.Error("a liar stays connected")
		}
		if cnt := s.dev[0].Counters(); cnt.BadBlobs != 1 || cnt.Shunned != 1 {
			t.Errorf("counters %+v", cnt)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_ = p.h.Connect(ctx, s.dev[0].info())
		time.Sleep(time.Second)
		if p.h.Network().Connectedness(p.to) == network.Connected && len(s.dev[0].Members()) > 1 {
			t.Error("a liar is admitted again")
		}
		// The blob comes from elsewhere.
		s.feed(c, 1, 0, 8, payload)
		s.finish(c)
	})
}

func TestStrangerIsClosed(t *testing.T) {
	hostile(t, func(t *testing.T, _ *site, _ content, p *raw) {
		if p.cutOff(5 * time.Second) {
			t.Error("closed before it could say hello")
		}
		if !p.cutOff(15 * time.Second) {
			t.Error("a connection without hello stays")
		}
	})
}

func TestNothingBeforeHello(t *testing.T) {
	hostile(t, func(t *testing.T, s *site, c content, p *raw) {
		for _, proto := range []protocol.ID{swarm.ProtoBlob, swarm.ProtoFile, swarm.ProtoCall} {
			st, err := p.h.NewStream(t.Context(), p.to, proto)
			if err != nil {
				continue
			}
			_, _ = st.Write(wire.AppendRequest(nil, "name", nil))
			if b, err := io.ReadAll(st); err == nil && len(b) > 0 {
				t.Errorf("%s answered %q to a stranger", proto, b)
			}
			_ = st.Reset()
		}
	})
}

func TestBrokenMessagesEndTheConnection(t *testing.T) {
	for name, msg := range map[string][]byte{
		"large frame":     binary.AppendUvarint(nil, wire.MaxFrame+1),
		"second hello":    wire.AppendHello(nil, wire.Hello{Version: 1}),
		"damaged message": wire.AppendFrame(nil, wire.TypeInterest, []byte("short")),
	} {
		t.Run(name, func(t *testing.T) {
			hostile(t, func(t *testing.T, s *site, _ content, p *raw) {
				p.join()
				p.send(msg)
				if !p.cutOff(5 * time.Second) {
					t.Error("stays connected")
				}
				if cnt := s.dev[0].Counters(); cnt.Shunned != 1 {
					t.Errorf("counters %+v", cnt)
				}
			})
		})
	}
}

func TestBrokenBlobsEndTheConnection(t *testing.T) {
	hostile(t, func(t *testing.T, _ *site, c content, p *raw) {
		p.join()
		st, err := p.h.NewStream(t.Context(), p.to, swarm.ProtoBlob)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = st.Write(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: c.ID, Index: 99, Len: 5}))
		if !p.cutOff(5 * time.Second) {
			t.Error("stays connected")
		}
	})
}

func TestJunkEndsTheConnection(t *testing.T) {
	hostile(t, func(t *testing.T, _ *site, _ content, p *raw) {
		p.join()
		st, err := p.h.NewStream(t.Context(), p.to, swarm.ProtoBlob)
		if err != nil {
			t.Fatal(err)
		}
		b := append(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: [32]byte{1}, Len: 1 << 20}), make([]byte, 1<<20)...)
		for range 40 {
			if _, err := st.Write(b); err != nil {
				return
			}
		}
		t.Error("40 MiB of junk were taken")
	})
}

func TestFloodOfObjectsIsBounded(t *testing.T) {
	hostile(t, func(t *testing.T, s *site, c content, p *raw) {
		p.join()
		go func() { _, _ = io.Copy(io.Discard, p.r) }()
		for i := range 6000 {
			var id [32]byte
			binary.LittleEndian.PutUint32(id[:], uint32(i))
			p.send(wire.AppendInterest(nil, wire.Interest{ID: id, Count: 64, Flags: wire.FlagReceive, Bits: make([]byte, 8)}))
			p.send(wire.AppendIndexes(nil, wire.TypeGet, id, []uint32{1, 2, 3}))
		}
		s.feed(c, 1, 0, 8, payload)
		s.finish(c)
	})
}

// TestPausedMember holds a member whose control stream takes nothing: it costs nothing and is dropped.
func TestPausedMember(t *testing.T) {
	hostile(t, func(t *testing.T, s *site, c content, p *raw) {
		p.join() // and never reads
		p.send(wire.AppendInterest(nil, wire.Interest{ID: c.ID, Count: 8, Flags: wire.FlagReceive, Bits: []byte{0}}))
		s.feed(c, 1, 0, 8, payload)
		s.finish(c)
		for k := range 400 {
			_ = s.dev[0].Announce(swarm.Profile{Node: make([]byte, 16<<10-k)})
			time.Sleep(100 * time.Millisecond)
		}
		if !p.cutOff(60 * time.Second) {
			t.Error("a peer that takes nothing stays a member")
		}
	})
}

func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, nil)
		defer s.close()
		c := makeContent(12, 64, 64<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, nil)
		for k := range 4 {
			s.feed(c, 0, k*16, (k+1)*16, payload)
			for _, conn := range s.dev[k%3].host.Network().Conns() {
				_ = conn.Close()
			}
		}
		s.finish(c)
		for _, d := range s.dev {
			eventually(t, d, "both members are back", func() bool { return len(d.Members()) == 2 })
		}
	})
}

// TestOneConnectionPerPair lets everybody dial everybody at once, again and again.
func TestOneConnectionPerPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 6, nil)
		defer s.close()
		for range 5 {
			for _, d := range s.dev {
				for _, conn := range d.host.Network().Conns() {
					_ = conn.Close()
				}
			}
			mesh(s.dev...)
			for _, d := range s.dev {
				eventually(t, d, "full mesh", func() bool { return len(d.Members()) == 5 })
			}
		}
		time.Sleep(3 * time.Second)
		for _, d := range s.dev {
			if n := len(d.host.Network().Conns()); n != 5 {
				t.Errorf("%d connections to 5 peers", n)
			}
			if n := len(d.Members()); n != 5 {
				t.Errorf("%d members of 5", n)
			}
		}
	})
}

// TestFloodOfMessagesIsSlow: what a member says faster than it can be of use waits in its own connection.
func TestFloodOfMessagesIsSlow(t *testing.T) {
	hostile(t, func(t *testing.T, s *site, c content, p *raw) {
		p.join()
		begin := time.Now()
		go func() {
			for range 300 {
				b := wire.AppendInterest(nil, wire.Interest{ID: [32]byte{5}, Count: wire.MaxBlobs, Flags: wire.FlagAll})
				if _, err := p.control.Write(b); err != nil {
					return
				}
			}
			_, _ = p.control.Write(wire.AppendFrame(nil, wire.TypePing, nil))
		}()
		s.feed(c, 1, 0, 8, payload)
		s.finish(c) // the others do not wait with it
		for {
			typ, _, err := wire.ReadFrame(p.r, wire.MaxFrame, nil)
			if err != nil {
				t.Fatal(err)
			}
			if typ == wire.TypePong {
				break
			}
		}
		if d := time.Since(begin); d < 10*time.Second || d > 30*time.Second {
			t.Errorf("300 messages about 65,536 blobs were read in %v", d)
		}
	})
}

// TestAnswersThatNobodyReadsAreBounded asks for what is not there, and takes no answer.
func TestAnswersThatNobodyReadsAreBounded(t *testing.T) {
	hostile(t, func(t *testing.T, s *site, c content, p *raw) {
		p.join()
		for k := range 100 { // until the stream is full
			_ = s.dev[0].Announce(swarm.Profile{Node: make([]byte, 16<<10-k)})
			time.Sleep(10 * time.Millisecond)
		}
		for range 2000 {
			p.send(wire.AppendIndexes(nil, wire.TypeGet, c.ID, []uint32{0, 1, 2, 3, 4, 5, 6, 7}))
		}
		time.Sleep(time.Second)
		if h := s.dev[0].Held(); h.Nacks == 0 || h.Nacks > 4096 {
			t.Errorf("kept %+v", h)
		}
	})
}

// TestWhoDoesNotDeliverIsAskedLess: holdings that are claimed and not sent cost less each time, also when the
// connection is made anew.
func TestWhoDoesNotDeliverIsAskedLess(t *testing.T) {
	hostile(t, func(t *testing.T, s *site, c content, p *raw) {
		claim := wire.AppendInterest(nil, wire.Interest{ID: c.ID, Count: 8, Flags: wire.FlagAll})
		p.join()
		p.send(claim)
		missing := 0
		for k := range 600 {
			if k == 300 {
				_ = p.h.Network().ClosePeer(p.to)
				time.Sleep(time.Second)
				if err := p.h.Connect(t.Context(), s.dev[0].info()); err != nil {
					t.Fatal(err)
				}
				p.join()
				p.send(claim)
			}
			p.send(wire.AppendFrame(nil, wire.TypePing, nil))
			time.Sleep(200 * time.Millisecond)
			if len(s.dev[0].Missing(c.ID)) > 0 {
				missing++
			}
		}
		if share := float64(missing) / 600; share < 0.8 {
			t.Errorf("the blobs counted as missing for %.2f of two minutes", share)
		}
	})
}

// TestStrangerIsToldNothing: who has not said hello learns nothing of a device, by libp2p's own protocols either, unless
// the host is to tell. Then it does not say what it runs.
func TestStrangerIsToldNothing(t *testing.T) {
	t.Parallel()
	told := func(h host.Host) (agent any, protos []protocol.ID) {
		b := start(t, nil)
		if err := b.host.Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); err != nil { // it asks, as libp2p does
			t.Fatal(err)
		}
		agent, _ = b.host.Peerstore().Get(h.ID(), "AgentVersion")
		protos, _ = b.host.Peerstore().GetProtocols(h.ID())
		return agent, protos
	}
	a := start(t, nil)
	if agent, protos := told(a.host); agent != nil || len(protos) > 0 {
		t.Errorf("told agent %v, protocols %v", agent, protos)
	}
	h, err := swarm.NewHost(swarm.HostConfig{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Identify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if agent, protos := told(h); agent != "updraft" || len(protos) == 0 {
		t.Errorf("with Identify: told agent %v, protocols %v", agent, protos)
	}
	ours := []protocol.ID{swarm.ProtoHello, swarm.ProtoBlob, swarm.ProtoFile, swarm.ProtoCall}
	for _, p := range a.host.Mux().Protocols() {
		if !slices.Contains(ours, p) {
			t.Errorf("a stranger may ask for %s", p)
		}
	}
}

// TestOneHelloOnAConnection: a stranger says hello many times over on one connection. One is looked at: each has a
// signature to be verified.
func TestOneHelloOnAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{t: t, net: simhost.New(200 * time.Microsecond)}
		defer s.close()
		var looks atomic.Int32
		d := s.add(simhost.Link{}, func(c *swarm.Config) {
			admit := c.Admit
			c.Admit = func(id peer.ID, cred []byte) (swarm.Identity, error) {
				looks.Add(1)
				return admit(id, cred)
			}
		})
		p := s.raw(d)
		defer p.h.Close()
		for range 20 {
			p.open()
			_, _ = p.control.Write(wire.AppendHello(nil, wire.Hello{Version: 1, Instance: 9, Credential: []byte("another fleet")}))
		}
		if !p.cutOff(5 * time.Second) {
			t.Error("it stays connected")
		}
		if n := looks.Load(); n != 1 {
			t.Errorf("%d hellos were looked at", n)
		}
	})
}

// TestSecondHelloOfAMember: it says hello once more on its connection, which goes on.
func TestSecondHelloOfAMember(t *testing.T) {
	hostile(t, func(t *testing.T, s *site, _ content, p *raw) {
		p.join()
		control := p.control
		for instance := range uint64(3) { // 0: as if it had been displaced before
			p.open()
			_, _ = p.control.Write(wire.AppendHello(nil, wire.Hello{Version: 1, Instance: instance, Credential: []byte("fleet")}))
			if _, _, err := wire.ReadFrame(p.r, wire.MaxHello, nil); err == nil {
				t.Errorf("hello with instance %d was answered", instance)
			}
		}
		if p.control = control; p.cutOff(5 * time.Second) {
			t.Error("the connection was closed")
		}
	})
}
