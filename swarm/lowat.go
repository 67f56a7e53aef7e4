package swarm

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sys/unix"
)

const (
	lowatLeast = 2 << 10      // a shorter wait is not worth telling the kernel
	lowatMost  = 256 << 10    // nor is a longer one sure to fit its buffers
	recordMost = 16<<10 + 256 // the longest record that TLS 1.3 allows
	recordData = 16 << 10     // what a full record carries
	recordCost = 5 + 1 + 16   // and what it adds
	readBuffer = 128 << 10    // taken from the kernel at once
	bulkLeast  = 4 << 10      // messages of the multiplexer that are written and awaited as a whole
	muxHeader  = 12           // bytes before the body of such a message
	muxMessage = 128 << 10    // the longest
)

// recordConn is a connection that wakes its reader once for each message, not for each segment, and that writes a
// message with one system call.
//
// A TLS record comes whole or not at all, so nothing is lost by sleeping until the rest of it is there; the same goes
// for a message of the multiplexer, whose length is known as soon as its header is: SO_RCVLOWAT says how much that is.
// On a LAN that fills slowly most of the CPU of a receiver is otherwise spent on being woken for 1,448 bytes, of which
// TLS can use nothing. The conn follows the lengths of the records; before TLS begins there are messages of
// multistream, whose length is one byte. If it sees anything else it stops following, and waits for nothing.
type recordConn struct {
	manet.Conn
	raw    syscall.RawConn
	taking func(fd uintptr) bool // take, as a value
	giving func(fd uintptr) bool // give, as a value

	// used by the reader
	in     []byte  // taken from the kernel, not read yet
	inBuf  *[]byte // where in lies
	head   [5]byte // header of the next record, as far as it has come
	n      int     // bytes of head
	rest   int     // bytes of the current record that have not come
	record int     // bytes of the current record, without its header
	want   int     // bytes within records that are known to come
	lost   bool    // the stream is not what it knows
	lowat  int     // as set in the kernel
	failed error   // of take

	mu     sync.Mutex // guards what follows, and the order of writes
	corked bool
	out    []byte // written while corked
	giveB  []byte // what give has not written yet
	giveE  error  // of give
}

// readBuffers holds *[]byte; a connection has one only while it has read more than was asked for.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, readBuffer); return &b }}

// followRecords wraps a TCP connection from its first byte; any other conn is returned as it is.
func followRecords(c manet.Conn) manet.Conn {
	s, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return c
	}
	rc := &recordConn{Conn: c, raw: raw, lowat: 1}
	rc.taking, rc.giving = rc.take, rc.give
	return rc
}

// Read is part of net.Conn. It must not be called concurrently.
func (c *recordConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.in) == 0 {
		c.wait(c.due())
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	if len(c.in) == 0 {
		readBuffers.Put(c.inBuf)
		c.in, c.inBuf = nil, nil
	}
	if !c.lost && !c.follow(p[:n]) {
		c.lost = true
	}
	return n, nil
}

// fill takes from the kernel what is there, and waits until something is.
func (c *recordConn) fill() error {
	c.failed = nil
	err := c.raw.Read(c.taking)
	switch {
	case err != nil:
		return err
	case c.failed != nil:
		return c.opError("read", c.failed)
	case len(c.in) == 0:
		return io.EOF
	}
	return nil
}

// take is a step of fill. A buffer is taken when there is something to put in it.
func (c *recordConn) take(fd uintptr) bool {
	b := readBuffers.Get().(*[]byte)
	n, err := readNow(fd, *b)
	if err == nil && n > 0 {
		c.in, c.inBuf = (*b)[:n], b
		return true
	}
	readBuffers.Put(b)
	if errors.Is(err, unix.EAGAIN) {
		return false
	}
	c.failed = err
	return true
}

