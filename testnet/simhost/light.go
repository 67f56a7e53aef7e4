package simhost

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
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

// lightConn is one side of a connection.
type lightConn struct {
	network.Conn
	from, to *lightHost
	other    *lightConn
	dir      network.Direction

	mu      sync.Mutex // guards what follows
	streams map[*lightStream]bool
	closed  bool
}

// RemotePeer is part of network.Conn.
func (c *lightConn) RemotePeer() peer.ID { return c.to.id }

// RemoteMultiaddr is part of network.Conn.
func (c *lightConn) RemoteMultiaddr() multiaddr.Multiaddr { return c.to.addr }

// Stat is part of network.Conn.
func (c *lightConn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Direction: c.dir}}
}

// Close is part of network.Conn. Both sides know at once.
func (c *lightConn) Close() error {
	for _, s := range []*lightConn{c, c.other} {
		s.end()
	}
	return nil
}

func (c *lightConn) end() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	var ss []*lightStream
	for s := range c.streams {
		ss = append(ss, s)
	}
	c.mu.Unlock()
	for _, s := range ss {
		s.in.fail(errLightClosed)
	}
	c.from.mu.Lock()
	delete(c.from.conns, c)
	c.from.mu.Unlock()
	for _, note := range c.from.listeners() {
		note.Disconnected(lightNetwork{h: c.from}, c)
	}
}

func (c *lightConn) open(s *lightStream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.streams[s] = true
	return true
}

// NewStream is part of network.Conn.
func (c *lightConn) NewStream(context.Context) (network.Stream, error) {
	a := &lightStream{conn: c, in: newPipe(c.to, c.from)}
	b := &lightStream{conn: c.other, in: newPipe(c.from, c.to)}
	a.out, b.out = b.in, a.in
	if !c.open(a) || !c.other.open(b) {
		return nil, errLightClosed
	}
	c.to.on.wg.Go(func() {
		p, handle, err := c.to.mux.Negotiate(b)
		if err != nil {
			_ = b.Reset()
			return
		}
		_ = b.SetProtocol(p)
		_ = handle(p, b)
	})
	return a, nil
}

// lightStream is one side of a stream.
type lightStream struct {
	network.Stream
	conn    *lightConn
	in, out *pipe

	mu    sync.Mutex // guards proto
	proto protocol.ID
}

// Conn is part of network.Stream.
func (s *lightStream) Conn() network.Conn { return s.conn }

// Protocol is part of network.Stream.
func (s *lightStream) Protocol() protocol.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proto
}

// SetProtocol is part of network.Stream.
func (s *lightStream) SetProtocol(p protocol.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proto = p
	return nil
}

// Read is part of network.Stream.
func (s *lightStream) Read(b []byte) (int, error) { return s.in.read(b) }

// Write is part of network.Stream.
func (s *lightStream) Write(b []byte) (int, error) { return s.out.write(b) }

// CloseWrite is part of network.Stream.
func (s *lightStream) CloseWrite() error { s.out.finish(); return nil }

// Close is part of network.Stream.
func (s *lightStream) Close() error {
	s.out.finish()
	s.forget()
	return nil
}

// Reset is part of network.Stream.
func (s *lightStream) Reset() error {
	s.out.fail(network.ErrReset)
	s.in.fail(network.ErrReset)
	s.forget()
	return nil
}

func (s *lightStream) forget() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	delete(s.conn.streams, s)
}

// SetDeadline is part of network.Stream.
func (s *lightStream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline is part of network.Stream.
func (s *lightStream) SetReadDeadline(t time.Time) error { s.in.deadline(&s.in.readBy, t); return nil }

// SetWriteDeadline is part of network.Stream.
func (s *lightStream) SetWriteDeadline(t time.Time) error {
	s.out.deadline(&s.out.writeBy, t)
	return nil
}

// pipe is one direction of a stream.
type pipe struct {
	from, to *lightHost

	mu              sync.Mutex // guards what follows
	change          *sync.Cond
	parts           [][]byte // that have arrived
	under           int      // bytes under way or unread
	last            time.Time
	eof             bool
	err             error
	readBy, writeBy lightDeadline
}

// lightDeadline wakes who waits when it has passed.
type lightDeadline struct {
	at    time.Time
	timer *time.Timer
}

func newPipe(from, to *lightHost) *pipe {
	p := &pipe{from: from, to: to}
	p.change = sync.NewCond(&p.mu)
	return p
}

func (d *lightDeadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (p *pipe) deadline(d *lightDeadline, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.at = t
	if t.IsZero() {
		if d.timer != nil {
			d.timer.Stop()
		}
		return
	}
	// A timer that is set already looks again when it fires.
	if d.timer == nil {
		d.timer = time.AfterFunc(time.Until(t), p.wake)
	} else {
		d.timer.Reset(time.Until(t))
	}
}

func (p *pipe) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change.Broadcast()
}

func (p *pipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	for _, d := range []*lightDeadline{&p.readBy, &p.writeBy} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	p.change.Broadcast()
}

// finish tells the reader of the end, behind what is under way.
func (p *pipe) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.last
	if !at.After(time.Now()) {
		at = time.Now().Add(p.from.on.latency)
	}
	time.AfterFunc(time.Until(at)+time.Nanosecond, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.eof = true
		p.change.Broadcast()
	})
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.parts) == 0 {
		switch {
		case p.err != nil:
			return 0, p.err
		case p.eof:
			return 0, io.EOF
		case p.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		}
		p.change.Wait()
	}
	n := copy(b, p.parts[0])
	if p.parts[0] = p.parts[0][n:]; len(p.parts[0]) == 0 {
		p.parts[0] = nil
		p.parts = p.parts[1:]
	}
	p.under -= n
	p.change.Broadcast()
	return n, nil
}

func (p *pipe) write(b []byte) (total int, err error) {
	for len(b) > 0 {
		n, err := p.writePart(b[:min(len(b), 64<<10)])
		total += n
		if err != nil {
			return total, err
		}
		b = b[n:]
	}
	return total, nil
}

func (p *pipe) writePart(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.err != nil:
			return 0, p.err
		case p.writeBy.passed():
			return 0, os.ErrDeadlineExceeded
		}
		if p.under+len(b) <= lightWindow {
			break
		}
		p.change.Wait()
	}
	p.under += len(b)
	part := append([]byte(nil), b...)
	at, ok := p.from.on.arrival(p, part)
	if ok {
		p.last = at
		time.AfterFunc(time.Until(at), func() { p.arrive(part) })
	}
	return len(b), nil
}

func (p *pipe) arrive(part []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts = append(p.parts, part)
	p.change.Broadcast()
}
