package swarm

import (
	"context"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSocketOptions looks at both ends of a connection: an accepted one has them from the listener.
func TestSocketOptions(t *testing.T) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: socket}
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := net.Dialer{KeepAliveConfig: keepAlive, Control: socket}
	out, err := d.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for name, c := range map[string]net.Conn{"dialled": out, "accepted": in} {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			for opt, want := range map[int]int{unix.TCP_USER_TIMEOUT: int(tcpUnacked.Milliseconds()), unix.TCP_KEEPIDLE: int(tcpIdle.Seconds()), unix.TCP_KEEPCNT: tcpProbes} {
				if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, opt); err != nil || got != want {
					t.Errorf("%s: option %d is %d, want %d (%v)", name, opt, got, want, err)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}
