package dht

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"updraft/discovery"

	"github.com/libp2p/go-libp2p"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

func plainHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func pair(t *testing.T) (server, client host.Host) {
	t.Helper()
	server, client = plainHost(t), plainHost(t)
	if err := client.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// The key is part of the protocol: devices of other versions look it up.
func TestKey(t *testing.T) {
	var key [32]byte
	for i := range key {
		key[i] = byte(i)
	}
	// HMAC-SHA256(key, "dht")
	if got := hex.EncodeToString(siteCID(key).Hash()); got != "1220a48443db1b10bf2534bc158a55bd90084fc1b86b26aabdeddacc63fc941cdf60" {
		t.Error(got)
	}
	if s := siteCID(key).String(); s[:4] != "bafk" { // CIDv1, raw, sha2-256
		t.Errorf("CID %s", s)
	}
}

func TestReachable(t *testing.T) {
	parse := func(texts ...string) (out []ma.Multiaddr) {
		for _, s := range texts {
			a, err := ma.NewMultiaddr(s)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, a)
		}
		return out
	}
	mixed := parse("/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip6/::1/tcp/1")
	if got := reachable(mixed); len(got) != 1 || !got[0].Equal(mixed[1]) {
		t.Errorf("got %v", got)
	}
	if len(mixed) != 3 || mixed[0].String() != "/ip4/127.0.0.1/tcp/1" {
		t.Errorf("the argument was changed: %v", mixed)
	}
	if got := reachable(mixed[:1]); len(got) != 1 {
		t.Errorf("loopback only: %v", got)
	}
}

// A stream waits for its peer's admission; without it the stream is reset, and
// the handler never sees it.
func TestGateWaits(t *testing.T) {
	server, client := pair(t)
	var open atomic.Bool
	served := make(chan peer.ID, 10)
	g := newGate(server, func(peer.ID) bool { return open.Load() })
	g.SetStreamHandler("/test", func(s network.Stream) {
		served <- s.Conn().RemotePeer()
		s.Close()
	})
	// The peer is not admitted, and goes away before it is.
	s := stream(t, client)
	s.Write([]byte("x"))
	client.Network().ClosePeer(server.ID())
	if err := client.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}); err != nil {
		t.Fatal(err)
	}
	// It is admitted a moment after it opened a stream.
	s = stream(t, client)
	s.Write([]byte("x"))
	time.Sleep(2 * admitPoll)
	if len(served) > 0 {
		t.Fatal("served a stranger")
	}
	open.Store(true)
	if id := <-served; id != client.ID() {
		t.Errorf("served %v", id)
	}
	g.close()
}

