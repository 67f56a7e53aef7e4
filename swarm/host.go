package swarm

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	p2pswarm "github.com/libp2p/go-libp2p/p2p/net/swarm"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/x/rate"
	"github.com/multiformats/go-multiaddr"
)

// HostConfig is what NewHost needs.
type HostConfig struct {
	Key     crypto.PrivKey
	Listen  []string // multiaddrs; empty: does not listen
	Gateway bool     // room for 512 connections instead of 192
	Gate    *Gate    // refuses shunned peers early; nil: none

	// Identify has the host tell whoever connects of its protocols and all its addresses, by libp2p's identify. Only a DHT
	// needs that.
	Identify bool
}

// NewHost returns a host that speaks TCP, TLS 1.3 and yamux, and nothing else, with limits fixed by its role.
// The caller closes it. It is assembled here since package libp2p would add 9 MB of other transports to the program.
func NewHost(c HostConfig) (host.Host, error) {
	if c.Key == nil {
		return nil, errors.New("swarm: host needs a key")
	}
	id, err := peer.IDFromPrivateKey(c.Key)
	if err != nil {
		return nil, fmt.Errorf("swarm: peer ID: %w", err)
	}
	ps, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, fmt.Errorf("swarm: peerstore: %w", err)
	}
	if err := errors.Join(ps.AddPrivKey(id, c.Key), ps.AddPubKey(id, c.Key.GetPublic())); err != nil {
		return nil, errors.Join(err, ps.Close())
	}
	rm, err := newResourceManager(c.Gateway)
	if err != nil {
		return nil, errors.Join(err, ps.Close())
	}
	var gater connmgr.ConnectionGater
	if c.Gate != nil {
		gater = c.Gate
	}
	bus := eventbus.NewBus()
	opts := []p2pswarm.Option{
		p2pswarm.WithResourceManager(rm), p2pswarm.WithDialTimeout(10 * time.Second),
		// After a hundred dials that failed, as in a split, libp2p would take the network for one that does not pass IPv6.
		p2pswarm.WithIPv6BlackHoleSuccessCounter(nil), p2pswarm.WithUDPBlackHoleSuccessCounter(nil),
	}
	if gater != nil {
		opts = append(opts, p2pswarm.WithConnectionGater(gater))
	}
	net, err := p2pswarm.NewSwarm(id, ps, bus, opts...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("swarm: network: %w", err), rm.Close(), ps.Close())
	}
	h, err := assemble(c, id, net, rm, gater, bus)
	if err != nil {
		return nil, errors.Join(err, net.Close(), rm.Close(), ps.Close())
	}
	return h, nil
}

// assemble puts transport and host on top of net; the host owns it, the resource manager and the peerstore.
func assemble(c HostConfig, id peer.ID, net *p2pswarm.Swarm, rm network.ResourceManager, gater connmgr.ConnectionGater, bus event.Bus) (host.Host, error) {
	y := *yamux.DefaultTransport
	y.MaxStreamWindowSize = 1 << 20
	y.MaxMessageSize = muxMessage
	y.ConnectionWriteTimeout = 60 * time.Second
	y.EnableKeepAlive = false // the swarm asks when it matters, and TCP now and then
	y.MeasureRTTInterval = time.Hour
	mux := []tptu.StreamMuxer{{ID: yamux.ID, Muxer: bulkMuxer{&y}}}
	st, err := tls.New(tls.ID, c.Key, mux)
	if err != nil {
		return nil, fmt.Errorf("swarm: tls: %w", err)
	}
	up, err := tptu.New([]sec.SecureTransport{bulkSecurity{st}}, mux, nil, rm, gater)
	if err != nil {
		return nil, fmt.Errorf("swarm: upgrader: %w", err)
	}
	most := connections(c.Gateway)
	if err := net.AddTransport(&lanTransport{up, rm, &guests{most: inbound(most) - most/16}, newRush(inbound(most))}); err != nil {
		return nil, fmt.Errorf("swarm: tcp: %w", err)
	}
	addrs := make([]multiaddr.Multiaddr, 0, len(c.Listen))
	for _, a := range c.Listen {
		m, err := multiaddr.NewMultiaddr(a)
		if err != nil {
			return nil, fmt.Errorf("swarm: listen address %q: %w", a, err)
		}
		addrs = append(addrs, m)
	}
	if len(addrs) > 0 {
		if err := net.Listen(addrs...); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrListen, err)
		}
	}
	h, err := basichost.NewHost(net, &basichost.HostOpts{EventBus: bus, UserAgent: "updraft"})
	if err != nil {
		return nil, fmt.Errorf("swarm: host: %w", err)
	}
	h.Start()
	if !c.Identify {
		h.RemoveStreamHandler(identify.ID)
		h.RemoveStreamHandler(identify.IDPush)
		_ = h.IDService().Close() // which would tell of changes unasked
	}
	return h, nil
}

// perAddress is how many connections one address may have, so that a stranger does not take all there are. A device of
// the site needs one; several may run on a machine.
const perAddress = 48

// handshakes is how fast one address may open connections: each may cost a handshake, which is 10 ms and more of a small
// board's time. All that a machine may have, twice over, are opened at once.
var handshakes = rate.Limit{RPS: 4, Burst: 2 * perAddress}

