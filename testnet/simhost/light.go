package simhost

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"github.com/multiformats/go-multistream"
)

// Light is a switch with links like Net, on which hosts have no transport: what is written to a stream takes the time
// that its bytes need on the sender's link and on the receiver's, and is there. It carries sites of a thousand devices,
// where Net, with its packets and its cryptography, carries fifty. Connections are neither encrypted nor refused by a
// gate. A host that is closed is missed at once; what [Light.Cut] separates is not told, and what was sent meanwhile
// arrives when it is joined again, as TCP would have it.
type Light struct {
	latency time.Duration
	wg      sync.WaitGroup

	mu    sync.Mutex // guards what follows, and the ports and groups of hosts
	hosts map[peer.ID]*lightHost
	held  []heldPart // what waits for a cut to end
	n     uint64
}

// heldPart is what was written to a pipe across a cut.
type heldPart struct {
	p    *pipe
	part []byte
}

// lightWindow is how many bytes of a stream may be under way or unread.
const lightWindow = 512 << 10

// lightOverhead is what 1 byte of payload costs on a LAN, with the headers of TLS, TCP and Ethernet.
const lightOverhead = 1.06

var errLightClosed = errors.New("simhost: connection is closed")

// NewLight returns a switch in which a byte needs latency from link to link.
func NewLight(latency time.Duration) *Light {
	return &Light{latency: latency, hosts: map[peer.ID]*lightHost{}}
}

// Close waits until everything that the network started has ended; close the hosts first.
func (n *Light) Close() { n.wg.Wait() }

// lightHost is a host of a Light. Methods that nothing here needs are those of the nil interface.
type lightHost struct {
	host.Host
	lightNet
	id   peer.ID
	addr multiaddr.Multiaddr
	on   *Light
	link Link

	up, down port
	group    int

	mux *multistream.MultistreamMuxer[protocol.ID]

	mu     sync.Mutex // guards what follows
	conns  map[*lightConn]bool
	notes  []network.Notifiee
	closed bool
}

// lightNet gives a host a second method set, that of its network.
type lightNet struct{ h *lightHost }

// port is one direction of a link.
type port struct {
	rate  float64 // bytes per second
	free  time.Time
	bytes int64
}

// Host returns a new host on a link.
func (n *Light) Host(l Link) (host.Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n++
	seed := make([]byte, 32)
	binary.BigEndian.PutUint64(seed[8:], rand.Uint64())
	binary.BigEndian.PutUint64(seed, n.n)
	id, err := multihash.Encode(seed, multihash.IDENTITY)
	if err != nil {
		return nil, fmt.Errorf("simhost: peer ID: %w", err)
	}
	a, err := multiaddr.NewMultiaddr(fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/1", n.n>>16&255, n.n>>8&255, n.n&255))
	if err != nil {
		return nil, fmt.Errorf("simhost: address: %w", err)
	}
	h := &lightHost{id: peer.ID(id), addr: a, on: n, link: l, mux: multistream.NewMultistreamMuxer[protocol.ID](), conns: map[*lightConn]bool{}}
	h.lightNet.h = h
	h.up.rate, h.down.rate = float64(rate(l.Up))/8/lightOverhead, float64(rate(l.Down))/8/lightOverhead
	n.hosts[h.id] = h
	return h, nil
}

// Bytes returns what has passed the link of a host: payload of its streams.
func (n *Light) Bytes(id peer.ID) (in, out int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[id]; h != nil {
		return h.down.bytes, h.up.bytes
	}
	return 0, 0
}

// Cut separates the hosts of each group from all others; hosts in no group stay together. Cut() joins everything again.
func (n *Light) Cut(groups ...[]peer.ID) {
	n.mu.Lock()
	for _, h := range n.hosts {
		h.group = 0
	}
	for k, g := range groups {
		for _, id := range g {
			if h := n.hosts[id]; h != nil {
				h.group = k + 1
			}
		}
	}
	var free, held []heldPart
	for _, x := range n.held {
		if x.p.from.group == x.p.to.group {
			free = append(free, x)
		} else {
			held = append(held, x)
		}
	}
	n.held = held
	n.mu.Unlock()
	for _, x := range free {
		x.p.arrive(x.part)
	}
}

// arrival books the bytes of part on both links and returns when the last of them is there; false: when a cut ends.
func (n *Light) arrival(p *pipe, part []byte) (time.Time, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	from, to, size := p.from, p.to, len(part)
	if from.group != to.group {
		n.held = append(n.held, heldPart{p, part})
		return time.Time{}, false
	}
	now := time.Now()
	sent := take(&from.up, now, size)
	// The receiver's link passes the bytes on while they come.
	there := sent.Add(n.latency)
	if t := to.down.free.Add(time.Duration(float64(size) / to.down.rate * 1e9)); t.After(there) {
		there = t
	}
	to.down.free = there
	to.down.bytes += int64(size)
	return there, true
}

func take(p *port, now time.Time, size int) time.Time {
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(size) / p.rate * 1e9))
	p.bytes += int64(size)
	return p.free
}

