// Package simhost gives real libp2p hosts on simulated links, for tests and rehearsals in virtual time.
//
// A [Net] is a set of links to one switch. [Net.Host] puts a host (QUIC, which is the transport that runs over packets)
// on a link of its own with a rate each way; the simulation queues and paces every packet, counts bytes, and delays
// what [Net.Cut] has separated until it is joined again or for ever. Used inside a testing/synctest bubble, a minute
// of a site passes in about a second.
//
// What is guaranteed: no host has a real socket, a real clock inside a bubble, or a limit of the resource manager, so
// that what a scenario shows comes from the links and from the code above the host. Runs are not exact repetitions:
// goroutines interleave differently. A Net, and hosts on it, must be closed inside the bubble in which they were made.
package simhost

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
)

// Link is what a host has to the switch.
type Link struct {
	Down, Up int // bits per second, headers of IP and UDP not counted; 0: 1 Gbit/s
}

// Net is a switch with links.
type Net struct {
	sim   simnet.Simnet
	mu    sync.Mutex // guards what follows
	group map[string]int
	conns map[peer.ID]*simnet.SimConn
	addr  map[peer.ID]string
	n     int
}

// never is the delay of a packet that does not arrive.
const never = 240 * time.Hour

// New returns a running Net in which a packet needs latency from link to link.
func New(latency time.Duration) *Net {
	n := &Net{group: map[string]int{}, conns: map[peer.ID]*simnet.SimConn{}, addr: map[peer.ID]string{}}
	n.sim.Logger = slog.New(slog.DiscardHandler)
	n.sim.LatencyFunc = func(p *simnet.Packet) time.Duration {
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.group) > 0 && n.group[p.From.String()] != n.group[p.To.String()] {
			return never
		}
		return latency
	}
	n.sim.Start()
	return n
}

// Close stops the simulation; close the hosts first.
func (n *Net) Close() { n.sim.Close() }

// Cut separates the hosts of each group from all others; hosts in no group stay together. Packets across a cut are
// lost. Cut() joins everything again.
func (n *Net) Cut(groups ...[]peer.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.group)
	for k, g := range groups {
		for _, id := range g {
			n.group[n.addr[id]] = k + 1
		}
	}
}

// Bytes returns what has passed the link of a host, with the headers of QUIC and without those of UDP and IP.
func (n *Net) Bytes(id peer.ID) (in, out int64) {
	n.mu.Lock()
	c := n.conns[id]
	n.mu.Unlock()
	if c == nil {
		return 0, 0
	}
	st := c.Stats()
	return int64(st.BytesRcvd), int64(st.BytesSent)
}

// sourceIP answers the question of the transport for its own address.
type sourceIP struct{ ip net.IP }

func (s sourceIP) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) { return s.ip, nil }

// simHost is a host that also closes what it was assembled from.
type simHost struct {
	host.Host
	cm   *quicreuse.ConnManager
	once sync.Once
	err  error
}

func (h *simHost) Close() error {
	h.once.Do(func() { h.err = errors.Join(h.Host.Close(), h.cm.Close()) })
	return h.err
}

// Host returns a new host with a new key on a link. The caller closes it. gate may be nil.
func (n *Net) Host(l Link, gate connmgr.ConnectionGater) (host.Host, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("simhost: key: %w", err)
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(priv)
	if err != nil {
		return nil, fmt.Errorf("simhost: key: %w", err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("simhost: peer ID: %w", err)
	}
	n.mu.Lock()
	ip := simnet.IntToPublicIPv4(n.n)
	n.n++
	n.mu.Unlock()
	ps, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, fmt.Errorf("simhost: peerstore: %w", err)
	}
	if err := errors.Join(ps.AddPrivKey(id, key), ps.AddPubKey(id, key.GetPublic())); err != nil {
		return nil, errors.Join(err, ps.Close())
	}
	bus := eventbus.NewBus()
	opts := []swarm.Option{swarm.WithResourceManager(&network.NullResourceManager{}), swarm.WithUDPBlackHoleSuccessCounter(nil)}
	if gate != nil {
		opts = append(opts, swarm.WithConnectionGater(gate))
	}
	sw, err := swarm.NewSwarm(id, ps, bus, opts...)
	if err != nil {
		return nil, errors.Join(err, ps.Close())
	}
	cm, err := n.transport(sw, key, id, ip, l, gate)
	if err != nil {
		return nil, errors.Join(err, sw.Close())
	}
	h, err := basichost.NewHost(sw, &basichost.HostOpts{EventBus: bus})
	if err != nil {
		return nil, errors.Join(err, sw.Close(), cm.Close())
	}
	h.Start()
	return &simHost{Host: h, cm: cm}, nil
}

// transport gives sw QUIC over packets of the simulation, listening at ip.
func (n *Net) transport(sw *swarm.Swarm, key crypto.PrivKey, id peer.ID, ip net.IP, l Link, gate connmgr.ConnectionGater) (*quicreuse.ConnManager, error) {
	settings := simnet.NodeBiDiLinkSettings{Downlink: simnet.LinkSettings{BitsPerSecond: rate(l.Down)}, Uplink: simnet.LinkSettings{BitsPerSecond: rate(l.Up)}}
	var reset quic.StatelessResetKey
	var token quic.TokenGeneratorKey
	_, err1 := rand.Read(reset[:])
	_, err2 := rand.Read(token[:])
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("simhost: random: %w", err)
	}
	cm, err := quicreuse.NewConnManager(reset, token,
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return sourceIP{ip}, nil }),
		quicreuse.OverrideListenUDP(func(_ string, a *net.UDPAddr) (net.PacketConn, error) {
			c := n.sim.NewEndpoint(a, settings)
			n.mu.Lock()
			defer n.mu.Unlock()
			n.conns[id], n.addr[id] = c, a.String()
			return c, nil
		}))
	if err != nil {
		return nil, fmt.Errorf("simhost: quic: %w", err)
	}
	tr, err := libp2pquic.NewTransport(key, cm, nil, gate, &network.NullResourceManager{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("simhost: quic: %w", err), cm.Close())
	}
	if err := sw.AddTransport(tr); err != nil {
		return nil, errors.Join(fmt.Errorf("simhost: quic: %w", err), cm.Close())
	}
	a, err := multiaddr.NewMultiaddr(fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", ip))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("simhost: address: %w", err), cm.Close())
	}
	if err := sw.Listen(a); err != nil {
		return nil, errors.Join(fmt.Errorf("simhost: listen: %w", err), cm.Close())
	}
	return cm, nil
}

func rate(bits int) int {
	if bits <= 0 {
		return 1e9
	}
	return bits
}