// unlimited are the addresses of this device, from which any number of connections may be opened.
func unlimited() []rate.PrefixLimit {
	return []rate.PrefixLimit{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")}}
}

// connections is how many a host may have, those not established included.
func connections(gateway bool) int {
	if gateway {
		return 512
	}
	return 192
}

// inbound is how many of so many connections may have come in: more than there are members.
func inbound(conns int) int { return conns * 3 / 4 }

// A member keeps a control stream and a blob stream in either direction, and asks now and then. The multiplexer reserves
// a window for each as it begins: memory that is used only while somebody sends what is not read.
const (
	streamsEach  = 4
	streamMemory = 256 << 10 // yamux's initial window
)

// newResourceManager returns fixed limits, by address and not by prefix: the defaults take a whole site behind one IPv6
// prefix for one attacker.
func newResourceManager(gateway bool) (network.ResourceManager, error) {
	conns := connections(gateway)
	memory := int64(conns) * streamsEach * streamMemory
	l := rcmgr.ResourceLimits{
		Streams: rcmgr.LimitVal(conns * 8), StreamsInbound: rcmgr.LimitVal(conns * 4), StreamsOutbound: rcmgr.LimitVal(conns * 4),
		Conns: rcmgr.LimitVal(conns), ConnsInbound: rcmgr.LimitVal(inbound(conns)), ConnsOutbound: rcmgr.LimitVal(conns * 3 / 4),
		FD: rcmgr.LimitVal(conns), Memory: rcmgr.LimitVal64(memory),
	}
	early := l // streams that have not said their protocol: soon, or never
	early.Memory = rcmgr.LimitVal64(memory / 4)
	one := rcmgr.ResourceLimits{
		Streams: 96, StreamsInbound: 64, StreamsOutbound: 64, Conns: 8, ConnsInbound: 6, ConnsOutbound: 6, FD: 8, Memory: 8 << 20,
	}
	cfg := rcmgr.PartialLimitConfig{
		System: l, Transient: early, AllowlistedSystem: l, AllowlistedTransient: early,
		ServiceDefault: l, ServicePeerDefault: one, ProtocolDefault: l, ProtocolPeerDefault: one, PeerDefault: one,
		Conn: one, Stream: rcmgr.ResourceLimits{Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: 16 << 20},
	}.Build(rcmgr.DefaultLimits.Scale(memory, conns))
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(cfg),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: netip.MustParsePrefix("127.0.0.0/8"), ConnCount: conns}},
			[]rcmgr.NetworkPrefixLimit{{Network: netip.MustParsePrefix("::1/128"), ConnCount: conns}}),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: perAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 128, ConnCount: perAddress}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: unlimited(),
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: handshakes}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 128, Limit: handshakes}},
			},
		}))
	if err != nil {
		return nil, fmt.Errorf("swarm: resource manager: %w", err)
	}
	return rm, nil
}

const (
	shunEntries = 1024           // bounds the memory of a Gate
	shunMost    = 24 * time.Hour // at once
	shunForget  = 24 * time.Hour // after a shun is over, each such time without another takes one doubling back
)

// Gate refuses connections with peers that are shunned. It is shared by a host and its swarm. The zero value refuses
// nobody. Safe for concurrent use.
type Gate struct {
	mu sync.Mutex // guards m
	m  map[peer.ID]shun
}

type shun struct {
	until time.Time
	level int // doublings of the next, at until
}

// Shun refuses id for a while: base, doubled for each time before, at most a day. What it did is forgotten in time: each
// day after the end of a shun takes one doubling back. It returns how long.
func (g *Gate) Shun(id peer.ID, base time.Duration) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.m == nil {
		g.m = map[peer.ID]shun{}
	}
	e := g.m[id]
	if _, ok := g.m[id]; !ok && len(g.m) >= shunEntries {
		var oldest peer.ID
		for k, v := range g.m {
			if oldest == "" || v.until.Before(g.m[oldest].until) {
				oldest = k
			}
		}
		delete(g.m, oldest)
	}
	now := time.Now()
	level := max(0, e.level-int(max(0, now.Sub(e.until))/shunForget))
	d := min(base<<level, shunMost)
	e = shun{until: now.Add(d), level: level}
	if d < shunMost { // else good behaviour would not tell for long
		e.level++
	}
	g.m[id] = e
	return d
}

// Shunned reports whether id is refused now.
func (g *Gate) Shunned(id peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	e, ok := g.m[id]
	return ok && time.Now().Before(e.until)
}

// InterceptPeerDial is part of connmgr.ConnectionGater.
func (g *Gate) InterceptPeerDial(id peer.ID) bool { return !g.Shunned(id) }

// InterceptAddrDial is part of connmgr.ConnectionGater.
func (g *Gate) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool { return true }

// InterceptAccept is part of connmgr.ConnectionGater.
func (g *Gate) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured is part of connmgr.ConnectionGater.
func (g *Gate) InterceptSecured(_ network.Direction, id peer.ID, _ network.ConnMultiaddrs) bool {
	return !g.Shunned(id)
}

// InterceptUpgraded is part of connmgr.ConnectionGater.
func (g *Gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
