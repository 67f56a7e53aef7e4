package mdns

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/miekg/dns"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	recordTTL  = 3200    // seconds, of all records but addresses; other versions say the same
	addressTTL = 120     // seconds, of A and AAAA (RFC 6762, 10)
	cacheFlush = 1 << 15 // in the class of records that are ours alone (RFC 6762, 10.2)

	announceTimes = 2           // unsolicited announcements of a registration (RFC 6762, 8.3)
	announceTries = 8           // to make them: an address of IPv6 may not be used for its first seconds
	answerGap     = time.Second // shortest pause between announcements and answers on a medium (RFC 6762, 6)
	answerWait    = 20 * time.Millisecond
	answerSpread  = 100 * time.Millisecond // beyond answerWait, at random: all devices are asked at once
)

// registration is our entry on the network: its name, and its records. Nobody else has
// records of these names, but for the two PTR.
type registration struct {
	instance                          string
	service, types, srv, txt, address dns.RR
	has                               wants  // what there is an answer to
	announcement, goodbye             []byte // packets: all of it; that it is no more
}

// newRegistration makes the entry of a device, under an instance name that has never
// been used: whoever remembers a former one, of a smaller number, then takes this for
// the latest.
func newRegistration(key [32]byte, id peer.ID, addrs []ma.Multiaddr, number uint64) (*registration, error) {
	if len(addrs) == 0 {
		return nil, errNoAddress
	}
	nonce := newNonce(number)
	text, err := newCard(key, nonce, id, addrs).encode()
	if err != nil {
		return nil, err
	}
	// Devices read the card; SRV and A or AAAA are for others, to whom one address will do.
	ip, _, _ := split(addrs[0])
	port, err := strconv.ParseUint(addrs[0][1].Value(), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	// The host name is the instance too: the machine's own name is nobody's business.
	name, host := nonce+"."+serviceName, hostName(nonce)
	head := func(name string, typ uint16, class uint16, ttl uint32) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: typ, Class: class, Ttl: ttl}
	}
	const ours = dns.ClassINET | cacheFlush
	r := &registration{
		instance: nonce,
		service:  &dns.PTR{Hdr: head(serviceName, dns.TypePTR, dns.ClassINET, recordTTL), Ptr: name},
		types:    &dns.PTR{Hdr: head(typesName, dns.TypePTR, dns.ClassINET, recordTTL), Ptr: serviceName},
		srv:      &dns.SRV{Hdr: head(name, dns.TypeSRV, ours, recordTTL), Port: uint16(port), Target: host},
		txt:      &dns.TXT{Hdr: head(name, dns.TypeTXT, ours, recordTTL), Txt: text},
	}
	if ip.Is4() {
		r.address = &dns.A{Hdr: head(host, dns.TypeA, ours, addressTTL), A: ip.AsSlice()}
		r.has = wantsShared | wantsInstance | wantsA
	} else {
		r.address = &dns.AAAA{Hdr: head(host, dns.TypeAAAA, ours, addressTTL), AAAA: ip.AsSlice()}
		r.has = wantsShared | wantsInstance | wantsAAAA
	}
	// The service goes on to be there (r.types) when we say goodbye: others have it.
	all := []dns.RR{r.srv, r.txt, r.service, r.address}
	if r.announcement, err = packed(append(slices.Clone(all), r.types), nil); err != nil {
		return nil, err
	}
	// Not with dns.Copy, with which the program has the copying of all types that there are.
	lives := make([]uint32, len(all))
	for i, rr := range all {
		lives[i], rr.Header().Ttl = rr.Header().Ttl, 0 // RFC 6762, 10.1
	}
	r.goodbye, err = packed(all, nil)
	for i, rr := range all {
		rr.Header().Ttl = lives[i]
	}
	return r, err
}

