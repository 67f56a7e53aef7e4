package dht_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"updraft/discovery"
	"updraft/discovery/dht"
	"updraft/testnet/leaks"

	"github.com/libp2p/go-libp2p"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// node is a host with a Source and what it has found.
type node struct {
	host host.Host
	src  *dht.Source
	bw   *metrics.BandwidthCounter
	stop func()

	mu    sync.Mutex // guards all below
	found map[peer.ID]discovery.Event
	errs  []error
}

func newHost(t testing.TB, opts ...libp2p.Option) host.Host {
	t.Helper()
	h, err := libp2p.New(append([]libp2p.Option{
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func start(t testing.TB, cfg dht.Config) *node {
	t.Helper()
	n := &node{found: make(map[peer.ID]discovery.Event)}
	if cfg.Host == nil {
		n.bw = metrics.NewBandwidthCounter()
		cfg.Host = newHost(t, libp2p.BandwidthReporter(n.bw))
	}
	n.host = cfg.Host
	cfg.Report = func(err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.errs = append(n.errs, err)
	}
	var err error
	if n.src, err = dht.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	events, ended := make(chan discovery.Event), make(chan struct{})
	go func() {
		defer close(ended)
		if err := n.src.Run(ctx, n.self, events); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	go func() {
		for {
			select {
			case ev := <-events:
				n.mu.Lock()
				n.found[ev.Peer.ID] = ev
				n.mu.Unlock()
			case <-ended:
				return
			}
		}
	}()
	n.stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(n.stop)
	return n
}

func (n *node) self() peer.AddrInfo { return peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()} }

func (n *node) knows(ids ...peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		if len(n.found[id].Peer.Addrs) == 0 {
			return false
		}
	}
	return true
}

func (n *node) state() (err error, told bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.errs) == 0 {
		return nil, false
	}
	return n.errs[len(n.errs)-1], true
}

func eventually(t testing.TB, what string, limit time.Duration, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

func key(n byte) (k [32]byte) { k[0] = n; return k }

// Eight devices that know only the first find each other, and nothing of another site
// that shares the DHT.
func TestSite(t *testing.T) {
	if testing.Short() {
		t.Skip("eight real hosts are left out by -short")
	}
	first := start(t, dht.Config{SiteKey: key(1), FindEvery: time.Second})
	boot := []peer.AddrInfo{first.self()}
	nodes := []*node{first}
	for range 7 {
		nodes = append(nodes, start(t, dht.Config{SiteKey: key(1), Bootstrap: boot, FindEvery: time.Second}))
	}
	other := start(t, dht.Config{SiteKey: key(2), Remembered: func() []peer.AddrInfo { return boot }, FindEvery: time.Second})
	began := time.Now()
	for i, n := range nodes {
		for j, o := range nodes {
			if i != j {
				eventually(t, fmt.Sprintf("%d knows %d", i, j), 60*time.Second, func() bool { return n.knows(o.host.ID()) })
			}
		}
	}
	t.Logf("all of 8 know each other after %v", time.Since(began))
	if err, told := first.state(); err != nil || !told {
		t.Errorf("state: %v, told %v", err, told)
	}
	for _, n := range nodes {
		if n.knows(other.host.ID()) || n.knows(n.host.ID()) {
			t.Error("knows another site's device, or itself")
		}
	}
	nodes[7].mu.Lock()
	if ev := nodes[7].found[first.host.ID()]; ev.TTL <= 0 || ev.Gone || ev.Source != "dht" {
		t.Errorf("event %+v", ev)
	}
	nodes[7].mu.Unlock()
}

// A device that starts before the bootstrap node says so, and joins when that
// comes up; a stopped Run leaves no goroutine and no handler behind.
func TestLateBootstrap(t *testing.T) {
	h := newHost(t)
	n := start(t, dht.Config{SiteKey: key(3), Bootstrap: []peer.AddrInfo{{ID: h.ID(), Addrs: h.Addrs()}}, FindEvery: time.Second})
	eventually(t, "reports that it is alone", 30*time.Second, func() bool { err, _ := n.state(); return errors.Is(err, dht.ErrAlone) })
	late := start(t, dht.Config{Host: h, SiteKey: key(3), FindEvery: time.Second})
	eventually(t, "both know each other", 60*time.Second, func() bool {
		return n.knows(late.host.ID()) && late.knows(n.host.ID())
	})
	if err, _ := n.state(); err != nil {
		t.Errorf("state: %v", err)
	}
	n.stop()
	late.stop()
	settled(t)
	for _, p := range h.Mux().Protocols() {
		if strings.HasPrefix(string(p), "/updraft/") {
			t.Errorf("handler left: %s", p)
		}
	}
}

// settled waits until no goroutine of the package or of the DHT is left.
func settled(t *testing.T) {
	t.Helper()
	if left := leaks.Left("discovery/dht.", "go-libp2p-kad-dht"); left != "" {
		t.Errorf("goroutines left:\n%s", left)
	}
}

// A peer that is not admitted is not served and not kept; once admitted it is.
func TestAdmission(t *testing.T) {
	var mu sync.Mutex
	open := false
	guarded := start(t, dht.Config{SiteKey: key(4), FindEvery: time.Second, Admitted: func(peer.ID) bool {
		mu.Lock()
		defer mu.Unlock()
		return open
	}})
	n := start(t, dht.Config{SiteKey: key(4), FindEvery: time.Second, Bootstrap: []peer.AddrInfo{guarded.self()}})
	eventually(t, "connected", 30*time.Second, func() bool { return len(guarded.host.Network().ConnsToPeer(n.host.ID())) > 0 })
	eventually(t, "says that it is alone", 30*time.Second, func() bool { err, _ := guarded.state(); return errors.Is(err, dht.ErrAlone) })
	if n.knows(guarded.host.ID()) || guarded.knows(n.host.ID()) {
		t.Error("knows a peer that was not admitted")
	}
	mu.Lock()
	open = true
	mu.Unlock()
	eventually(t, "both know each other", 90*time.Second, func() bool {
		return n.knows(guarded.host.ID()) && guarded.knows(n.host.ID())
	})
}

// admitters are nodes that admit each other where one of them has dialled, as a swarm does.
type admitters struct {
	nodes []*node

	mu    sync.Mutex // guards pairs
	pairs map[[2]peer.ID]bool
}

func (a *admitters) start(t *testing.T, bootstrap ...peer.AddrInfo) *node {
	h := newHost(t)
	n := start(t, dht.Config{Host: h, SiteKey: key(9), Bootstrap: bootstrap, Admitted: func(id peer.ID) bool { return a.admitted(h.ID(), id) }})
	a.nodes = append(a.nodes, n)
	return n
}

func (a *admitters) admitted(x, y peer.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pairs[[2]peer.ID{x, y}]
}

func (a *admitters) dial(t *testing.T, from *node, to peer.AddrInfo) {
	t.Helper()
	if err := from.host.Connect(t.Context(), to); err != nil {
		t.Errorf("dial: %v", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pairs[[2]peer.ID{from.host.ID(), to.ID}] = true
	a.pairs[[2]peer.ID{to.ID, from.host.ID()}] = true
}

// told dials whom the nodes have been told of.
func (a *admitters) told(t *testing.T) {
	for _, n := range a.nodes {
		n.mu.Lock()
		var to []peer.AddrInfo
		for _, ev := range n.found {
			to = append(to, ev.Peer)
		}
		n.mu.Unlock()
		for _, p := range to {
			if !a.admitted(n.host.ID(), p.ID) {
				a.dial(t, n, p)
			}
		}
	}
}

// Two segments whose devices know their neighbours already find each other through one that all know as a bootstrap
// node, though it is reached late. Nobody is spoken with but on connections that others have made.
func TestSegments(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("late ", late), func(t *testing.T) {
			if late && testing.Short() {
				t.Skip("waits for a search")
			}
			t.Parallel()
			a := &admitters{pairs: make(map[[2]peer.ID]bool)}
			first := a.start(t)
			neighbour := a.start(t, first.self())
			a.dial(t, neighbour, first.self())
			over := a.start(t, first.self())
			further := a.start(t, first.self())
			a.dial(t, further, over.self())
			if late {
				eventually(t, "neighbours know each other", 20*time.Second, func() bool {
					return over.knows(further.host.ID()) && further.knows(over.host.ID())
				})
			}
			eventually(t, "all know each other", time.Minute, func() bool {
				a.told(t)
				for _, n := range a.nodes {
					for _, m := range a.nodes {
						if n != m && !a.admitted(n.host.ID(), m.host.ID()) {
							return false
						}
					}
				}
				return true
			})
		})
	}
}

// What an hour of a settled site costs: a search, and a quarter of an
// announcement. The figures are printed; the package comment states them.
func TestTraffic(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("many real hosts are left out by -short")
	}
	var nodes []*kad.IpfsDHT
	var bw *metrics.BandwidthCounter // of the last
	for range 20 {
		bw = metrics.NewBandwidthCounter()
		n, err := dht.NewNode(dht.Config{Host: newHost(t, libp2p.BandwidthReporter(bw)), SiteKey: key(6)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		if nodes = append(nodes, n); len(nodes) > 1 {
			if err := n.Host().Connect(t.Context(), peer.AddrInfo{ID: nodes[0].PeerID(), Addrs: nodes[0].Host().Addrs()}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "knows the first", 20*time.Second, func() bool { return n.RoutingTable().Size() > 0 })
		}
		if err := dht.Announce(t.Context(), n, key(6)); err != nil && len(nodes) > 1 {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		if err := <-n.RefreshRoutingTable(); err != nil {
			t.Fatal(err)
		}
	}
	last := nodes[len(nodes)-1]
	measure := func(what string, do func() error) {
		time.Sleep(2 * time.Second) // totals are brought up to date every second
		before := bw.GetBandwidthTotals()
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		time.Sleep(2 * time.Second)
		after := bw.GetBandwidthTotals()
		t.Logf("%s among %d: %d bytes in, %d out", what, len(nodes), after.TotalIn-before.TotalIn, after.TotalOut-before.TotalOut)
	}
	measure("search", func() error {
		found := 0
		err := dht.Search(t.Context(), last, key(6), func(peer.AddrInfo) bool { found++; return true })
		if found < len(nodes)-2 { // the first knew nobody when it announced itself
			t.Errorf("found %d of %d", found, len(nodes)-1)
		}
		return err
	})
	measure("announcement", func() error { return dht.Announce(t.Context(), last, key(6)) })
}
