package mdns

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// response builds what a responder sends for one instance.
func response(instance string, ttl uint32, text ...string) *dns.Msg {
	name := instance + "." + serviceName
	host := instance + ".local."
	m := new(dns.Msg)
	m.Response = true
	m.Compress = true
	h := func(name string, typ uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
	}
	m.Answer = []dns.RR{&dns.PTR{Hdr: h(serviceName, dns.TypePTR), Ptr: name}}
	m.Extra = []dns.RR{
		&dns.SRV{Hdr: h(name, dns.TypeSRV), Port: 4001, Target: host},
		&dns.TXT{Hdr: h(name, dns.TypeTXT), Txt: text},
		&dns.A{Hdr: h(host, dns.TypeA), A: net.IPv4(10, 0, 0, 1)},
		&dns.AAAA{Hdr: h(host, dns.TypeAAAA), AAAA: net.ParseIP("fd00::1")},
		&dns.A{Hdr: h("printer.local.", dns.TypeA), A: net.IPv4(10, 0, 0, 99)},
	}
	return m
}

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseResponse(t *testing.T) {
	m, ok := parseMessage(pack(t, response("abc", 3200, "n=abc", "t=x")))
	if !ok || len(m.announcements) != 1 || m.query {
		t.Fatalf("%+v %v", m, ok)
	}
	a := m.announcements[0]
	if a.instance != "abc" || a.ttl != 3200*time.Second || len(a.text) != 2 {
		t.Errorf("%+v", a)
	}
}

func TestParseResponseEdges(t *testing.T) {
	drop := func(typ uint16) func(*dns.Msg) {
		return func(m *dns.Msg) {
			var keep []dns.RR
			for _, rr := range m.Extra {
				if rr.Header().Rrtype != typ {
					keep = append(keep, rr)
				}
			}
			m.Extra = keep
		}
	}
	for name, c := range map[string]struct {
		change func(*dns.Msg)
		ok     bool
	}{
		"no SRV":         {drop(dns.TypeSRV), true},
		"no TXT":         {drop(dns.TypeTXT), false},
		"no A":           {drop(dns.TypeA), true},
		"an error":       {func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }, false},
		"an update":      {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, false},
		"escaped label":  {func(m *dns.Msg) { *m = *response(`a\.b`, 10, "n=x") }, false},
		"long label":     {func(m *dns.Msg) { *m = *response(strings.Repeat("a", 40), 10, "n=x") }, false},
		"cache flush":    {func(m *dns.Msg) { m.Extra[1].Header().Class |= 1 << 15 }, true},
		"upper case":     {func(m *dns.Msg) { *m = *response("ABC", 10, "n=x") }, true},
		"another domain": {func(m *dns.Msg) { m.Extra[1].Header().Name = "abc._updraft._tcp.example." }, false},
	} {
		m := response("abc", 3200, "n=abc")
		c.change(m)
		got, ok := parseMessage(pack(t, m))
		if ok != c.ok {
			t.Errorf("%s: %v %+v", name, ok, got)
		}
	}
	if _, ok := parseMessage([]byte("_updraft")); ok {
		t.Error("junk is a message")
	}
	for ttl, want := range map[uint32]time.Duration{0: 0, 1: minTTL, 3200: 3200 * time.Second, 1 << 31: maxTTL} {
		m, _ := parseMessage(pack(t, response("abc", ttl, "n=abc")))
		if got := m.announcements[0].ttl; got != want {
			t.Errorf("TTL %d: %v, want %v", ttl, got, want)
		}
	}
	twice := response("abc", 10, "n=abc")
	twice.Extra = append(twice.Extra, &dns.TXT{Hdr: twice.Extra[1].(*dns.TXT).Hdr, Txt: []string{"n=other"}})
	if m, _ := parseMessage(pack(t, twice)); len(m.announcements) != 1 || m.announcements[0].text[0] != "n=abc" {
		t.Errorf("one instance, described twice: %+v", m.announcements)
	}
}

func TestQuestion(t *testing.T) {
	var list []known
	for i := range 49 {
		list = append(list, known{fmt.Sprintf("abcdefghijk%02d", i), 1700 * time.Second})
	}
	b, err := question(7, list)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 1452 {
		t.Errorf("a query that lists 49 devices takes %d bytes: more than a packet", len(b))
	}
	m, ok := parseMessage(b)
	if !ok || !m.query || m.id != 7 || len(m.known) != 49 || m.known[48] != list[48] {
		t.Errorf("%v %+v", ok, m)
	}
	for range 5 {
		list = append(list, list...)
	}
	if b, err = question(7, list); err != nil || len(b) > maxPacket {
		t.Errorf("%d devices: %d bytes, %v", len(list), len(b), err)
	}
	if m, _ = parseMessage(b); len(m.known) != maxKnown {
		t.Errorf("%d known answers", len(m.known))
	}
	other := new(dns.Msg)
	other.SetQuestion("abc."+serviceName, dns.TypeSRV)
	if _, ok := parseMessage(pack(t, other)); ok {
		t.Error("a lookup of one instance passes for a browse")
	}
}

// FuzzMessage: any packet is read within bounds.
func FuzzMessage(f *testing.F) {
	f.Add(pack(f, response("abc", 3200, "n=abc", "t=x", "p=y")))
	f.Add(pack(f, response("abc", 0, "n=abc")))
	b, err := question(1, []known{{"abc", time.Hour}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parseMessage(b)
		if !ok {
			return
		}
		if len(m.announcements) > maxRecords || len(m.known) > maxRecords {
			t.Fatalf("%d announcements, %d known", len(m.announcements), len(m.known))
		}
		v := newView([32]byte{}, "self", 4)
		now := time.Unix(0, 0)
		for _, a := range m.announcements {
			if a.instance == "" || len(a.text) == 0 || a.ttl < 0 || a.ttl > maxTTL {
				t.Fatalf("%+v", a)
			}
			v.heard(a, "eth0", true, now)
		}
		v.covers(m.known, now)
		if len(v.instances) > 8 || len(v.rumours) > 4 {
			t.Fatal("beyond the limits")
		}
	})
}
