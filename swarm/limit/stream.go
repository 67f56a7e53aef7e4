package limit

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// ioFunc is a Read or a Write.
type ioFunc func(b []byte) (int, error)

func (f ioFunc) Read(b []byte) (int, error)  { return f(b) }
func (f ioFunc) Write(b []byte) (int, error) { return f(b) }

// Reader returns r slowed down to l: bytes are waited for after they were read,
// so that nothing is waited for that does not come. Reads end with ctx.
func Reader(ctx context.Context, r io.Reader, l *Limiter) io.Reader {
	if l == nil {
		return r
	}
	return ioFunc(func(b []byte) (int, error) {
		n, err := r.Read(b[:l.piece(len(b))])
		if werr := l.WaitN(ctx, n); err == nil {
			err = werr
		}
		return n, err
	})
}

// Writer returns w slowed down to l. Writes end with ctx.
func Writer(ctx context.Context, w io.Writer, l *Limiter) io.Writer {
	if l == nil {
		return w
	}
	return ioFunc(func(b []byte) (int, error) {
		return writePieces(w, b, l, ctx.Done(), ctx.Err)
	})
}

// writePieces writes b in pieces of at most the burst, each when its time has come.
func writePieces(w io.Writer, b []byte, l *Limiter, done <-chan struct{}, cause func() error) (n int, err error) {
	for n < len(b) {
		k := l.piece(len(b) - n)
		if !l.wait(done, k) {
			return n, cause()
		}
		m, err := w.Write(b[n : n+k])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Counters counts what passes through connections. The zero value is ready; it is
// safe for concurrent use.
type Counters struct {
	In    atomic.Int64 // bytes received
	Out   atomic.Int64 // bytes sent
	Conns atomic.Int64 // connections accepted, in all
}

// Listener returns l with all its connections sharing one link: together they
// send at most bytesPerSecond (0 or less: unlimited), in bursts of at most Burst
// bytes, and every byte is counted in c, which may be nil. It stands for the
// uplink of a site when a site is played on one machine.
func Listener(l net.Listener, bytesPerSecond int64, c *Counters) net.Listener {
	if c == nil {
		c = new(Counters)
	}
	return &listener{Listener: l, lim: New(bytesPerSecond), count: c}
}

type listener struct {
	net.Listener
	lim   *Limiter
	count *Counters
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.count.Conns.Add(1)
	return &conn{Conn: c, lim: l.lim, count: l.count, done: make(chan struct{})}, nil
}

// conn counts and paces one connection.
type conn struct {
	net.Conn
	lim   *Limiter
	count *Counters
	close sync.Once
	done  chan struct{} // closed by Close: ends a wait for the limiter
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.count.In.Add(int64(n))
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	var n int
	var err error
	if c.lim == nil {
		n, err = c.Conn.Write(b)
	} else {
		n, err = writePieces(c.Conn, b, c.lim, c.done, func() error { return net.ErrClosed })
	}
	c.count.Out.Add(int64(n))
	return n, err
}

func (c *conn) Close() error {
	c.close.Do(func() { close(c.done) })
	return c.Conn.Close()
}
