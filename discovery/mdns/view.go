package mdns

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"time"

	"updraft/discovery"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// goodbyeGrace is how long an entry outlives its goodbye. A device that registers
// again under a new instance says goodbye to the old one first; the pause keeps
// that from looking like a departure.
const goodbyeGrace = 3 * time.Second

// maxAsks is how many queries of ours go without an answer from a device that
// others know, before it is taken for dead.
const maxAsks = 6

// view is what has been heard: the entries of this site, and of other sites
// only that they exist, since their devices answer our queries too. It has no
// clock and no goroutine; Run owns it.
type view struct {
	key   [32]byte
	self  peer.ID
	limit int // entries of this site, and again of others

	own       string // instance of our present registration
	ownOnLAN  bool   // it came back on another interface than loopback
	peers     map[peer.ID]*entry
	instances map[string]*entry  // of this site, ours included, and of others
	rumours   map[string]*rumour // instances that others list and we do not know
	foreign   int                // entries of other sites

	counts struct{ foreign, malformed, dropped int64 }
}

// rumour is an instance that others know and we do not, or not any more: its
// announcements were lost, or it has died.
type rumour struct {
	asks    int // queries of ours since it was first heard of
	expires time.Time
}

// entry is one registration.
type entry struct {
	instance string
	peer     peer.ID // empty for another site
	addrs    []ma.Multiaddr
	ip       netip.Addr // of the first
	ttl      time.Duration
	expires  time.Time
	leaving  bool // goodbye was said
}

func newView(key [32]byte, self peer.ID, limit int) *view {
	return &view{
		key: key, self: self, limit: limit,
		peers: make(map[peer.ID]*entry), instances: make(map[string]*entry), rumours: make(map[string]*rumour),
	}
}

// heard takes one announcement in, which came in on the named interface. It
// returns the events to send.
func (v *view) heard(a announcement, ifName string, loopback bool, now time.Time) []discovery.Event {
	if a.ttl == 0 {
		v.goodbye(a.instance, now)
		return nil
	}
	c, err := parseCard(a.text)
	if err == nil {
		err = c.verify(v.key)
	}
	switch {
	case errors.Is(err, errForeign):
		v.counts.foreign++
		v.noteForeign(a, now)
		return nil
	case err != nil, a.instance != c.nonce: // what another instance said, said again by anybody
		v.counts.malformed++
		return nil
	}
	fresh := &entry{instance: a.instance, peer: c.peer, ttl: a.ttl, expires: now.Add(a.ttl)}
	if c.peer == v.self {
		// Our own voice comes back by multicast loop; others heard it as well.
		if a.instance == v.own {
			v.instances[a.instance] = fresh
			v.ownOnLAN = v.ownOnLAN || !loopback
		}
		return nil
	}
	fresh.addrs = addresses(c, ifName, loopback)
	if len(fresh.addrs) == 0 {
		return nil
	}
	if ip, err := manet.ToIP(fresh.addrs[0]); err == nil {
		fresh.ip, _ = netip.AddrFromSlice(ip)
	}
	return v.store(fresh)
}

func (v *view) store(fresh *entry) (out []discovery.Event) {
	old := v.peers[fresh.peer]
	if old == nil && len(v.peers) >= v.limit {
		v.counts.dropped++
		e := v.least()
		v.drop(e)
		out = append(out, e.gone())
	}
	if old != nil && old.instance != fresh.instance {
		delete(v.instances, old.instance)
	}
	if old != nil && old.instance == fresh.instance && !old.leaving {
		// The same registration heard on another interface adds to what is known.
		fresh.addrs = union(fresh.addrs, old.addrs)
	}
	if other := v.instances[fresh.instance]; other != nil && other.peer != fresh.peer {
		v.drop(other)
	}
	v.peers[fresh.peer] = fresh
	v.instances[fresh.instance] = fresh
	delete(v.rumours, fresh.instance)
	if old != nil && same(old.addrs, fresh.addrs) {
		return out
	}
	return append(out, discovery.Event{Peer: peer.AddrInfo{ID: fresh.peer, Addrs: slices.Clone(fresh.addrs)}, Source: Name})
}

// least is the entry of the site that is worth least: of the address that has the
// most, the one heard longest ago. Who has the site's key can invent devices; a
// real one is missed by nobody to whom it is connected, and is heard again.
func (v *view) least() *entry {
	of := make(map[netip.Addr]int)
	for _, e := range v.peers {
		of[e.ip]++
	}
	var out *entry
	for _, e := range v.peers {
		if out == nil || of[e.ip] > of[out.ip] || of[e.ip] == of[out.ip] && e.last().Before(out.last()) {
			out = e
		}
	}
	return out
}

// last is when the entry was heard; earlier if it is leaving.
func (e *entry) last() time.Time { return e.expires.Add(-e.ttl) }

func (e *entry) gone() discovery.Event {
	return discovery.Event{Peer: peer.AddrInfo{ID: e.peer}, Source: Name, Gone: true}
}

