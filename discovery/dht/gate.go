package dht

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	admission  = 5 * time.Second        // a stream waits that long for its peer's admission
	admitPoll  = 100 * time.Millisecond // between looks
	maxWaiting = 32                     // streams that wait at a time
)

// gate is a host whose stream handlers see admitted peers only. The DHT installs
// its handlers through it; close removes them again and ends the streams that
// they serve, which the DHT itself leaves to a timeout of a minute.
type gate struct {
	host.Host
	admitted func(peer.ID) bool

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
