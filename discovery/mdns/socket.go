package mdns

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	mdnsPort   = 5353
	readBuffer = 1 << 20 // bytes: all devices of a large site may answer at once
	hopLimit   = 255     // of what we send (RFC 6762, 11)
)

var (
	group4 = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdnsPort}
	group6 = &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: mdnsPort}
)

// medium is one family on one interface.
type medium struct {
	ifIndex int
	six     bool // IPv6
}

// heard is a message and where it came in.
type heard struct {
	message
	on medium
}

// ears are the sockets that hear what is said on the group, and by which we ask, announce
// and answer: always to the group. Go sets SO_REUSEADDR when a multicast address is bound,
// so they coexist with other agents and other programs on the same port.
type ears struct {
	own    string // instance of this device, for what is asked of it; set before listening
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
	err = p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true)
	err = errors.Join(err, p.SetMulticastTTL(hopLimit))
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
	err = p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true)
	err = errors.Join(err, p.SetMulticastHopLimit(hopLimit))
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

// media are all that can be spoken on.
func (e *ears) media() (out []medium) {
	for _, i := range e.ifaces {
		if e.v4 != nil {
			out = append(out, medium{i.Index, false})
		}
		if e.v6 != nil {
			out = append(out, medium{i.Index, true})
		}
	}
	return out
}

// write multicasts a packet.
func (e *ears) write(b []byte, on medium) (err error) {
	if on.six {
		_, err = e.v6.WriteTo(b, &ipv6.ControlMessage{IfIndex: on.ifIndex}, group6)
	} else {
		_, err = e.v4.WriteTo(b, &ipv4.ControlMessage{IfIndex: on.ifIndex}, group4)
	}
	return err
}

// send puts a query on each interface: over IPv4 where it has an IPv4 address,
// else over IPv6, since all devices listen on both families; over both when asked
// to. It fails when not one packet got out; those on loopback count only where
// there is nothing else.
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
		use4 := e.v4 != nil && i.has(false)
		if use4 {
			note(i, e.write(b, medium{i.Index, false}))
		}
		if e.v6 != nil && (both || !use4) {
			note(i, e.write(b, medium{i.Index, true}))
		}
	}
	if sent == 0 {
		return errors.Join(append(errs, e.joins)...)
	}
	return nil
}

// replies are the media for the answer to a query that came in on one: that one, since
// who asks on it listens to it; also the other of the interface if this host has no address
// for it, without which packets do not get through everywhere.
func (e *ears) replies(to medium) []medium {
	if i := e.iface(to.ifIndex); i == nil || i.has(to.six) {
		return []medium{to}
	}
	return []medium{to, {to.ifIndex, !to.six}}
}

// listen4 and listen6 pass on what concerns the service and comes in on a joined
// interface, until the socket is closed or fails; that error is returned.
func (e *ears) listen4(ctx context.Context, out chan<- heard) error {
	return e.listen(ctx, out, func(b []byte) (n int, on medium, dst net.IP, src net.Addr, err error) {
		n, cm, src, err := e.v4.ReadFrom(b)
		if err != nil || cm == nil {
			return n, medium{}, nil, src, err
		}
		return n, medium{cm.IfIndex, false}, cm.Dst, src, nil
	})
}

func (e *ears) listen6(ctx context.Context, out chan<- heard) error {
	return e.listen(ctx, out, func(b []byte) (n int, on medium, dst net.IP, src net.Addr, err error) {
		n, cm, src, err := e.v6.ReadFrom(b)
		if err != nil || cm == nil {
			return n, medium{}, nil, src, err
		}
		return n, medium{cm.IfIndex, true}, cm.Dst, src, nil
	})
}

func (e *ears) listen(ctx context.Context, out chan<- heard, read func([]byte) (int, medium, net.IP, net.Addr, error)) error {
	buf := make([]byte, maxPacket)
	for {
		n, on, dst, src, err := read(buf)
		if err != nil {
			return err
		}
		if e.iface(on.ifIndex) == nil {
			continue // joined by another program, not by us
		}
		// RFC 6762, 11: what was sent to the group is of this link, whatever its source
		// says; what was sent to us alone, the socket being bound to the port, may be of
		// anywhere. Nobody has reason to: we do not ask for answers by unicast.
		if !dst.Equal(group4.IP) && !dst.Equal(group6.IP) {
			continue
		}
		if u, ok := src.(*net.UDPAddr); !ok || u.Port != mdnsPort {
			continue // RFC 6762, 11, and 6.7: who asks from another port wants unicast
		}
		m, ok := parseMessage(buf[:n], e.own)
		if !ok {
			continue
		}
		select {
		case out <- heard{m, on}:
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
