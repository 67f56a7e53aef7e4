package origin

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// link is a way to an origin in virtual time: what comes from there waits its turn in a queue, as long as it gets.
type link struct {
	rate float64       // bytes a second
	trip time.Duration // there and back
	up   chan net.Conn // to the origin

	mu   sync.Mutex // guards all below
	free time.Time  // when all that waits has left
	sent int64      // bytes that have come over it
}

const (
	segment     = 1448
	firstWindow = 10 * segment // what TCP sends before anything is acknowledged
	unreadMost  = 64 << 10     // what a receiver takes that reads nothing
	windowMost  = 4 << 20
	queueMost   = time.Second // longer queues throw away
)

// conn is a connection over a link, as the side that asks has it.
type conn struct {
	net.Conn // for what it sends
	l        *link

	mu     sync.Mutex // guards all below
	change sync.Cond
	buf    []byte
	window int // bytes that may be on their way
	away   int // bytes that are, or are not acknowledged
	read   int
	shrunk time.Time
	slower bool
	ended  bool
}

// dial makes a connection as TCP does: what may be on its way grows by what has been acknowledged.
func (l *link) dial(context.Context, string, string) (net.Conn, error) {
	time.Sleep(l.trip)
	asks, in := net.Pipe()
	out, far := net.Pipe()
	c := &conn{Conn: asks, l: l, window: firstWindow}
	c.change.L = &c.mu
	go c.ask(out, in)
	go c.answer(out)
	l.up <- far
	return c, nil
}

// ask passes requests on, half a round trip later.
func (c *conn) ask(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 4<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		time.Sleep(c.l.trip / 2)
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// answer passes answers on.
func (c *conn) answer(from net.Conn) {
	defer c.Close()
	b := make([]byte, segment)
	for {
		n, err := from.Read(b)
		if err != nil || !c.send(bytes.Clone(b[:n])) {
			return
		}
	}
}

// send has a segment come when its turn is; false at the end of the connection.
func (c *conn) send(b []byte) bool {
	n := len(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.ended && (c.away+n > c.window || c.away+len(c.buf)+n > min(unreadMost+2*c.read, windowMost)) {
		c.change.Wait()
	}
	c.away += n
	wait := c.l.queue(n) + c.l.trip/2
	time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.buf = append(c.buf, b...)
		c.change.Broadcast()
	})
	time.AfterFunc(wait+c.l.trip/2, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.away -= n
		switch now := time.Now(); {
		case wait <= c.l.trip/2+queueMost:
			if c.window += n; c.slower {
				c.window += n*8*segment/c.window - n
			}
		case now.Sub(c.shrunk) > 2*c.l.trip+wait:
			c.window, c.shrunk, c.slower = max(c.window*7/10, 2*segment), now, true
		}
		c.change.Broadcast()
	})
	return !c.ended
}

// queue returns how long it takes until n bytes have left.
func (l *link) queue(n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n+52) / l.rate * 1e9))
	l.sent += int64(n)
	return time.Until(l.free)
}

func (l *link) carried() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.buf) == 0 && !c.ended {
		c.change.Wait()
	}
	if len(c.buf) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.buf)
	c.buf = c.buf[n:]
	c.read += n
	c.change.Broadcast()
	return n, nil
}

func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.change.Broadcast()
	return c.Conn.Close()
}

func (l *link) Accept() (net.Conn, error) {
	c, ok := <-l.up
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l *link) Close() error   { close(l.up); return nil }
func (l *link) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// over returns a client of an origin at the other end of l that has data as its pack.
func (l *link) over(t *testing.T, data []byte) (c *Client, end func()) {
	t.Helper()
	l.up = make(chan net.Conn, 64)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "pack", time.Time{}, bytes.NewReader(data))
	})}
	go func() { _ = srv.Serve(l) }()
	c, err := NewClient([]string{"http://origin"}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.warm.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := l.dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countConn{Conn: conn, t: &c.count}, nil
	}
	return c, func() {
		c.Close()
		_ = srv.Close()
		time.Sleep(time.Second) // what was on its way has come
	}
}

// way is how ranges came over a link.
type way struct {
	first, gap, all time.Duration // until the first was there, between two at most, until all were
	bound           time.Duration // for the link alone
	held            int64         // bytes at most that had come and were not whole ranges
	carried         float64       // what the link carried of the ranges
}

// bring fetches n ranges of size bytes, each gap bytes after the other, from an origin that was asked twice before.
func (l *link) bring(t *testing.T, n, size, gap int64, warm bool) (w way) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		data := make([]byte, n*(size+gap))
		c, end := l.over(t, data)
		defer end()
		var rs []Range
		for off := int64(0); off < int64(len(data)); off += size + gap {
			rs = append(rs, Range{off, size})
		}
		fetch := func(rs []Range, fn func(int, []byte) error) {
			if err := c.Ranges(t.Context(), "pack", int64(len(data)), rs, fn); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			fetch([]Range{{0, 100}}, func(int, []byte) error { return nil })
		}
		if warm {
			c.Warm(t.Context(), int64(len(data)))
		}
		begin, in, sent := time.Now(), c.count.in.Load(), l.carried()
		fetch(rs, func(int, []byte) error {
			at := time.Since(begin)
			if w.first == 0 {
				w.first = at
			}
			w.gap, w.all, in = max(w.gap, at-w.all), at, in+size
			w.held = max(w.held, c.count.in.Load()-in)
			return nil
		})
		w.bound = time.Duration(float64(n*size) / l.rate * 1e9)
		w.carried = float64(l.carried()-sent) / float64(n*size)
	})
	t.Logf("%.0f kbit/s, %v, %d of %d: %+v", l.rate/125, l.trip, n, size, w)
	return w
}
