package dht

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	admission  = 5 * time.Second        // a stream waits that long for its peer's admission
	admitPoll  = 100 * time.Millisecond // between looks
	maxWaiting = 32                     // streams that wait at a time
)

// gate is a host whose stream handlers see admitted peers only, and whose
// connections are made by who admits. The DHT installs its handlers through it;
// close removes them again and ends the streams that they serve, which the DHT
// itself leaves to a timeout of a minute.
type gate struct {
	host.Host
	admitted  func(peer.ID) bool
	introduce func(context.Context, peer.AddrInfo) // asks for a connection; nil: the host makes them

	serving sync.WaitGroup
	mu      sync.Mutex // guards all below
	protos  []protocol.ID
	streams map[network.Stream]bool // nil after close
	waiting int
}

func newGate(h host.Host, admitted func(peer.ID) bool) *gate {
	if admitted == nil {
		admitted = func(peer.ID) bool { return true }
	}
	return &gate{Host: h, admitted: admitted, streams: make(map[network.Stream]bool)}
}

// Connect returns when the peer is admitted. A connection that the host made would
// never be: peers prove themselves where the swarm dials.
func (g *gate) Connect(ctx context.Context, p peer.AddrInfo) error {
	if g.introduce == nil {
		return g.Host.Connect(ctx, p) //nolint:wrapcheck // for the library, which made the call
	}
	if g.admitted(p.ID) {
		return nil
	}
	if p.Addrs = addresses(g.Host, p); len(p.Addrs) == 0 {
		return fmt.Errorf("dht: %w", peerstore.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	g.introduce(ctx, p)
	for !g.admitted(p.ID) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("dht: %s is not admitted: %w", p.ID, ctx.Err())
		case <-time.After(admitPoll):
		}
	}
	return nil
}

// NewStream opens a stream, on a connection that there is if others make them.
func (g *gate) NewStream(ctx context.Context, p peer.ID, protos ...protocol.ID) (network.Stream, error) {
	if g.introduce != nil {
		ctx = network.WithNoDial(ctx, "the swarm dials")
	}
	return g.Host.NewStream(ctx, p, protos...) //nolint:wrapcheck // for the library, which made the call
}

// SetStreamHandler installs a handler behind the gate.
func (g *gate) SetStreamHandler(id protocol.ID, h network.StreamHandler) {
	g.mu.Lock()
	g.protos = append(g.protos, id)
	g.mu.Unlock()
	g.Host.SetStreamHandler(id, func(s network.Stream) {
		if !g.open(s) {
			s.Reset()
			return
		}
		defer g.done(s)
		if !g.wait(s.Conn().RemotePeer()) {
			s.Reset()
			return
		}
		h(s)
	})
}

// open notes a stream; false after close.
func (g *gate) open(s network.Stream) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.streams == nil {
		return false
	}
	g.streams[s] = true
	g.serving.Add(1)
	return true
}

func (g *gate) done(s network.Stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.streams, s)
	g.serving.Done()
}

// close removes the handlers, resets their streams and waits for them.
func (g *gate) close() {
	g.mu.Lock()
	for _, id := range g.protos {
		g.Host.RemoveStreamHandler(id)
	}
	for s := range g.streams {
		s.Reset()
	}
	g.streams = nil
	g.mu.Unlock()
	g.serving.Wait()
}

func (g *gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.streams == nil
}

// wait reports whether the peer is admitted, or becomes so soon: a stream may come
// right after the connection, while credentials are still being exchanged.
func (g *gate) wait(p peer.ID) bool {
	if g.admitted(p) {
		return true
	}
	if !g.enter() {
		return false
	}
	defer g.leave()
	for end := time.Now().Add(admission); time.Now().Before(end); {
		time.Sleep(admitPoll)
		if g.admitted(p) {
			return true
		}
		if g.closed() || g.Network().Connectedness(p) != network.Connected {
			return false
		}
	}
	return false
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting >= maxWaiting {
		return false
	}
	g.waiting++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
}
