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
	limit int // devices of this site, and again entries of others

	own       string // instance of our present registration
	ownOnLAN  bool   // it came back on another interface than loopback
	outdone   uint64 // the greatest number heard of a registration of ours
	peers     map[peer.ID][]*entry
	left      map[peer.ID]*entry // the latest of those who have said goodbye, until it expires
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

// entry is one registration. Of a device there are at most two: the latest, which
// is the one with the greatest name, and behind it the last heard of those before it.
// Those were dropped when the latest was first heard, so one that is said again is
// not the device's own word, unless its clock went back: it is tried besides.
type entry struct {
	instance string
	peer     peer.ID // empty for another site
	addrs    []ma.Multiaddr
	ip       netip.Addr // of the first
	ttl      time.Duration
	expires  time.Time
	leaves   time.Time // when its goodbye takes effect; zero: none was said
}

// last is when the entry was heard.
func (e *entry) last() time.Time { return e.expires.Add(-e.ttl) }

func newView(key [32]byte, self peer.ID, limit int) *view {
	return &view{
		key: key, self: self, limit: limit,
		peers: make(map[peer.ID][]*entry), left: make(map[peer.ID]*entry),
		instances: make(map[string]*entry), rumours: make(map[string]*rumour),
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
		if number, ok := numberOf(a.instance); ok {
			v.outdone = max(v.outdone, number)
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
	id := fresh.peer
	if v.peers[id] == nil && len(v.peers) >= v.limit {
		v.counts.dropped++
		for _, e := range slices.Clone(v.peers[v.least()]) {
			out = append(out, v.drop(e)...)
		}
	}
	if e := v.instances[fresh.instance]; e != nil && e.peer != id {
		out = append(out, v.drop(e)...)
	} else if e != nil && e.leaves.IsZero() {
		// The same registration heard on another interface adds to what is known.
		fresh.addrs = union(fresh.addrs, e.addrs)
	}
	before := v.addrs(id)
	v.rank(fresh)
	if after := v.addrs(id); before == nil || !same(before, after) {
		out = append(out, v.told(id))
	}
	return out
}

// rank puts an entry in its place among those of its device.
func (v *view) rank(fresh *entry) {
	id, had := fresh.peer, v.peers[fresh.peer]
	if l := v.left[id]; l != nil && len(had) == 0 {
		had = []*entry{l} // who forges a goodbye clears no room for an older one
	}
	now := []*entry{fresh}
	switch {
	case len(had) == 0, fresh.instance > had[0].instance:
	case fresh.instance == had[0].instance:
		now = append(now, had[1:]...)
	default:
		now = []*entry{had[0], fresh}
	}
	for _, e := range had {
		delete(v.instances, e.instance)
	}
	for _, e := range now {
		v.instances[e.instance] = e
		delete(v.rumours, e.instance)
	}
	v.peers[id] = now
	delete(v.left, id)
}

// addrs is where a device may be: what each of its entries says in turn, so that
// all are tried at once and none takes all the room.
func (v *view) addrs(id peer.ID) (out []ma.Multiaddr) {
	for i := range maxAddrs {
		for _, e := range v.peers[id] {
			if i < len(e.addrs) {
				out = union(out, e.addrs[i:i+1])
			}
		}
	}
	return out
}

// told is the event that says what is known of a device now.
func (v *view) told(id peer.ID) discovery.Event {
	addrs := v.addrs(id)
	return discovery.Event{Peer: peer.AddrInfo{ID: id, Addrs: addrs}, Source: Name, Gone: len(addrs) == 0}
}

// least is the device of the site that is worth least: of the address that has the
// most, the one heard longest ago. Who has the site's key can invent devices; a
// real one is missed by nobody to whom it is connected, and is heard again.
func (v *view) least() peer.ID {
	of := make(map[netip.Addr]int)
	for _, es := range v.peers {
		of[es[0].ip]++
	}
	var out *entry
	for _, es := range v.peers {
		if e := es[0]; out == nil || of[e.ip] > of[out.ip] || of[e.ip] == of[out.ip] && e.last().Before(out.last()) {
			out = e
		}
	}
	return out.peer
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
	if e := v.instances[instance]; e != nil && instance != v.own && e.leaves.IsZero() {
		e.leaves = now.Add(goodbyeGrace)
	}
}

// drop removes an entry from all indexes and returns the event that tells of it.
func (v *view) drop(e *entry) []discovery.Event {
	delete(v.instances, e.instance)
	switch e.peer {
	case "":
		v.foreign--
		return nil
	case v.self:
		return nil
	}
	es := slices.DeleteFunc(v.peers[e.peer], func(o *entry) bool { return o == e })
	v.peers[e.peer] = es
	if len(es) == 0 {
		delete(v.peers, e.peer)
	}
	return []discovery.Event{v.told(e.peer)}
}

// expire drops what was not heard again in time, or has said goodbye, and returns
// the events.
func (v *view) expire(now time.Time) []discovery.Event {
	var out []discovery.Event
	for _, e := range v.instances {
		if !v.over(e, now) {
			continue
		}
		out = append(out, v.drop(e)...)
		if e.peer != "" && len(v.peers[e.peer]) == 0 && now.Before(e.expires) && len(v.left) < v.limit {
			v.left[e.peer] = e
		}
	}
	for id, e := range v.left {
		if !now.Before(e.expires) {
			delete(v.left, id)
		}
	}
	for name, ru := range v.rumours {
		if !now.Before(ru.expires) {
			delete(v.rumours, name)
		}
	}
	return out
}

// over reports whether an entry is to be dropped. The latest of two is not, for a
// goodbye: anybody can say that.
func (v *view) over(e *entry, now time.Time) bool {
	if !now.Before(e.expires) {
		return true
	}
	es := v.peers[e.peer]
	return !e.leaves.IsZero() && !now.Before(e.leaves) && !(len(es) > 1 && es[0] == e)
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
	var es []*entry
	for _, e := range v.instances {
		if left := e.expires.Sub(now); e.leaves.IsZero() && left >= e.ttl/2+time.Second {
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b *entry) int {
		return cmp.Or(b.expires.Compare(a.expires), cmp.Compare(a.instance, b.instance))
	})
	out := make([]known, len(es))
	for i, e := range es {
		out[i] = known{e.instance, e.expires.Sub(now)}
	}
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

// misses reports whether somebody has not answered though asked more than once, or has
// never been heard though others know of it.
func (v *view) misses(now time.Time) bool {
	for _, es := range v.peers {
		if e := es[0]; e.leaves.IsZero() && e.expires.Sub(now) < e.ttl/4 {
			return true
		}
	}
	for _, ru := range v.rumours {
		if ru.asks < maxAsks {
			return true
		}
	}
	return false
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