func (c *recordConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// follow passes over bytes that have come; it returns false when they are not what it knows.
func (c *recordConn) follow(p []byte) bool {
	for len(p) > 0 {
		if c.rest > 0 {
			k := min(c.rest, len(p))
			c.rest -= k
			p = p[k:]
			continue
		}
		c.head[c.n] = p[0]
		c.n++
		p = p[1:]
		switch first := c.head[0]; {
		case first < 0x14: // multistream: a message of so many bytes
			c.rest, c.n = int(first), 0
			c.record = c.rest
		case first > 0x17 || c.n >= 2 && c.head[1] != 3:
			return false
		case c.n == len(c.head):
			c.rest, c.n = int(binary.BigEndian.Uint16(c.head[3:])), 0
			c.record = c.rest
			if c.rest > recordMost {
				return false
			}
		}
	}
	return true
}

// due returns how many bytes are known to come. All that came was used before the reader asks for more, so what it
// wants lies in the record under way and in those behind it.
func (c *recordConn) due() int {
	if c.lost {
		return 1
	}
	if c.want == 0 {
		return c.rest
	}
	left := c.want
	if c.rest > 0 {
		left -= c.record - 1 - 16
	}
	if left <= 0 {
		return c.rest
	}
	return c.rest + left + (left+recordData-1)/recordData*recordCost
}

// wait has the kernel wake the reader when n bytes have come. It never asks for more than n.
func (c *recordConn) wait(n int) {
	if n = min(n, lowatMost); n < lowatLeast {
		n = 1
	}
	if n == c.lowat {
		return
	}
	var set error
	err := c.raw.Control(func(fd uintptr) { set = lowatNow(fd, n) })
	if err == nil && set == nil {
		c.lowat = n
	}
}

// Write is part of net.Conn.
func (c *recordConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.corked {
		c.out = append(c.out, p...)
		return len(p), nil
	}
	return c.send(p)
}

// send writes p, and waits where the kernel does not take all of it at once. mu is held.
func (c *recordConn) send(p []byte) (int, error) {
	c.giveB, c.giveE = p, nil
	err := c.raw.Write(c.giving)
	n := len(p) - len(c.giveB)
	if err == nil && c.giveE != nil {
		err = c.opError("write", c.giveE)
	}
	c.giveB = nil
	return n, err
}

// give is a step of send.
func (c *recordConn) give(fd uintptr) bool {
	for len(c.giveB) > 0 {
		n, err := writeNow(fd, c.giveB)
		if err != nil {
			if errors.Is(err, unix.EAGAIN) {
				return false
			}
			c.giveE = err
			return true
		}
		c.giveB = c.giveB[n:]
	}
	return true
}

// cork keeps what is written until uncork, in buf.
func (c *recordConn) cork(buf []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked, c.out = true, buf
}

// uncork writes what was kept, and returns the buffer.
func (c *recordConn) uncork() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	buf := c.out
	c.corked, c.out = false, nil
	_, err := c.send(buf)
	return buf, err
}

// bulkSecurity is a secure transport whose connections handle long messages as a whole.
type bulkSecurity struct{ sec.SecureTransport }

// SecureInbound is part of sec.SecureTransport.
func (t bulkSecurity) SecureInbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return bulk(c)(t.SecureTransport.SecureInbound(ctx, c, p))
}

// SecureOutbound is part of sec.SecureTransport.
func (t bulkSecurity) SecureOutbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return bulk(c)(t.SecureTransport.SecureOutbound(ctx, c, p))
}

func bulk(c net.Conn) func(sec.SecureConn, error) (sec.SecureConn, error) {
	return func(s sec.SecureConn, err error) (sec.SecureConn, error) {
		if raw, ok := c.(*recordConn); ok && err == nil {
			return &bulkConn{s, raw}, nil
		}
		return s, err
	}
}

// bulkConn is a secure connection under a multiplexer that writes each message at once, its header before its body, and
// reads first the one and then the other, both of their exact length.
type bulkConn struct {
	sec.SecureConn
	raw *recordConn
}

// sealed returns how many bytes n make in records, of which the multiplexer's header has one of its own.
func sealed(n int) int { return n + (n/recordData+2)*recordCost }

// Read is part of net.Conn. It must not be called concurrently. All of a long p is known to come.
func (c *bulkConn) Read(p []byte) (int, error) {
	if len(p) >= bulkLeast {
		c.raw.want = len(p)
	} else {
		c.raw.want = 0
	}
	return c.SecureConn.Read(p)
}

// Write is part of net.Conn. It must not be called concurrently. The header of a long message goes into a record of its
// own, so that the other side knows from the first segment how much is to come.
func (c *bulkConn) Write(p []byte) (int, error) {
	if len(p) < bulkLeast {
		return c.SecureConn.Write(p)
	}
	f := newBuffer(sealed(len(p)))
	c.raw.cork(f.b[:0])
	n, err := c.SecureConn.Write(p[:muxHeader])
	if err == nil {
		var k int
		k, err = c.SecureConn.Write(p[muxHeader:])
		n += k
	}
	buf, e := c.raw.uncork()
	if cap(buf) == cap(f.b) { // the first records of a connection are shorter, and may not have fit
		f.release()
	}
	if err == nil {
		err = e
	}
	return n, err
}

// bulkMuxer is a multiplexer whose connections tell, by As, on which recordConn they are.
type bulkMuxer struct{ network.Multiplexer }

// NewConn is part of network.Multiplexer.
func (t bulkMuxer) NewConn(c net.Conn, server bool, scope network.PeerScope) (network.MuxedConn, error) {
	m, err := t.Multiplexer.NewConn(c, server, scope)
	if b, ok := c.(*bulkConn); ok && err == nil {
		return bulkMuxed{m, b.raw}, nil
	}
	return m, err
}

type bulkMuxed struct {
	network.MuxedConn
	raw *recordConn
}

// As is part of network.MuxedConn.
func (c bulkMuxed) As(target any) bool {
	if t, ok := target.(**recordConn); ok {
		*t = c.raw
		return true
	}
	return c.MuxedConn.As(target)
}
