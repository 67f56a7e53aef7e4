package mdns_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"updraft/discovery/mdns"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// tap is the far end of a device's cable: it sees each frame that leaves the device, and
// can send any.
type tap struct {
	t    *testing.T
	fd   int
	far  net.Interface
	near net.Interface

	mu  sync.Mutex // guards got
	got []datagram
}

// datagram is one over UDP, in either direction.
type datagram struct {
	src, dst netip.AddrPort
	hops     byte // TTL or hop limit
	payload  []byte
	msg      *dns.Msg // what the payload says; nil: no DNS
}

// The device's addresses, those of its neighbour and router, and one on the Internet.
const (
	device4, device6     = "10.9.0.1", "fd99::1"
	neighbour4           = "10.9.0.77"
	neighbour6           = "fd99::77"
	internet4, internet6 = "203.0.113.9", "2001:db8::9"
)

// newTap makes the interface d0, with an address of each family and a way to the Internet,
// and taps its cable.
func newTap(t *testing.T) *tap {
	t.Helper()
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "d0", "type", "veth", "peer", "name", "d1")
	for _, dev := range []string{"d0", "d1"} {
		ip(t, "link", "set", dev, "addrgenmode", "none") // link-local addresses would come later
		ip(t, "link", "set", dev, "mtu", "1600")         // for what takes 1500 bytes over IPv4, over IPv6 as well
		ip(t, "link", "set", dev, "up")
	}
	ip(t, "addr", "add", device4+"/24", "dev", "d0")
	ip(t, "addr", "add", device6+"/64", "dev", "d0", "nodad")
	for _, router := range []string{neighbour4, neighbour6} {
		ip(t, "neigh", "add", router, "lladdr", "02:00:00:00:00:77", "dev", "d0", "nud", "permanent")
		ip(t, "route", "add", "default", "via", router, "dev", "d0")
	}
	near, err := net.InterfaceByName("d0")
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.InterfaceByName("d1")
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in the order of the network
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: far.Index}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
		t.Fatal(err)
	}
	p := &tap{t: t, fd: fd, far: *far, near: *near}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); p.read(end) }()
	t.Cleanup(func() { close(end); <-ended; unix.Close(fd) })
	return p
}

func (p *tap) read(end <-chan struct{}) {
	b := make([]byte, 1<<16)
	for {
		select {
		case <-end:
			return
		default:
		}
		n, from, err := unix.Recvfrom(p.fd, b, 0)
		if l, ok := from.(*unix.SockaddrLinklayer); err != nil || !ok || l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if d, ok := parseFrame(b[:n]); ok {
			p.mu.Lock()
			p.got = append(p.got, d)
			p.mu.Unlock()
		}
	}
}

// parseFrame reads a frame if it holds a whole datagram over UDP.
func parseFrame(b []byte) (d datagram, ok bool) {
	if len(b) < 14 {
		return d, false
	}
	var src, dst netip.Addr
	var udp []byte
	switch typ, b := binary.BigEndian.Uint16(b[12:]), b[14:]; {
	case typ == unix.ETH_P_IP && len(b) >= 28 && b[0] == 0x45 && b[9] == unix.IPPROTO_UDP:
		src, dst, d.hops, udp = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[8], b[20:]
	case typ == unix.ETH_P_IPV6 && len(b) >= 48 && b[6] == unix.IPPROTO_UDP:
		src, dst, d.hops, udp = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[7], b[40:]
	default:
		return d, false
	}
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < 8 || length > len(udp) {
		return d, false
	}
	d.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(udp))
	d.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(udp[2:]))
	d.payload = slices.Clone(udp[8:length])
	if m := new(dns.Msg); m.Unpack(d.payload) == nil {
		d.msg = m
	}
	return d, true
}

// send sends a datagram to the device, from whatever source.
func (p *tap) send(src, dst string, payload []byte) {
	p.t.Helper()
	from, to := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	udp := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	udp = append(udp, payload...)
	pseudo := slices.Concat(from.Addr().AsSlice(), to.Addr().AsSlice(), []byte{0, 0, udp[4], udp[5], 0, 0, 0, unix.IPPROTO_UDP}, udp)
	binary.BigEndian.PutUint16(udp[6:], checksum(pseudo))
	var packet []byte
	typ, addr := uint16(unix.ETH_P_IP), to.Addr()
	if addr.Is4() {
		packet = make([]byte, 20)
		packet[0], packet[8], packet[9] = 0x45, 255, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(packet[2:], uint16(20+len(udp)))
		copy(packet[12:], from.Addr().AsSlice())
		copy(packet[16:], addr.AsSlice())
		binary.BigEndian.PutUint16(packet[10:], checksum(packet))
	} else {
		typ = unix.ETH_P_IPV6
		packet = make([]byte, 40)
		packet[0], packet[6], packet[7] = 0x60, unix.IPPROTO_UDP, 255
		binary.BigEndian.PutUint16(packet[4:], uint16(len(udp)))
		copy(packet[8:], from.Addr().AsSlice())
		copy(packet[24:], addr.AsSlice())
	}
	mac := []byte(p.near.HardwareAddr)
	switch low := addr.AsSlice(); {
	case addr.IsMulticast() && addr.Is4():
		mac = []byte{0x01, 0, 0x5e, low[1] & 0x7f, low[2], low[3]}
	case addr.IsMulticast():
		mac = append([]byte{0x33, 0x33}, low[12:]...)
	}
	frame := slices.Concat(mac, p.far.HardwareAddr, binary.BigEndian.AppendUint16(nil, typ), packet, udp)
	if err := unix.Sendto(p.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: p.far.Index}); err != nil {
		p.t.Fatal(err)
	}
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// group is where a family's multicast DNS is sent, and neighbour a source on its link.
func group(six bool) string {
	if six {
		return "[ff02::fb]:5353"
	}
	return "224.0.0.251:5353"
}

func neighbour(six bool) string {
	if six {
		return "[" + neighbour6 + "]:5353"
	}
	return neighbour4 + ":5353"
}

// responses are the device's responses so far, to whomever, of one family.
func (p *tap) responses(six bool) (out []datagram) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.got {
		if d.dst.Addr().Is6() == six && d.msg != nil && d.msg.Response {
			out = append(out, d)
		}
	}
	return out
}

// announced waits until the device has announced itself for the second time, on both
// families, and a second more, so that it may answer at once. It returns its instance.
func (p *tap) announced() (instance string) {
	p.t.Helper()
	for _, six := range []bool{false, true} {
		eventually(p.t, "two announcements", 20*time.Second, func() bool { return len(p.responses(six)) >= 2 })
	}
	time.Sleep(1200 * time.Millisecond)
	for _, rr := range p.responses(false)[0].msg.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			label, _ := dns.NextLabel(txt.Hdr.Name, 0)
			return txt.Hdr.Name[:label-1]
		}
	}
	p.t.Fatal("an announcement without a TXT record")
	return ""
}

// tapped is a device on d0, and the tap of its cable.
func tapped(t *testing.T) (p *tap, d *device, stop func()) {
	t.Helper()
	p = newTap(t)
	d = newDevice(t, mdns.Config{SiteKey: siteKey(1), Interfaces: []string{"d0"}}, "/ip4/"+device4+"/tcp/4000", "/ip6/"+device6+"/tcp/4000")
	return p, d, d.start(t)
}

// asking builds a query.
func asking(t *testing.T, known []dns.RR, questions ...dns.Question) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.Question, m.Answer, m.Compress = questions, known, true
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
