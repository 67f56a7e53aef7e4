package swarm

import (
	"encoding/binary"
	"syscall"

	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sys/unix"
)

// lowatLeast is the least rest of a TLS record for which it is worth telling the kernel to wait.
const lowatLeast = 2 << 10

// recordMost is the longest record that TLS 1.3 allows.
const recordMost = 16<<10 + 256

// recordConn is a connection that wakes its reader once for each TLS record, not for each segment.
//
// A record comes whole or not at all, so nothing is lost by sleeping until the rest of it is there: SO_RCVLOWAT says
// how much that is. On a LAN that fills slowly most of the CPU of a receiver is otherwise spent on being woken for
// 1,448 bytes, of which TLS can use nothing. The conn follows the lengths of the records; before TLS begins there are
// messages of multistream, whose length is one byte. If it sees anything else it stops following, and is a plain conn.
type recordConn struct {
	manet.Conn
	raw   syscall.RawConn
	head  [5]byte // header of the next record, as far as it has come
	n     int     // bytes of head
	rest  int     // bytes of the current record that have not come
	lowat int     // as set in the kernel
}

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
	return &recordConn{Conn: c, raw: raw, lowat: 1}
}

// Read is part of net.Conn. It must not be called concurrently.
func (c *recordConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.raw != nil && n > 0 {
		if c.follow(p[:n]) {
			c.wait(c.rest)
		} else {
			c.wait(1)
			c.raw = nil
		}
	}
	return n, err
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
		case first > 0x17 || c.n >= 2 && c.head[1] != 3:
			return false
		case c.n == len(c.head):
			c.rest, c.n = int(binary.BigEndian.Uint16(c.head[3:])), 0
			if c.rest > recordMost {
				return false
			}
		}
	}
	return true
}

// wait has the kernel wake the reader when n bytes have come. It never asks for more than n.
func (c *recordConn) wait(n int) {
	if n < lowatLeast {
		n = 1
	}
	if n == c.lowat {
		return
	}
	var set error
	err := c.raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) })
	if err == nil && set == nil {
		c.lowat = n
	}
}