func stream(t *testing.T, from host.Host) network.Stream {
	t.Helper()
	to := from.Network().Peers()[0]
	s, err := from.NewStream(t.Context(), to, "/test")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// close ends streams that are served and streams that wait, and serves no more.
func TestGateCloses(t *testing.T) {
	for _, admitted := range []bool{true, false} {
		t.Run(fmt.Sprint("admitted ", admitted), func(t *testing.T) {
			server, client := pair(t)
			g := newGate(server, func(peer.ID) bool { return admitted })
			began := make(chan bool, 1)
			var ended atomic.Bool
			g.SetStreamHandler("/test", func(s network.Stream) {
				began <- true
				io.Copy(io.Discard, s)
				ended.Store(true)
			})
			s := stream(t, client)
			s.Write([]byte("x"))
			if admitted {
				<-began
			} else {
				for g.load() == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			g.close()
			if ended.Load() != admitted || g.load() != 0 {
				t.Errorf("ended %v, waiting %d", ended.Load(), g.load())
			}
			if _, err := s.Read(make([]byte, 1)); err == nil {
				t.Error("the stream lives on")
			}
			if slices.Contains(server.Mux().Protocols(), "/test") {
				t.Error("the handler stays")
			}
			if g.open(nil) {
				t.Error("a closed gate opens")
			}
		})
	}
}

func (g *gate) load() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

func TestGateLimit(t *testing.T) {
	g := newGate(plainHost(t), func(peer.ID) bool { return false })
	for range maxWaiting {
		if !g.enter() {
			t.Fatal("full too early")
		}
	}
	if g.enter() || g.wait("stranger") {
		t.Error("more wait than the limit")
	}
	g.leave()
	if !g.enter() {
		t.Error("a place that was left stays taken")
	}
}

// Whom the library wants to speak with, others are asked to connect to, at once.
func TestWanted(t *testing.T) {
	h, other := plainHost(t), plainHost(t)
	src, err := New(Config{Host: h, Admitted: func(peer.ID) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan discovery.Event)
	r, err := src.begin(func() peer.AddrInfo { return peer.AddrInfo{ID: h.ID()} }, events)
	if err != nil {
		t.Fatal(err)
	}
	defer r.end()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { r.node.Host().Connect(ctx, peer.AddrInfo{ID: other.ID(), Addrs: other.Addrs()}) })
	if ev := <-events; ev.Peer.ID != other.ID() || len(ev.Peer.Addrs) == 0 || !ev.Wanted || ev.TTL <= 0 {
		t.Errorf("told %+v", ev)
	}
}

// adopt takes connected nodes in and puts those out whose admission has ended.
func TestAdopt(t *testing.T) {
	server, client := pair(t)
	other, err := kad.New(server, kad.ProtocolPrefix(Prefix), kad.Mode(kad.ModeServer), kad.DisableAutoRefresh())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	var open atomic.Bool
	src, err := New(Config{Host: client, Admitted: func(peer.ID) bool { return open.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	r, err := src.begin(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.end)
	if n := r.adopt(); n != 0 {
		t.Errorf("%d strangers adopted", n)
	}
	open.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for r.adopt() != 1 { // until the peer's protocols are known
		if ctx.Err() != nil {
			t.Fatal("an admitted node is not adopted")
		}
		time.Sleep(10 * time.Millisecond)
	}
	open.Store(false)
	if n := r.adopt(); n != 0 {
		t.Errorf("%d nodes kept after their admission ended", n)
	}
}

// A bootstrap node that has come has the site searched as at the start; one that comes again and
// again, only once in a while.
func TestComingAndGoing(t *testing.T) {
	here := map[peer.ID]bool{}
	r := &run{
		searches: 9,
		cfg:      Config{Bootstrap: []peer.AddrInfo{{ID: "a"}, {ID: "b"}}},
		host:     newGate(nil, func(id peer.ID) bool { return here[id] }),
	}
	now := time.Now()
	look := func(id peer.ID, is bool) bool {
		now = now.Add(10 * time.Second)
		here[id] = is
		return r.again(now)
	}
	if look("a", false) || !look("a", true) || look("a", true) || r.searches != 0 {
		t.Error("not anew when a node comes, and then only")
	}
	r.searches = 9
	began, last := now, now
	for _, want := range []int{10, 20, 40, 80, 120, 120} {
		for n := 0; !look("a", n%2 == 0); n++ {
			if n > 1000 {
				t.Fatal("not anew again")
			}
		}
		if pause := now.Sub(last).Round(time.Minute); pause != time.Duration(want)*time.Minute {
			t.Errorf("anew %v after the start, %v after the last time, not %d min", now.Sub(began), pause, want)
		}
		last = now
	}
	if r.searches != 9 {
		t.Errorf("%d searches counted: the burst begins while a node comes and goes", r.searches)
	}
	// One that comes before the time is not forgotten.
	if look("b", true) {
		t.Error("anew before the pause is over")
	}
	for last = now; !look("b", true); {
		if now.Sub(last) > 2*maxAnew {
			t.Fatal("the search for who is behind a node is forgotten")
		}
	}
	now = now.Add(2 * maxAnew)
	look("a", false)
	if !look("a", true) || r.searches != 0 {
		t.Error("not at once after four quiet hours")
	}
	look("a", false)
	now = now.Add(minAnew)
	if !look("a", true) {
		t.Error("the pause stays as long as it was")
	}
}

func TestSearchPauses(t *testing.T) {
	r := &run{cfg: Config{FindEvery: defaultFind}}
	for i, want := range []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 2 * time.Hour, 2 * time.Hour} {
		if got := r.nextSearch(); got < want || got > want*3/2 {
			t.Errorf("pause %d: %v, want %v to %v", i, got, want, want*3/2)
		}
	}
	r = &run{cfg: Config{FindEvery: time.Second}}
	if got := r.nextSearch(); got > 1500*time.Millisecond {
		t.Errorf("pause %v", got)
	}
}
