package swarm

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/multiformats/go-multiaddr"
	mafmt "github.com/multiformats/go-multiaddr-fmt"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sys/unix"
)

// Times of a TCP connection. libp2p's own transport probes each connection every 30 s from both ends: with 50 devices
// that is most of what an idle site says.
const (
	tcpConnect = 5 * time.Second
	tcpIdle    = 10 * time.Minute // silence before the kernel asks whether the other side is there
	tcpProbe   = 15 * time.Second
	tcpProbes  = 4
	tcpUnacked = 40 * time.Second // data that is not acknowledged for this long ends the connection
)

// lanTransport is TCP for a LAN: few keep-alives, and an end to connections whose other side is gone.
type lanTransport struct {
	up     transport.Upgrader
	rm     network.ResourceManager
	guests *guests
	rush   *rush
}

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: tcpIdle, Interval: tcpProbe, Count: tcpProbes}

// socket sets what is inherited by accepted connections too.
func socket(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(tcpUnacked/time.Millisecond))
	}); e != nil {
		return e
	}
	return err
}

// dialable is the form of an address that this transport takes.
var dialable = mafmt.And(mafmt.IP, mafmt.Base(multiaddr.P_TCP))

// CanDial is part of transport.Transport.
func (t *lanTransport) CanDial(a multiaddr.Multiaddr) bool { return dialable.Matches(a) }

// Protocols is part of transport.Transport.
func (t *lanTransport) Protocols() []int { return []int{multiaddr.P_TCP} }

// Proxy is part of transport.Transport.
func (t *lanTransport) Proxy() bool { return false }

// String names the transport in logs.
func (t *lanTransport) String() string { return "TCP" }

// Dial is part of transport.Transport.
func (t *lanTransport) Dial(ctx context.Context, a multiaddr.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	scope, err := t.rm.OpenConnection(network.DirOutbound, true, a)
	if err != nil {
		return nil, err
	}
	c, err := t.dial(ctx, a, p, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return c, nil
}

func (t *lanTransport) dial(ctx context.Context, a multiaddr.Multiaddr, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	if err := scope.SetPeer(p); err != nil {
		return nil, err
	}
	d := manet.Dialer{Dialer: net.Dialer{Timeout: tcpConnect, KeepAliveConfig: keepAlive, Control: socket}}
	c, err := d.DialContext(ctx, a)
	if err != nil {
		return nil, err
	}
	abrupt(c)
	dir := network.DirOutbound
	if ok, client, _ := network.GetSimultaneousConnect(ctx); ok && !client {
		dir = network.DirInbound
	}
	return t.up.Upgrade(ctx, t, followRecords(c), dir, p, scope)
}

// Listen is part of transport.Transport.
func (t *lanTransport) Listen(a multiaddr.Multiaddr) (transport.Listener, error) {
	proto, addr, err := manet.DialArgs(a)
	if err != nil {
		return nil, fmt.Errorf("swarm: %w", err)
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: socket}
	l, err := lc.Listen(context.Background(), proto, addr)
	if err != nil {
		return nil, err
	}
	ml, err := manet.WrapNetListener(l)
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("swarm: %w", err)
	}
	return t.up.UpgradeGatedMaListener(t, lanListener{ml, t.rm, t.guests, t.rush}), nil
}

// lanListener lets connections in and prepares them. It asks no connmgr.ConnectionGater: a [Gate] knows peers, not
// addresses.
type lanListener struct {
	manet.Listener
	rm     network.ResourceManager
	guests *guests
	rush   *rush
}

// Accept is part of transport.GatedMaListener.
func (l lanListener) Accept() (manet.Conn, network.ConnManagementScope, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, nil, err
		}
		abrupt(c)
		scope := l.letIn(c.RemoteMultiaddr())
		if scope == nil {
			_ = c.Close()
			continue
		}
		return followRecords(c), l.guests.enter(c, scope), nil
	}
}

// letIn returns the scope of a connection from a, or nil if there are too many.
func (l lanListener) letIn(a multiaddr.Multiaddr) network.ConnManagementScope {
	scope, err := l.rm.OpenConnection(network.DirInbound, true, a)
	if err != nil {
		return nil
	}
	if !l.rush.allow(ipOf(a)) {
		scope.Done()
		return nil
	}
	return scope
}

// ipOf returns the address of a, or none.
func ipOf(a multiaddr.Multiaddr) netip.Addr {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}
	}
	out, _ := netip.AddrFromSlice(ip)
	return out.Unmap()
}

// abrupt makes a close free the port at once: what matters was acknowledged above TCP.
func abrupt(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
}
