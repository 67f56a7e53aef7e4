package mdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	mdnsPort   = 5353
	readBuffer = 1 << 20 // bytes: all devices of a large site may answer at once
)

var (
	group4 = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdnsPort}
	group6 = &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: mdnsPort}
)

// heard is a message and the index of the interface on which it came in.
type heard struct {
	message
	ifIndex int
}

// ears are the sockets that hear what is said on the group, and by which we ask.
// Go sets SO_REUSEADDR when a multicast address is bound, so they coexist with
// the responder's sockets, other agents and other programs on the same port.
type ears struct {
	ifaces []iface
	v4     *ipv4.PacketConn // nil: no IPv4
	v6     *ipv6.PacketConn // nil: no IPv6
	joins  error            // what failed though some of it went well
}

// openEars joins the group on the interfaces. It fails when neither family can be
// joined on any of them; one family is enough.
func openEars(ifaces []iface) (*ears, error) {
	e := &ears{ifaces: ifaces}
	e.joins = errors.Join(e.open4(), e.open6())
	if e.v4 == nil && e.v6 == nil {
		return nil, e.joins
	}
	return e, nil
}

func (e *ears) open4() error {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(224, 0, 0, 0), Port: mdnsPort})
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	c.SetReadBuffer(readBuffer) // as much of it as the kernel allows
	p := ipv4.NewPacketConn(c)
	err = p.SetControlMessage(ipv4.FlagInterface, true)
	joined := 0
	for _, i := range e.ifaces {
		if jerr := p.JoinGroup(&i.Interface, group4); jerr != nil {
			err = errors.Join(err, fmt.Errorf("join IPv4 on %s: %w", i.Name, jerr))
			continue
		}
		joined++
	}
	if joined == 0 {
		c.Close()
		return err
	}
	e.v4 = p
	return err
}

func (e *ears) open6() error {
	c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.ParseIP("ff02::"), Port: mdnsPort})
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	c.SetReadBuffer(readBuffer)
	p := ipv6.NewPacketConn(c)
	err = p.SetControlMessage(ipv6.FlagInterface, true)
	joined := 0
	for _, i := range e.ifaces {
		if jerr := p.JoinGroup(&i.Interface, group6); jerr != nil {
			err = errors.Join(err, fmt.Errorf("join IPv6 on %s: %w", i.Name, jerr))
			continue
		}
		joined++
	}
	if joined == 0 {
		c.Close()
		return err
	}
	e.v6 = p
	return err
}

func (e *ears) close() {
	if e.v4 != nil {
		e.v4.Close()
	}
	if e.v6 != nil {
		e.v6.Close()
	}
}

// send puts a packet on each interface: over IPv4 where it has an IPv4 address,
// else over IPv6, since responders answer on both families anyway; over both
// when asked to. It fails when not one packet got out; those on loopback count
// only where there is nothing else.
func (e *ears) send(b []byte, both bool) error {
	var errs []error
	sent, onLAN := 0, lans(e.ifaces) > 0
	note := func(i iface, err error) {
		switch {
		case onLAN && i.loopback():
		case err != nil:
			errs = append(errs, fmt.Errorf("send on %s: %w", i.Name, err))
		default:
			sent++
		}
	}
	for _, i := range e.ifaces {
		use4 := e.v4 != nil && slices.ContainsFunc(i.addrs, netip.Addr.Is4)
		if use4 {
			_, err := e.v4.WriteTo(b, &ipv4.ControlMessage{IfIndex: i.Index}, group4)
			note(i, err)
		}
		if e.v6 != nil && (both || !use4) {
			_, err := e.v6.WriteTo(b, &ipv6.ControlMessage{IfIndex: i.Index}, group6)
			note(i, err)
		}
	}
	if sent == 0 {
		return errors.Join(append(errs, e.joins)...)
	}
	return nil
}

// listen4 and listen6 pass on what concerns the service and comes in on a joined
// interface, until the socket is closed or fails; that error is returned.
func (e *ears) listen4(ctx context.Context, out chan<- heard) error {
	return e.listen(ctx, out, func(b []byte) (int, int, net.Addr, error) {
		n, cm, src, err := e.v4.ReadFrom(b)
		if err != nil || cm == nil {
			return n, 0, src, err
		}
		return n, cm.IfIndex, src, nil
	})
}

func (e *ears) listen6(ctx context.Context, out chan<- heard) error {
	return e.listen(ctx, out, func(b []byte) (int, int, net.Addr, error) {
		n, cm, src, err := e.v6.ReadFrom(b)
		if err != nil || cm == nil {
			return n, 0, src, err
		}
		return n, cm.IfIndex, src, nil
	})
}

func (e *ears) listen(ctx context.Context, out chan<- heard, read func([]byte) (n, ifIndex int, src net.Addr, err error)) error {
	buf := make([]byte, maxPacket)
	for {
		n, ifIndex, src, err := read(buf)
		if err != nil {
			return err
		}
		if e.iface(ifIndex) == nil {
			continue // joined by another program, not by us
		}
		if u, ok := src.(*net.UDPAddr); !ok || u.Port != mdnsPort {
			continue // RFC 6762, 11
		}
		m, ok := parseMessage(buf[:n])
		if !ok {
			continue
		}
		select {
		case out <- heard{m, ifIndex}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (e *ears) iface(index int) *iface {
	for i := range e.ifaces {
		if e.ifaces[i].Index == index {
			return &e.ifaces[i]
		}
	}
	return nil
}
