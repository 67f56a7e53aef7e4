package mdns

import (
	"fmt"
	"net"
	"slices"
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
	m, ok := parseMessage(pack(t, response("abc", 3200, "n=abc", "t=x")), "")
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
		got, ok := parseMessage(pack(t, m), "")
		if ok != c.ok {
			t.Errorf("%s: %v %+v", name, ok, got)
		}
	}
	if _, ok := parseMessage([]byte("_updraft"), ""); ok {
		t.Error("junk is a message")
	}
	for ttl, want := range map[uint32]time.Duration{0: 0, 1: minTTL, 3200: 3200 * time.Second, 1 << 31: maxTTL} {
		m, _ := parseMessage(pack(t, response("abc", ttl, "n=abc")), "")
		if got := m.announcements[0].ttl; got != want {
			t.Errorf("TTL %d: %v, want %v", ttl, got, want)
		}
	}
	twice := response("abc", 10, "n=abc")
	twice.Extra = append(twice.Extra, &dns.TXT{Hdr: twice.Extra[1].(*dns.TXT).Hdr, Txt: []string{"n=other"}})
	if m, _ := parseMessage(pack(t, twice), ""); len(m.announcements) != 1 || m.announcements[0].text[0] != "n=abc" {
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
	m, ok := parseMessage(b, "")
	if !ok || !m.query || m.id != 7 || len(m.known) != 49 || m.known[48] != list[48] {
		t.Errorf("%v %+v", ok, m)
	}
	for range 5 {
		list = append(list, list...)
	}
	if b, err = question(7, list); err != nil || len(b) > maxPacket {
		t.Errorf("%d devices: %d bytes, %v", len(list), len(b), err)
	}
	if m, _ = parseMessage(b, ""); len(m.known) != maxKnown {
		t.Errorf("%d known answers", len(m.known))
	}
	other := new(dns.Msg)
	other.SetQuestion("abc."+serviceName, dns.TypeSRV)
	if _, ok := parseMessage(pack(t, other), ""); ok {
		t.Error("a lookup of one instance passes for a browse")
	}
}

// TestWants: what a query asks of this device, and what of it the asker knows.
func TestWants(t *testing.T) {
	question := func(name string, typ uint16) dns.Question {
		return dns.Question{Name: name, Qtype: typ, Qclass: dns.ClassINET | unicastWanted}
	}
	ptr := func(name, to string, ttl uint32) *dns.PTR {
		return &dns.PTR{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}, Ptr: to}
	}
	browse, types := question(serviceName, dns.TypePTR), question(typesName, dns.TypePTR)
	var many []dns.Question
	for range maxQuestions {
		many = append(many, question("x."+serviceName, dns.TypeSRV))
	}
	for name, c := range map[string]struct {
		m     dns.Msg
		want  wants
		query bool
		drop  bool
	}{
		"browse":            {m: dns.Msg{Question: []dns.Question{browse}}, want: wantsService, query: true},
		"any":               {m: dns.Msg{Question: []dns.Question{question(serviceName, dns.TypeANY)}}, want: wantsService, query: true},
		"other type":        {m: dns.Msg{Question: []dns.Question{question(serviceName, dns.TypeTXT)}}, drop: true},
		"known":             {m: dns.Msg{Question: []dns.Question{browse}, Answer: []dns.RR{ptr(serviceName, "abc."+serviceName, 1600)}}, query: true},
		"known no longer":   {m: dns.Msg{Question: []dns.Question{browse}, Answer: []dns.RR{ptr(serviceName, "abc."+serviceName, 1599)}}, want: wantsService, query: true},
		"others known":      {m: dns.Msg{Question: []dns.Question{browse}, Answer: []dns.RR{ptr(serviceName, "abd."+serviceName, 3200)}}, want: wantsService, query: true},
		"types":             {m: dns.Msg{Question: []dns.Question{types}}, want: wantsTypes},
		"types known":       {m: dns.Msg{Question: []dns.Question{types}, Answer: []dns.RR{ptr(typesName, serviceName, 1600)}}, drop: true},
		"other types known": {m: dns.Msg{Question: []dns.Question{types}, Answer: []dns.RR{ptr(typesName, "_http._tcp.local.", 3200)}}, want: wantsTypes},
		"instance":          {m: dns.Msg{Question: []dns.Question{question("abc."+serviceName, dns.TypeTXT)}}, want: wantsInstance},
		"other instance":    {m: dns.Msg{Question: []dns.Question{question("abd."+serviceName, dns.TypeTXT)}}, drop: true},
		"host":              {m: dns.Msg{Question: []dns.Question{question("abc.local.", dns.TypeAAAA)}}, want: wantsAAAA},
		"host, any":         {m: dns.Msg{Question: []dns.Question{question("abc.local.", dns.TypeANY)}}, want: wantsA | wantsAAAA},
		"both":              {m: dns.Msg{Question: []dns.Question{types, browse}, Answer: []dns.RR{ptr(serviceName, "abc."+serviceName, 3200)}}, want: wantsTypes, query: true},
		"a probe":           {m: dns.Msg{Question: []dns.Question{browse}, Ns: []dns.RR{ptr(serviceName, "abc."+serviceName, 3200)}}, drop: true},
		"a response":        {m: dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Question: []dns.Question{browse}}, drop: true},
		"the 64th question": {m: dns.Msg{Question: append(slices.Clone(many[1:]), browse)}, want: wantsService, query: true},
		"the 65th question": {m: dns.Msg{Question: append(slices.Clone(many), browse)}, drop: true},
	} {
		c.m.Compress = true
		m, ok := parseMessage(pack(t, &c.m), "abc")
		if ok == c.drop || m.wants != c.want || m.query != c.query {
			t.Errorf("%s: %v %+v", name, ok, m)
		}
	}
	// A device without a registration has no instance and no host.
	lookup := dns.Msg{Question: []dns.Question{question(serviceName, dns.TypeSRV), question("local.", dns.TypeANY)}}
	if m, ok := parseMessage(pack(t, &lookup), ""); ok {
		t.Errorf("%+v", m)
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
	reg := testRegistration(f, "/ip4/10.0.0.1/tcp/1")
	f.Add(reg.announcement)
	f.Add(reg.goodbye)
	lookup := new(dns.Msg)
	lookup.Question = []dns.Question{{Name: "abc." + serviceName, Qtype: dns.TypeANY, Qclass: dns.ClassINET}, {Name: "abc.local.", Qtype: dns.TypeA, Qclass: dns.ClassINET | unicastWanted},
		{Name: typesName, Qtype: dns.TypePTR, Qclass: dns.ClassANY}}
	f.Add(pack(f, lookup))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parseMessage(b, "abc")
		if !ok {
			return
		}
		if len(m.announcements) > 0 && (m.query || m.wants != 0) {
			t.Fatalf("an answer to a response: %+v", m)
		}
		if m.wants != 0 {
			on, now := medium{1, false}, time.Unix(0, 0)
			r := newResponder(reg, []medium{on}, now)
			r.announced = announceTimes
			sent := 0
			for range 3 { // the same again within the second
				r.asked(on, m.wants, now)
				r.speak(now.Add(answerWait+answerSpread), func(answer []byte, _ medium) error {
					if sent++; len(answer) > 600 {
						t.Fatalf("%d bytes", len(answer))
					}
					return nil
				})
			}
			if sent > 1 || sent == 0 && m.wants&reg.has != 0 {
				t.Fatalf("%d answers to %+v", sent, m)
			}
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
