package mdns

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func testRegistration(t testing.TB, addr string) *registration {
	t.Helper()
	reg, err := newRegistration(testKey, testPeer(t, 1), testAddrs(t, addr), 7)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// TestResponder: one packet a second on a medium, and nothing that is asked gets lost.
func TestResponder(t *testing.T) {
	reg := testRegistration(t, "/ip4/10.0.0.1/tcp/1")
	v4, v6, gone := medium{2, false}, medium{2, true}, medium{9, false}
	now := time.Unix(1e9, 0)
	r := newResponder(reg, []medium{v4, v6}, now)
	type packet struct {
		on  medium
		msg dns.Msg
	}
	// until lets time pass, and returns what was sent.
	until := func(end time.Time) (out []packet) {
		t.Helper()
		for {
			at, ok := r.wake()
			if !ok || at.After(end) {
				now = end
				return out
			}
			now = at
			before := len(out)
			r.speak(now, func(b []byte, on medium) error {
				p := packet{on: on}
				if err := p.msg.Unpack(b); err != nil {
					t.Fatal(err)
				}
				out = append(out, p)
				return nil
			})
			if len(out) == before {
				t.Fatal("awake for nothing")
			}
		}
	}
	began := now
	if got := until(now); len(got) != 2 || got[0].on != v4 || got[1].on != v6 {
		t.Fatalf("at the start: %+v", got)
	}
	r.asked(v4, wantsService, now.Add(time.Millisecond))
	if got := until(began.Add(time.Second - 1)); len(got) > 0 {
		t.Fatalf("within a second of the announcement: %+v", got)
	}
	if got := until(began.Add(time.Hour)); len(got) != 2 || len(got[0].msg.Answer) != 5 {
		t.Fatalf("the second announcement is not all that is said: %+v", got)
	}

	for range 100 {
		now = now.Add(time.Minute)
		r.asked(v6, wantsService, now)
		at, ok := r.wake()
		if !ok {
			t.Fatal("no answer is due")
		}
		between(t, "an answer that others have too", at.Sub(now), 20*time.Millisecond, 120*time.Millisecond)
		r.asked(v6, wantsInstance, now)
		if at, _ = r.wake(); !at.Equal(now) {
			t.Errorf("an answer that only we have is due after %v", at.Sub(now))
		}
		got := until(now)
		if len(got) != 1 || got[0].on != v6 || len(got[0].msg.Answer) != 3 || len(got[0].msg.Extra) != 1 {
			t.Fatalf("%+v", got)
		}
		// A flood within the second.
		asked := now
		for range 1000 {
			now = now.Add(100 * time.Microsecond)
			for _, w := range []wants{wantsService, wantsTypes, wantsInstance, wantsA} {
				r.asked(v6, w, now)
			}
			r.asked(v4, wantsAAAA, now) // there is none
			r.asked(gone, wantsService, now)
		}
		if at, _ = r.wake(); !at.Equal(asked.Add(time.Second)) {
			t.Errorf("the next is due %v after the last", at.Sub(asked))
		}
		if got = until(now.Add(time.Hour)); len(got) != 1 || len(got[0].msg.Answer) != 5 {
			t.Fatalf("%+v", got)
		}
	}
	var bye []medium
	r.goodbye(func(b []byte, on medium) error {
		if m, ok := parseMessage(b, ""); !ok || len(m.announcements) != 1 || m.announcements[0].ttl != 0 || m.announcements[0].instance != reg.instance {
			t.Errorf("%+v", m)
		}
		bye = append(bye, on)
		return nil
	})
	if !slices.Equal(bye, []medium{v4, v6}) {
		t.Errorf("goodbye on %v", bye)
	}

	r = newResponder(nil, []medium{v4}, now)
	r.asked(v4, wantsService, now)
	none := func([]byte, medium) error { t.Error("something is said without a registration"); return nil }
	r.speak(now, none)
	r.goodbye(none)
	if _, ok := r.wake(); ok {
		t.Error("something is due without a registration")
	}

	// An announcement that gets out nowhere is made again, a few times; one that gets out somewhere is not.
	for works, want := range map[int]int{1: 2, 4: 5, 100: announceTries} {
		r, tries := newResponder(reg, []medium{v4, v6}, now), 0
		for at, ok := r.wake(); ok; at, ok = r.wake() {
			tries++
			r.speak(at, func(_ []byte, on medium) error {
				if on == v4 || tries < works {
					return errors.New("cannot assign requested address")
				}
				return nil
			})
		}
		if tries != want {
			t.Errorf("announced %d times where the %dth works", tries, works)
		}
	}
}

// TestRegistrationRecords: what is announced is what devices read, over either family.
func TestRegistrationRecords(t *testing.T) {
	for addr, typ := range map[string]uint16{"/ip4/10.0.0.1/tcp/4001": dns.TypeA, "/ip6/fd00::1/udp/4001/quic-v1": dns.TypeAAAA} {
		reg := testRegistration(t, addr)
		if reg.address.Header().Rrtype != typ || reg.srv.(*dns.SRV).Port != 4001 {
			t.Errorf("%s: %v, %v", addr, reg.address, reg.srv)
		}
		browse, err := reg.answer(wantsService)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{reg.announcement, browse} {
			m, ok := parseMessage(b, "")
			if !ok || len(m.announcements) != 1 || m.query {
				t.Fatalf("%s: %+v", addr, m)
			}
			a := m.announcements[0]
			c, err := parseCard(a.text)
			if err != nil || c.verify(testKey) != nil || c.nonce != a.instance || a.instance != reg.instance || a.ttl != recordTTL*time.Second {
				t.Errorf("%s: %+v, %v", addr, a, err)
			}
		}
	}
	if _, err := newRegistration(testKey, testPeer(t, 1), nil, 7); err == nil {
		t.Error("registered without an address")
	}
}

// TestReplies: an answer goes out where the question came in, and over the other family too
// where this host has no address for that.
func TestReplies(t *testing.T) {
	e := &ears{ifaces: []iface{nic(1, "eth0", "urm", "10.0.0.1", "fd00::1"), nic(2, "eth1", "urm", "fd00::1")}}
	for to, want := range map[medium][]medium{
		{1, false}: {{1, false}},
		{1, true}:  {{1, true}},
		{2, true}:  {{2, true}},
		{2, false}: {{2, false}, {2, true}},
	} {
		if got := e.replies(to); !slices.Equal(got, want) {
			t.Errorf("%v: %v, want %v", to, got, want)
		}
	}
}