// answer is the packet that says what is wanted, and what goes with it (RFC 6763, 12).
func (r *registration) answer(w wants) ([]byte, error) {
	var answer, extra []dns.RR
	if w&wantsTypes != 0 {
		answer = append(answer, r.types)
	}
	if w&wantsService != 0 {
		answer = append(answer, r.service)
	}
	switch {
	case w&wantsInstance != 0:
		answer = append(answer, r.srv, r.txt)
	case w&wantsService != 0:
		extra = append(extra, r.srv, r.txt)
	}
	switch {
	case w&(wantsA|wantsAAAA) != 0:
		answer = append(answer, r.address)
	case w&(wantsService|wantsInstance) != 0:
		extra = append(extra, r.address)
	}
	return packed(answer, extra)
}

// packed builds a response: without ID or questions (RFC 6762, 18.1 and 6).
func packed(answer, extra []dns.RR) ([]byte, error) {
	m := new(dns.Msg)
	m.Response, m.Authoritative, m.Compress = true, true, true
	m.Answer, m.Extra = answer, extra
	b, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("response: %w", err)
	}
	return b, nil
}

// responder decides when the registration is announced and when queries are answered.
// It has no timer and no socket of its own; the session owns it. Whatever is asked, and
// however often, one packet a second goes out on a medium, and to the group only. What
// is asked in between is answered together when the second is over, so nobody is left
// without an answer.
//
// The name is not probed for: its 64 bits, of the time and random, are drawn by nobody else
// (RFC 6762, 8.1).
type responder struct {
	reg       *registration // nil: there is nothing to say
	media     []medium
	turns     []turn // of each medium
	announced int
	tries     int
	next      time.Time // the next announcement, if announced < announceTimes
}

// turn is when what is pending on a medium goes out.
type turn struct {
	pending wants
	due     time.Time
	last    time.Time // the last packet, but for a goodbye
}

func newResponder(reg *registration, media []medium, now time.Time) *responder {
	return &responder{reg: reg, media: media, turns: make([]turn, len(media)), next: now}
}

// asked notes what a query wants to hear on a medium.
func (r *responder) asked(on medium, w wants, now time.Time) {
	i := slices.Index(r.media, on)
	if r.reg == nil || i < 0 || w&r.reg.has == 0 {
		return
	}
	t, due := &r.turns[i], now
	if w&wantsShared != 0 {
		due = now.Add(answerWait + rand.N(answerSpread))
	}
	if over := t.last.Add(answerGap); due.Before(over) {
		due = over
	}
	if t.pending == 0 || due.Before(t.due) {
		t.due = due
	}
	t.pending |= w & r.reg.has
}

// wake returns when speak has something to do; ok is false when it has not.
func (r *responder) wake() (at time.Time, ok bool) {
	if r.reg == nil {
		return at, false
	}
	if r.announced < announceTimes {
		at, ok = r.next, true
	}
	for _, t := range r.turns {
		if t.pending != 0 && (!ok || t.due.Before(at)) {
			at, ok = t.due, true
		}
	}
	return at, ok
}

// speak sends what is due. An announcement that gets out nowhere is tried again.
func (r *responder) speak(now time.Time, send func([]byte, medium) error) {
	if r.reg == nil {
		return
	}
	announce := r.announced < announceTimes && !now.Before(r.next)
	if announce {
		r.tries++
		r.next = now.Add(time.Second)
	}
	out := false
	for i, on := range r.media {
		t := &r.turns[i]
		switch {
		case announce: // it answers all that is pending, too
			out = send(r.reg.announcement, on) == nil || out
		case t.pending != 0 && !now.Before(t.due):
			if b, err := r.reg.answer(t.pending); err == nil { // all of it has been packed before
				_ = send(b, on) // who asked asks again
			}
		default:
			continue
		}
		t.pending, t.last = 0, now
	}
	switch {
	case !announce:
	case r.tries == announceTries:
		r.announced = announceTimes
	case out:
		r.announced++
	}
}

// goodbye has others forget the registration.
func (r *responder) goodbye(send func([]byte, medium) error) {
	if r.reg == nil {
		return
	}
	for _, on := range r.media {
		_ = send(r.reg.goodbye, on) // without it the entry runs out
	}
}