func (v *view) noteForeign(a announcement, now time.Time) {
	if v.instances[a.instance] == nil {
		if v.foreign >= v.limit {
			return
		}
		v.foreign++
	} else if v.instances[a.instance].peer != "" {
		return // an instance of this site is not taken over
	}
	v.instances[a.instance] = &entry{instance: a.instance, ttl: a.ttl, expires: now.Add(a.ttl)}
}

func (v *view) goodbye(instance string, now time.Time) {
	if e := v.instances[instance]; e != nil && instance != v.own {
		e.leaving = true
		if t := now.Add(goodbyeGrace); t.Before(e.expires) {
			e.expires = t
		}
	}
}

// drop removes an entry from all indexes.
func (v *view) drop(e *entry) {
	delete(v.instances, e.instance)
	if e.peer == "" {
		v.foreign--
	} else if v.peers[e.peer] == e {
		delete(v.peers, e.peer)
	}
}

// expire drops what was not heard again in time and returns the events.
func (v *view) expire(now time.Time) []discovery.Event {
	var out []discovery.Event
	for _, e := range v.instances {
		if now.Before(e.expires) {
			continue
		}
		v.drop(e)
		if e.peer != "" && e.peer != v.self {
			out = append(out, e.gone())
		}
	}
	for name, ru := range v.rumours {
		if !now.Before(ru.expires) {
			delete(v.rumours, name)
		}
	}
	return out
}

// renew forgets our former registration and notes the new instance.
func (v *view) renew(instance string) {
	if e := v.instances[v.own]; e != nil && e.peer == v.self {
		delete(v.instances, v.own)
	}
	v.own, v.ownOnLAN = instance, false
}

// ownHeard reports whether our present registration came back to us, by another
// interface than loopback if there is one.
func (v *view) ownHeard(onLAN bool) bool {
	return v.own != "" && v.instances[v.own] != nil && (v.ownOnLAN || !onLAN)
}

// known lists who need not answer a query: all entries that have at least half
// of their life left, longest first, since the list may be cut.
func (v *view) known(now time.Time) []known {
	var out []known
	for _, e := range v.instances {
		if left := e.expires.Sub(now); !e.leaving && left >= e.ttl/2+time.Second {
			out = append(out, known{e.instance, left})
		}
	}
	slices.SortFunc(out, func(a, b known) int {
		return cmp.Or(cmp.Compare(b.ttl, a.ttl), cmp.Compare(a.instance, b.instance))
	})
	return out
}

// covers reports whether a query of somebody else, with its list of known
// answers, brings us all that a query of ours would: nothing is on the list that
// we lack and that might still answer us.
func (v *view) covers(list []known, now time.Time) bool {
	ok := true
	for _, k := range list {
		if v.instances[k.instance] != nil || k.instance == v.own {
			continue
		}
		ru := v.rumours[k.instance]
		if ru == nil {
			if len(v.rumours) >= v.limit {
				continue
			}
			ru = &rumour{expires: now.Add(maxTTL)}
			v.rumours[k.instance] = ru
		}
		ok = ok && ru.asks >= maxAsks
	}
	return ok
}

// asking notes a query of ours.
func (v *view) asking() {
	for _, ru := range v.rumours {
		ru.asks++
	}
}

// responders is how many answer a query that lists nobody.
func (v *view) responders() int { return len(v.peers) + v.foreign }

// addresses returns where the device can be dialled, seen from the interface on
// which its announcement came in.
func addresses(c card, ifName string, loopback bool) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, m := range c.addrs {
		if ip, rest, ok := split(m); ok {
			if m, ok := dialable(ip, rest, ifName, loopback); ok && !slices.ContainsFunc(out, m.Equal) {
				out = append(out, m)
			}
		}
	}
	return out
}

// split takes a plain address with a port apart; see plain.
func split(m ma.Multiaddr) (ip netip.Addr, rest string, ok bool) {
	if !plain(m) {
		return netip.Addr{}, "", false
	}
	ip, err := netip.ParseAddr(m[0].Value())
	return ip.Unmap(), m[1:].String(), err == nil && m[1].Value() != "0"
}

// dialable builds an address: loopback only if it was heard there, link-local
// IPv6 with the zone of the interface where it was heard.
func dialable(ip netip.Addr, rest, ifName string, loopback bool) (ma.Multiaddr, bool) {
	switch {
	case !ip.IsValid(), ip.IsUnspecified(), ip.IsMulticast(), ip.IsLoopback() && !loopback:
		return nil, false
	}
	s := "/ip4/" + ip.WithZone("").String()
	if ip.Is6() {
		s = "/ip6/" + ip.WithZone("").String()
		if ip.IsLinkLocalUnicast() {
			if ifName == "" {
				return nil, false
			}
			s = "/ip6zone/" + ifName + s
		}
	}
	m, err := ma.NewMultiaddr(s + rest)
	return m, err == nil
}

func union(a, b []ma.Multiaddr) []ma.Multiaddr {
	for _, m := range b {
		if len(a) < maxAddrs && !slices.ContainsFunc(a, m.Equal) {
			a = append(a, m)
		}
	}
	return a
}

func same(a, b []ma.Multiaddr) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(m ma.Multiaddr) bool { return !slices.ContainsFunc(b, m.Equal) })
}
