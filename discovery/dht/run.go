package dht

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"updraft/discovery"

	"github.com/ipfs/go-cid"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// adoptPoll is the pause between looks at the connections while joining.
const adoptPoll = 200 * time.Millisecond

// refreshEvery is how many searches share a refresh of the routing table, once
// the site is known.
const refreshEvery = 3

// burst are the first pauses between searches.
var burst = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute}

// Pauses between two times that the site is searched out of turn, doubled while that goes on: a
// node behind a flaky link, which comes again and again, must not cost much more than the turns do.
const (
	minAnew = 10 * time.Minute
	maxAnew = defaultFind
)

// run is the state of one Run; its goroutine owns it, but for what mu guards.
type run struct {
	cfg    Config
	node   *kad.IpfsDHT
	host   *gate
	self   func() peer.AddrInfo
	events chan<- discovery.Event

	mu   sync.Mutex            // guards held
	held map[peer.ID]time.Time // until when the word of a peer holds

	searches int
	anew     anew
	reached  map[peer.ID]bool // bootstrap nodes that were admitted when met looked last
	told     bool             // Report was called before
	alone    bool             // what it was told
}

// end closes the node and what is left of its streams.
func (r *run) end() {
	err := r.node.Close()
	r.host.close()
	if err != nil {
		r.cfg.Log.Debug("dht close", "err", err)
	}
}

// join dials bootstrap peers until the routing table has an entry. Where others found
// neighbours, it waits a moment for a bootstrap node besides: that is who knows other
// segments. It returns false when ctx has ended.
func (r *run) join(ctx context.Context) bool {
	wait := minDial
	for {
		r.dial(ctx)
		known := 0
		for end := time.Now().Add(wait); time.Now().Before(end); {
			if known = r.adopt(); known > 0 && (len(r.cfg.Bootstrap) == 0 || wait > minDial || r.met()) {
				break
			}
			select {
			case <-ctx.Done():
				return false
			case <-time.After(adoptPoll):
			}
		}
		if known > 0 {
			r.report(nil)
			return true
		}
		r.report(fmt.Errorf("%w: tried %d", ErrAlone, len(r.peers())))
		wait = min(2*wait, maxDial)
	}
}

// adopt brings the routing table in line with the connections and returns its
// size. The DHT looks at a peer when it connects, which is before its admission,
// and not again for a long while; and it keeps those whose admission has ended.
func (r *run) adopt() int {
	rt := r.node.RoutingTable()
	for _, p := range rt.ListPeers() {
		if !r.host.admitted(p) {
			rt.RemovePeer(p)
		}
	}
	for _, p := range r.cfg.Host.Network().Peers() {
		if rt.Find(p) != "" || !r.host.admitted(p) {
			continue
		}
		// Errors mean that the table has enough of that kind.
		if ok, err := r.cfg.Host.Peerstore().SupportsProtocols(p, Prefix+"/kad/1.0.0"); err == nil && len(ok) > 0 {
			_, err := rt.TryAddPeer(p, true, false)
			r.cfg.Log.Debug("dht node", "peer", p, "err", err)
		}
	}
	return rt.Size()
}

func (r *run) peers() []peer.AddrInfo {
	list := slices.Clone(r.cfg.Bootstrap)
	if r.cfg.Remembered != nil {
		list = append(list, r.cfg.Remembered()...)
	}
	return list
}

// dial connects to up to 8 bootstrap peers at a time, 32 in all, or tells who makes
// connections of them.
func (r *run) dial(ctx context.Context) {
	list := r.peers()
	if r.host.introduce != nil {
		for _, p := range list[:min(len(list), 32)] {
			r.tell(ctx, discovery.Event{Peer: p, TTL: introduced})
		}
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, 8)
	for _, p := range list[:min(len(list), 32)] {
		if p.ID == r.cfg.Host.ID() {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			if err := r.cfg.Host.Connect(ctx, p); err != nil {
				r.cfg.Log.Debug("dht bootstrap", "peer", p.ID, "err", err)
			}
		})
	}
}

