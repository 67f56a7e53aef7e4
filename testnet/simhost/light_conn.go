package simhost

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
)

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

// As is part of network.Conn: there is nothing else that it is.
func (c *lightConn) As(any) bool { return false }

// RemotePeer is part of network.Conn.
func (c *lightConn) RemotePeer() peer.ID { return c.to.id }

// RemoteMultiaddr is part of network.Conn.
func (c *lightConn) RemoteMultiaddr() multiaddr.Multiaddr { return c.to.addr }

// Stat is part of network.Conn.
func (c *lightConn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Direction: c.dir}}
}

// Scope is part of network.Conn.
func (c *lightConn) Scope() network.ConnScope { return &network.NullScope{} }

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
