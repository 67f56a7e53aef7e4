package mdns_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"updraft/discovery/mdns"

	"github.com/grandcat/zeroconf"
	"github.com/miekg/dns"
)

const serviceName = "_updraft._tcp.local."

// kinds lists the types of records in order: "PTR,TXT".
func kinds(rrs []dns.RR) string {
	var out []string
	for _, rr := range rrs {
		out = append(out, dns.TypeToString[rr.Header().Rrtype])
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// A device announces itself twice on each family, unasked, and says goodbye.
func TestAnnouncements(t *testing.T) {
	if inside(t) {
		return
	}
	p, _, stop := tapped(t)
	instance := p.announced()
	time.Sleep(2 * time.Second)
	for _, six := range []bool{false, true} {
		got := p.responses(six)
		if len(got) != 2 {
			t.Errorf("%d packets, unasked", len(got))
		}
		for _, d := range got {
			m := d.msg
			if m.Id != 0 || !m.Authoritative || len(m.Question) > 0 || kinds(m.Answer) != "A,PTR,PTR,SRV,TXT" || len(m.Extra) > 0 {
				t.Errorf("%v", m)
			}
			if d.dst.String() != group(six) || d.src.Port() != 5353 || d.hops != 255 {
				t.Errorf("%v -> %v, %d hops", d.src, d.dst, d.hops)
			}
			for _, rr := range m.Answer {
				h, ttl := rr.Header(), uint32(3200)
				if h.Rrtype == dns.TypeA {
					ttl = 120
				}
				if shared := h.Rrtype == dns.TypePTR; h.Ttl != ttl || (h.Class == dns.ClassINET) != shared {
					t.Errorf("%v", rr)
				}
				if srv, ok := rr.(*dns.SRV); ok && (srv.Port != 4000 || srv.Target != instance+".local.") {
					t.Errorf("%v", rr)
				}
			}
		}
	}
	stop()
	for _, six := range []bool{false, true} {
		eventually(t, "goodbye", 20*time.Second, func() bool { return len(p.responses(six)) == 3 })
		m := p.responses(six)[2].msg
		if kinds(m.Answer) != "A,PTR,SRV,TXT" || slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { return rr.Header().Ttl != 0 }) {
			t.Errorf("%v", m)
		}
	}
	settled(t)
}

// Whatever is asked about the device is answered, on the family of the question.
func TestAnswers(t *testing.T) {
	if inside(t) {
		return
	}
	p, _, _ := tapped(t)
	instance := p.announced()
	const in, unicast = dns.ClassINET, dns.ClassINET | 1<<15
	services := dns.Question{Name: "_services._dns-sd._udp.local.", Qtype: dns.TypePTR, Qclass: in}
	for name, c := range map[string]struct {
		questions     []dns.Question
		answer, extra string
	}{
		"the service":             {[]dns.Question{{Name: serviceName, Qtype: dns.TypePTR, Qclass: in}}, "PTR", "A,SRV,TXT"},
		"the service, any":        {[]dns.Question{{Name: serviceName, Qtype: dns.TypeANY, Qclass: dns.ClassANY}}, "PTR", "A,SRV,TXT"},
		"the service, by unicast": {[]dns.Question{{Name: serviceName, Qtype: dns.TypePTR, Qclass: unicast}}, "PTR", "A,SRV,TXT"},
		"the services":            {[]dns.Question{services}, "PTR", ""},
		"the instance":            {[]dns.Question{{Name: instance + "." + serviceName, Qtype: dns.TypeSRV, Qclass: in}}, "SRV,TXT", "A"},
		"the instance's text":     {[]dns.Question{{Name: strings.ToUpper(instance) + "." + serviceName, Qtype: dns.TypeTXT, Qclass: in}}, "SRV,TXT", "A"},
		"the host":                {[]dns.Question{{Name: instance + ".local.", Qtype: dns.TypeA, Qclass: in}}, "A", ""},
		"the host's IPv6 address": {[]dns.Question{{Name: instance + ".local.", Qtype: dns.TypeAAAA, Qclass: in}}, "", ""},
		"another service":         {[]dns.Question{{Name: "_updraft2._tcp.local.", Qtype: dns.TypePTR, Qclass: in}}, "", ""},
		"another instance":        {[]dns.Question{{Name: "0." + serviceName, Qtype: dns.TypeSRV, Qclass: in}}, "", ""},
		"another class":           {[]dns.Question{{Name: serviceName, Qtype: dns.TypePTR, Qclass: dns.ClassCHAOS}}, "", ""},
		"much at once": {[]dns.Question{{Name: serviceName, Qtype: dns.TypePTR, Qclass: in}, services,
			{Name: instance + "." + serviceName, Qtype: dns.TypeANY, Qclass: in}, {Name: instance + ".local.", Qtype: dns.TypeANY, Qclass: in}}, "A,PTR,PTR,SRV,TXT", ""},
	} {
		query := asking(t, nil, c.questions...)
		for _, six := range []bool{false, true} {
			before, other := len(p.responses(six)), len(p.responses(!six))
			p.send(neighbour(six), group(six), query)
			if c.answer == "" {
				time.Sleep(1200 * time.Millisecond)
				if got := p.responses(six)[before:]; len(got) > 0 {
					t.Errorf("%s: %v", name, got[0].msg)
				}
				continue
			}
			eventually(t, "an answer about "+name, 20*time.Second, func() bool { return len(p.responses(six)) > before })
			m := p.responses(six)[before].msg
			if kinds(m.Answer) != c.answer || kinds(m.Extra) != c.extra || len(m.Question) > 0 || m.Id != 0 || !m.Authoritative {
				t.Errorf("%s: %v", name, m)
			}
			if n := len(p.responses(!six)) - other; n > 0 {
				t.Errorf("%s: %d answers on the other family", name, n)
			}
		}
	}
}

// One packet with many questions, again and again, gets one answer a second, on the link
// only, whatever its source says.
func TestManyQuestions(t *testing.T) {
	if inside(t) {
		return
	}
	p, _, _ := tapped(t)
	instance := p.announced()
	// swollen is a packet of as many questions as fit, all but the first with a compressed name.
	swollen := func(name string, typ, class uint16, n int) []byte {
		b := asking(t, nil, dns.Question{Name: name, Qtype: typ, Qclass: class})
		for range n - 1 {
			b = append(b, 0xc0, 12, byte(typ>>8), byte(typ), byte(class>>8), byte(class))
		}
		b[4], b[5] = byte(n>>8), byte(n)
		if len(b) > 1472 {
			t.Fatalf("%d bytes", len(b))
		}
		return b
	}
	const in = dns.ClassINET
	response := swollen(serviceName, dns.TypePTR, in, 238)
	response[2] |= 0x80
	for _, c := range []struct {
		what     string
		packet   []byte
		answered bool
	}{
		{"238 questions", swollen(serviceName, dns.TypePTR, in, 238), true},
		{"238 that wish for unicast", swollen(serviceName, dns.TypePTR, in|1<<15, 238), true},
		{"238 in a response", response, false},
		{"64 for the instance", swollen(instance+"."+serviceName, dns.TypeANY, in, 64), true},
		{"64 for the host, by unicast", swollen(instance+".local.", dns.TypeA, in|1<<15, 64), true},
	} {
		before := [2]int{len(p.responses(false)), len(p.responses(true))}
		began := time.Now()
		for time.Since(began) < 2500*time.Millisecond {
			for _, src := range []string{neighbour4, internet4} {
				p.send(src+":5353", group(false), c.packet)
			}
			for _, src := range []string{neighbour6, internet6} {
				p.send("["+src+"]:5353", group(true), c.packet)
			}
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(2 * time.Second) // what is pending goes out
		most := int(time.Since(began)/time.Second) + 1
		for i, six := range []bool{false, true} {
			got := p.responses(six)[before[i]:]
			if len(got) > most || (len(got) > 0) != c.answered {
				t.Errorf("%s: %d answers, at most %d", c.what, len(got), most)
			}
			for _, d := range got {
				if d.dst.String() != group(six) || len(d.payload) > 600 {
					t.Errorf("%s: %d bytes to %v", c.what, len(d.payload), d.dst)
					break
				}
			}
		}
	}
}

// What comes in within a second of an answer is answered, too.
func TestNoQueryIsLost(t *testing.T) {
	if inside(t) {
		return
	}
	p, _, _ := tapped(t)
	instance := p.announced()
	browse := asking(t, nil, dns.Question{Name: serviceName, Qtype: dns.TypePTR, Qclass: dns.ClassINET})
	lookup := asking(t, nil, dns.Question{Name: instance + "." + serviceName, Qtype: dns.TypeSRV, Qclass: dns.ClassINET})
	for _, six := range []bool{false, true} {
		for range 3 {
			before := len(p.responses(six))
			p.send(neighbour(six), group(six), browse)
			eventually(t, "an answer", 20*time.Second, func() bool { return len(p.responses(six)) > before })
			p.send(neighbour(six), group(six), browse)
			p.send(neighbour(six), group(six), lookup)
			eventually(t, "answers to what came in after it", 20*time.Second, func() bool {
				var all []dns.RR
				for _, d := range p.responses(six)[before+1:] {
					all = append(all, d.msg.Answer...)
				}
				return kinds(all) == "PTR,SRV,TXT"
			})
			time.Sleep(1200 * time.Millisecond)
		}
	}
}

// Nothing is sent to one address alone: not to who asks from another port, nor to who asks
// this device alone, from wherever.
func TestNoUnicast(t *testing.T) {
	if inside(t) {
		return
	}
	p, _, _ := tapped(t)
	p.announced()
	query := asking(t, nil, dns.Question{Name: serviceName, Qtype: dns.TypePTR, Qclass: dns.ClassINET | 1<<15})
	before := [2]int{len(p.responses(false)), len(p.responses(true))}
	p.send(neighbour4+":4444", group(false), query)
	p.send("["+neighbour6+"]:4444", group(true), query)
	for _, port := range []int{5353, 4444} {
		for _, src := range []string{neighbour4, internet4} {
			p.send(fmt.Sprintf("%s:%d", src, port), device4+":5353", query)
		}
		for _, src := range []string{neighbour6, internet6} {
			p.send(fmt.Sprintf("[%s]:%d", src, port), "["+device6+"]:5353", query)
		}
	}
	time.Sleep(2 * time.Second)
	for i, six := range []bool{false, true} {
		for _, d := range p.responses(six)[before[i]:] {
			t.Errorf("to %v: %v", d.dst, d.msg)
		}
	}
}

// Who lists the device as known is not answered; the site's idle traffic depends on it.
func TestKnownAnswers(t *testing.T) {
	if inside(t) {
		return
	}
	p, _, _ := tapped(t)
	instance := p.announced()
	ptr := func(name, to string, ttl uint32) dns.RR {
		return &dns.PTR{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}, Ptr: to}
	}
	const types = "_services._dns-sd._udp.local."
	for _, c := range []struct {
		question, answer string
		ttl              uint32
		silent           bool
	}{
		{serviceName, instance + "." + serviceName, 3200, true},
		{serviceName, instance + "." + serviceName, 1600, true},
		{serviceName, instance + "." + serviceName, 1599, false},
		{serviceName, "0" + instance[1:] + "." + serviceName, 3200, false},
		{types, serviceName, 1600, true},
		{types, serviceName, 1599, false},
		{types, "_http._tcp.local.", 3200, false},
	} {
		q := dns.Question{Name: c.question, Qtype: dns.TypePTR, Qclass: dns.ClassINET}
		before := len(p.responses(false))
		p.send(neighbour(false), group(false), asking(t, []dns.RR{ptr(c.question, c.answer, c.ttl)}, q))
		if !c.silent {
			eventually(t, fmt.Sprintf("an answer to %+v", c), 20*time.Second, func() bool { return len(p.responses(false)) > before })
			continue
		}
		time.Sleep(1200 * time.Millisecond)
		if n := len(p.responses(false)) - before; n > 0 {
			t.Errorf("%d answers to %+v", n, c)
		}
	}
}

// A device of a version that has its records from zeroconf, and one of this version, find
// each other: the former reads TXT alone, as this one does.
func TestOlderVersion(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	d := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, "/ip4/127.0.0.1/tcp/4000")
	d.start(t)
	older := newID(t)
	want := addrsOf(t, "/ip4/127.0.0.1/tcp/4999")
	name, text, err := mdns.Card(siteKey(1), time.Now(), older, want)
	if err != nil {
		t.Fatal(err)
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	registered, err := zeroconf.RegisterProxy(name, "_updraft._tcp", "local", 4999, name, []string{"127.0.0.1"}, text, []net.Interface{*lo})
	if err != nil {
		t.Fatal(err)
	}
	defer registered.Shutdown()
	eventually(t, "the older device is found", 20*time.Second, func() bool {
		got := d.knows(older)
		return len(got) == 1 && got[0].Equal(want[0])
	})
	resolver, err := zeroconf.NewResolver(zeroconf.SelectIfaces([]net.Interface{*lo}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	found := make(chan *zeroconf.ServiceEntry, 10)
	if err := resolver.Browse(ctx, "_updraft._tcp", "local", found); err != nil {
		t.Fatal(err)
	}
	for e := range found {
		if slices.Contains(e.Text, "p="+d.id.String()) && slices.Contains(e.Text, "a=ip4/127.0.0.1/tcp/4000") {
			cancel()
			for range found {
			}
			return
		}
	}
	t.Error("the older device does not hear this one")
}