// ID is part of host.Host.
func (h *lightHost) ID() peer.ID { return h.id }

// Addrs is part of host.Host.
func (h *lightHost) Addrs() []multiaddr.Multiaddr { return []multiaddr.Multiaddr{h.addr} }

// Network is part of host.Host.
func (h *lightHost) Network() network.Network { return h.lightNet.network() }

// Peerstore is part of host.Host; it forgets everything.
func (h *lightHost) Peerstore() peerstore.Peerstore { return lightStore{} }

type lightStore struct{ peerstore.Peerstore }

// AddAddrs is part of peerstore.Peerstore.
func (lightStore) AddAddrs(peer.ID, []multiaddr.Multiaddr, time.Duration) {}

// UpdateAddrs is part of peerstore.Peerstore.
func (lightStore) UpdateAddrs(peer.ID, time.Duration, time.Duration) {}

// SetStreamHandler is part of host.Host.
func (h *lightHost) SetStreamHandler(p protocol.ID, f network.StreamHandler) {
	h.mux.AddHandler(p, func(p protocol.ID, rwc io.ReadWriteCloser) error {
		f(rwc.(network.Stream))
		return nil
	})
}

// RemoveStreamHandler is part of host.Host.
func (h *lightHost) RemoveStreamHandler(p protocol.ID) { h.mux.RemoveHandler(p) }

// Close is part of host.Host: a device that is gone.
func (h *lightHost) Close() error {
	h.mu.Lock()
	h.closed = true
	var cs []*lightConn
	for c := range h.conns {
		cs = append(cs, c)
	}
	h.mu.Unlock()
	for _, c := range cs {
		_ = c.Close()
	}
	h.on.mu.Lock()
	defer h.on.mu.Unlock()
	delete(h.on.hosts, h.id)
	return nil
}

// lightNetwork is the network of a host.
type lightNetwork struct {
	network.Network
	h *lightHost
}

func (l lightNet) network() network.Network { return lightNetwork{h: l.h} }

// Notify is part of network.Network.
func (l lightNetwork) Notify(n network.Notifiee) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.h.notes = append(l.h.notes, n)
}

// StopNotify is part of network.Network.
func (l lightNetwork) StopNotify(network.Notifiee) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.h.notes = nil
}

// Conns is part of network.Network.
func (l lightNetwork) Conns() []network.Conn {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	var out []network.Conn
	for c := range l.h.conns {
		out = append(out, c)
	}
	return out
}

// DialPeer is part of network.Network.
func (l lightNetwork) DialPeer(ctx context.Context, id peer.ID) (network.Conn, error) {
	l.h.mu.Lock()
	for c := range l.h.conns {
		if c.to.id == id {
			l.h.mu.Unlock()
			return c, nil
		}
	}
	l.h.mu.Unlock()
	n := l.h.on
	n.mu.Lock()
	to := n.hosts[id]
	reach := to != nil && to.group == l.h.group
	n.mu.Unlock()
	wait := 4 * n.latency // TCP and TLS take their round trips
	if !reach {
		wait = 5 * time.Second
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(wait):
	}
	if !reach {
		return nil, errors.New("simhost: no answer")
	}
	a := &lightConn{from: l.h, to: to, dir: network.DirOutbound, streams: map[*lightStream]bool{}}
	b := &lightConn{from: to, to: l.h, dir: network.DirInbound, streams: map[*lightStream]bool{}}
	a.other, b.other = b, a
	for _, c := range []*lightConn{a, b} {
		if !c.from.add(c) {
			_ = a.Close()
			return nil, errLightClosed
		}
	}
	for _, c := range []*lightConn{b, a} {
		for _, note := range c.from.listeners() {
			note.Connected(lightNetwork{h: c.from}, c)
		}
	}
	return a, nil
}

func (h *lightHost) add(c *lightConn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.conns[c] = true
	return true
}

func (h *lightHost) listeners() []network.Notifiee {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]network.Notifiee(nil), h.notes...)
}