// loop announces and searches in turn until ctx ends.
func (r *run) loop(ctx context.Context) {
	var provided time.Time
	var addrs []ma.Multiaddr
	watch := time.NewTicker(10 * time.Second)
	defer watch.Stop()
	search := time.NewTimer(0)
	defer search.Stop()
	for {
		now := sorted(r.self().Addrs)
		moved := !slices.EqualFunc(now, addrs, func(a, b ma.Multiaddr) bool { return a.Equal(b) })
		if r.node.RoutingTable().Size() > 0 && (moved || time.Since(provided) >= r.cfg.ProvideEvery) {
			if r.provide(ctx) {
				provided, addrs = time.Now(), now
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-search.C:
			r.find(ctx)
			search.Reset(r.nextSearch())
		case <-watch.C:
			if r.adopt() > 0 {
				r.report(nil)
			} else { // everybody has gone
				if !r.join(ctx) {
					return
				}
				r.anew.owed = true
			}
			if r.again(time.Now()) {
				provided = time.Time{}
				search.Reset(0)
			}
		}
	}
}

// again reports whether to say now who is here, and to see who is there: after everybody had gone, or
// when a bootstrap node has come, which is a way to another segment. The first time that begins the
// burst anew, one search must do where it goes on.
func (r *run) again(now time.Time) bool {
	r.anew.owed = r.met() || r.anew.owed
	if !r.anew.due(now) {
		return false
	}
	if r.anew.pause == minAnew {
		r.searches = 0
	}
	return true
}

// anew decides when the site is searched out of turn. The zero value is ready.
type anew struct {
	owed  bool      // there was reason to
	last  time.Time // when it was
	pause time.Duration
}

// due reports whether it is now: at once if it was not for long, else when the pause is over.
func (a *anew) due(now time.Time) bool {
	since := now.Sub(a.last)
	if !a.owed || since < a.pause {
		return false
	}
	if since >= 2*maxAnew {
		a.pause = 0
	}
	a.owed, a.last, a.pause = false, now, min(max(2*a.pause, minAnew), maxAnew)
	return true
}

// met reports whether a bootstrap node is admitted that was not when it was asked last.
func (r *run) met() bool {
	was, more := r.reached, false
	r.reached = make(map[peer.ID]bool)
	for _, p := range r.cfg.Bootstrap {
		if r.host.admitted(p.ID) {
			r.reached[p.ID] = true
			more = more || !was[p.ID]
		}
	}
	return more
}

// want asks for a connection with a peer, whatever was said of it before. From any goroutine.
func (r *run) want(ctx context.Context, p peer.AddrInfo) {
	r.tell(ctx, discovery.Event{Peer: p, TTL: introduced, Wanted: true})
}

// tell sends word of a peer, which holds for its TTL, or as long as an earlier one does; false
// when ctx has ended. Never of this device. From any goroutine.
func (r *run) tell(ctx context.Context, ev discovery.Event) bool {
	if ev.Peer.ID == r.cfg.Host.ID() {
		return true
	}
	ev.Source, ev.TTL = Name, r.hold(ev.Peer.ID, ev.TTL)
	select {
	case r.events <- ev:
		return true
	case <-ctx.Done():
		return false
	}
}

// hold notes that word of a peer is to hold for ttl, and returns for how long it does.
func (r *run) hold(id peer.ID, ttl time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if len(r.held) >= maxFound {
		maps.DeleteFunc(r.held, func(_ peer.ID, until time.Time) bool { return now.After(until) })
	}
	until := now.Add(ttl)
	if was := r.held[id]; was.After(until) {
		return was.Sub(now)
	}
	if len(r.held) < 2*maxFound {
		r.held[id] = until
	}
	return ttl
}

func (r *run) nextSearch() time.Duration {
	pause := r.cfg.FindEvery
	if r.searches < len(burst) {
		pause = min(pause, burst[r.searches])
	}
	r.searches++
	return jitter(pause)
}

// provide announces this device under the site's key.
func (r *run) provide(ctx context.Context) bool {
	if err := announce(ctx, r.node, siteCID(r.cfg.SiteKey)); err != nil {
		r.cfg.Log.Debug("dht provide", "err", err)
		return false
	}
	return true
}

// find searches once and sends what it finds, the bootstrap nodes first. An event
// holds for three pauses, so that a search that misses somebody changes nothing.
func (r *run) find(ctx context.Context) {
	ttl := 3*r.cfg.FindEvery + time.Minute
	for _, p := range r.cfg.Bootstrap {
		r.tell(ctx, discovery.Event{Peer: p, TTL: ttl})
	}
	r.adopt()
	if r.searches <= len(burst) || r.searches%refreshEvery == 0 {
		r.refresh(ctx)
	}
	found := 0
	err := search(ctx, r.node, siteCID(r.cfg.SiteKey), func(p peer.AddrInfo) bool {
		found++
		return r.tell(ctx, discovery.Event{Peer: p, TTL: ttl}) && found < maxFound
	})
	r.cfg.Log.Debug("dht search", "found", found, "nodes", r.node.RoutingTable().Size(), "err", err)
}

// refresh looks for nodes near this one and at every distance. The library would
// do so by itself, but every two minutes on a site of ten nodes or fewer, which
// costs more than everything else together.
func (r *run) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	select {
	case err := <-r.node.RefreshRoutingTable():
		r.cfg.Log.Debug("dht refresh", "nodes", r.node.RoutingTable().Size(), "err", err)
	case <-ctx.Done():
	}
}

func (r *run) report(err error) {
	if r.told && r.alone == (err != nil) {
		return
	}
	r.told, r.alone = true, err != nil
	r.cfg.Report(err)
}

func announce(ctx context.Context, node *kad.IpfsDHT, key cid.Cid) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if err := node.Provide(ctx, key, true); err != nil {
		return fmt.Errorf("dht: provide: %w", err)
	}
	return nil
}

// search calls fn for each provider with addresses, except this node, until fn
// returns false. It returns after the library's search has ended.
func search(ctx context.Context, node *kad.IpfsDHT, key cid.Cid, fn func(peer.AddrInfo) bool) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	more := true
	for p := range node.FindProvidersAsync(ctx, key, 0) {
		if !more || p.ID == node.PeerID() {
			continue
		}
		if p.Addrs = addresses(node.Host(), p); len(p.Addrs) == 0 {
			continue
		}
		if more = fn(p); !more {
			cancel() // and drain: the library blocks on its channel otherwise
		}
	}
	if more {
		return ctx.Err()
	}
	return nil
}

func sorted(a []ma.Multiaddr) []ma.Multiaddr {
	a = slices.Clone(a)
	slices.SortFunc(a, func(x, y ma.Multiaddr) int { return bytes.Compare(x.Bytes(), y.Bytes()) })
	return a
}
