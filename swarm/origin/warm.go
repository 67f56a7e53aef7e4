package origin

import (
	"context"
	"net"
	"sync"
	"time"
)

// warmLife is how long a connection that was made ahead is good for: servers close one on which no request has come for
// 10 s or more.
const warmLife = 8 * time.Second

// stash holds connections made ahead, by address. A request takes one in the place of
// making its own.
type stash struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu    sync.Mutex // guards all below
	last  string     // address that was dialled last
	conns []warmConn
	end   *time.Timer // closes what nobody took; nil: nothing was made ahead yet
}

type warmConn struct {
	net.Conn
	addr  string
	since time.Time
}

// get is DialContext of the transport.
func (s *stash) get(ctx context.Context, network, addr string) (net.Conn, error) {
	s.mu.Lock()
	s.last = addr
	for len(s.conns) > 0 {
		w := s.conns[len(s.conns)-1]
		s.conns = s.conns[:len(s.conns)-1]
		if w.addr == addr && time.Since(w.since) < warmLife {
			s.mu.Unlock()
			return w.Conn, nil
		}
		w.Close()
	}
	s.mu.Unlock()
	return s.dial(ctx, network, addr)
}

// fill makes connections to the address dialled last until n are there.
func (s *stash) fill(ctx context.Context, n int) {
	s.mu.Lock()
	n -= len(s.conns)
	s.mu.Unlock()
	s.add(ctx, n)
}

// some reports whether connections are there.
func (s *stash) some() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns) > 0
}

// add makes n connections more.
func (s *stash) add(ctx context.Context, n int) {
	s.mu.Lock()
	addr := s.last
	s.mu.Unlock()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			c, err := s.dial(ctx, "tcp", addr)
			if err != nil {
				return // the request that would have used it will say why
			}
			if ctx.Err() != nil {
				c.Close()
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.conns = append(s.conns, warmConn{c, addr, time.Now()})
			if s.end == nil {
				s.end = time.AfterFunc(warmLife, s.close)
			} else {
				s.end.Reset(warmLife)
			}
		})
	}
	wg.Wait()
}

func (s *stash) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		s.end.Stop()
	}
	for _, w := range s.conns {
		w.Close()
	}
	s.conns = nil
}

// Warm makes the connections with which a Ranges of so many bytes will begin, if the
// origin is far away and has been asked before, and they are worth it; Ranges then does
// not wait for them. It returns when they are there, or ctx ends.
func (c *Client) Warm(ctx context.Context, size int64) {
	if d := time.Duration(c.count.answer.Load()); d >= laneFar && size >= laneLeast {
		c.warm.fill(ctx, laneCount-warmIdle)
	}
}

const (
	warmIdle  = 2        // connections that are there already after the requests of a look
	warmWorth = 64 << 10 // bytes for which one more is made ahead, at about 350 bytes, although the link may be too slow for it
)

// warmMore returns how many connections more than those with which it begins a transfer
// of size bytes may come to use.
func warmMore(size int64) int {
	return max(int(min(size/warmWorth, laneMost))-laneCount, 0)
}
