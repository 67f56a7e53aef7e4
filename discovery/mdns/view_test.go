package mdns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"updraft/discovery"

	"github.com/libp2p/go-libp2p/core/peer"
)

var testKey = [32]byte{1, 2, 3}

const testTTL = 3200 * time.Second

// said builds the announcement of a device.
func said(t testing.TB, id peer.ID, instance string, addrs ...string) announcement {
	t.Helper()
	text, err := newCard(testKey, instance, id, testAddrs(t, addrs...)).encode()
	if err != nil {
		t.Fatal(err)
	}
	return announcement{instance: instance, ttl: testTTL, text: text}
}

func bye(a announcement) announcement { a.ttl = 0; return a }

func told(evs ...discovery.Event) string {
	var out []string
	for _, ev := range evs {
		sign := "+"
		if ev.Gone {
			sign = "-"
		}
		out = append(out, fmt.Sprint(sign, ev.Peer.ID.ShortString()[8:], texts(ev.Peer.Addrs)))
	}
	slices.Sort(out)
	return strings.Join(out, ";")
}

func TestViewLife(t *testing.T) {
	self, id := testPeer(t, 1), testPeer(t, 2)
	v := newView(testKey, self, 10)
	now := time.Unix(1e9, 0)
	hear := func(a announcement) string {
		return told(v.heard(a, "eth0", false, now)...)
	}
	name := id.ShortString()[8:]
	a := said(t, id, "aaaaaaaaaaaaa", "/ip4/10.0.0.1/tcp/1")
	b := said(t, id, "bbbbbbbbbbbbb", "/ip4/10.0.0.2/tcp/1")
	if got, want := hear(a), "+"+name+"[/ip4/10.0.0.1/tcp/1]"; got != want {
		t.Errorf("new: %q, want %q", got, want)
	}
	if got := hear(a); got != "" {
		t.Errorf("repeated: %q", got)
	}
	if got, want := hear(b), "+"+name+"[/ip4/10.0.0.2/tcp/1]"; got != want {
		t.Errorf("moved: %q, want %q", got, want)
	}
	// The old registration's goodbye comes late: it means nothing any more.
	hear(bye(a))
	now = now.Add(time.Minute)
	if got := told(v.expire(now)...); got != "" {
		t.Errorf("late goodbye: %q", got)
	}
	// A goodbye that is followed by a new registration is no departure.
	hear(bye(b))
	now = now.Add(time.Second)
	if got := hear(said(t, id, "ccccccccccccc", "/ip4/10.0.0.2/tcp/1")); got != "" {
		t.Errorf("registered again: %q", got)
	}
	now = now.Add(testTTL - time.Second)
	if got := told(v.expire(now)...); got != "" {
		t.Errorf("before its time: %q", got)
	}
	now = now.Add(time.Second)
	if got, want := told(v.expire(now)...), "-"+name+"[]"; got != want {
		t.Errorf("expired: %q, want %q", got, want)
	}
	if len(v.peers)+len(v.instances) != 0 {
		t.Errorf("left over: %d peers, %d instances", len(v.peers), len(v.instances))
	}
	// And a departure in good order.
	hear(b)
	hear(bye(b))
	if got, want := told(v.expire(now.Add(goodbyeGrace))...), "-"+name+"[]"; got != want {
		t.Errorf("goodbye: %q, want %q", got, want)
	}
}

func TestViewOthers(t *testing.T) {
	self := testPeer(t, 1)
	v := newView(testKey, self, 5)
	now := time.Unix(1e9, 0)
	v.renew("own")
	if evs := v.heard(said(t, self, "own", "/ip4/10.0.0.9/tcp/1"), "eth0", false, now); len(evs) > 0 {
		t.Errorf("own entry: %v", evs)
	}
	if !v.ownHeard(true) || v.responders() != 0 {
		t.Error("own entry not noted")
	}
	foreign := said(t, testPeer(t, 2), "foreign", "/ip4/10.0.0.1/tcp/1")
	foreign.text[1] = "t=" + strings.Repeat("a", tagLen)
	malformed := foreign
	malformed.text = []string{"x"}
	for range 2 {
		if evs := v.heard(foreign, "eth0", false, now); len(evs) > 0 {
			t.Errorf("another site's: %v", evs)
		}
	}
	v.heard(malformed, "eth0", false, now)
	if v.counts.foreign != 2 || v.counts.malformed != 1 || v.foreign != 1 || len(v.peers) != 0 {
		t.Errorf("%+v, foreign %d", v.counts, v.foreign)
	}
	for i := range 5 {
		f := foreign
		f.instance = fmt.Sprint("f", i)
		v.heard(f, "eth0", false, now)
		v.heard(said(t, testPeer(t, byte(10+i)), fmt.Sprint("i", i), "/ip4/10.0.0.1/tcp/1"), "eth0", false, now)
	}
	if v.foreign != 5 || len(v.peers) != 5 {
		t.Errorf("limits: %d foreign, %d peers", v.foreign, len(v.peers))
	}
	// A stranger cannot take over the instance of a device of the site.
	f := foreign
	f.instance = "i0"
	v.heard(f, "eth0", false, now)
	if e := v.instances["i0"]; e == nil || e.peer == "" || v.foreign != 5 {
		t.Error("an instance was taken over")
	}
	// Nor can one who says again what another device of the site said.
	replayed := said(t, testPeer(t, 11), "i1", "/ip4/10.0.0.6/tcp/1")
	replayed.instance = "i0"
	if evs := v.heard(replayed, "eth0", false, now); len(evs) > 0 || v.peers[testPeer(t, 10)] == nil || v.instances["i1"] == nil {
		t.Errorf("an instance was taken over by what was said of another: %v", evs)
	}
	// Nor can it be said again with other addresses.
	elsewhere := said(t, testPeer(t, 10), "i0", "/ip4/10.0.0.1/tcp/1")
	for i := range maxAddrs {
		elsewhere.text = append(elsewhere.text, fmt.Sprintf("a=ip4/10.9.9.%d/tcp/1", i))
	}
	if evs := v.heard(elsewhere, "eth0", false, now); len(evs) > 0 {
		t.Errorf("other addresses under a true tag: %v", evs)
	}
	v.expire(now.Add(testTTL))
	if v.foreign != 0 || len(v.instances) != 0 || v.ownHeard(false) {
		t.Errorf("left over: %d foreign, %d instances", v.foreign, len(v.instances))
	}
}

// TestViewHasRoomForTheHonest: who has the site's key, or had it, invents devices; real ones are found all the same, and
// those that were found before stay.
func TestViewHasRoomForTheHonest(t *testing.T) {
	const limit = 16
	v := newView(testKey, testPeer(t, 1), limit)
	now := time.Unix(1e9, 0)
	hear := func(id byte, addr string) []discovery.Event {
		now = now.Add(time.Second)
		return v.heard(said(t, testPeer(t, id), fmt.Sprintf("aaaaaaaaaa%03d", id), addr), "eth0", false, now)
	}
	hear(2, "/ip4/192.168.1.2/tcp/4001")
	for i := range byte(3 * limit) {
		evs := hear(100+i, fmt.Sprintf("/ip4/192.168.1.66/tcp/%d", 1+i))
		if last := evs[len(evs)-1]; last.Gone || last.Peer.ID != testPeer(t, 100+i) || len(v.peers) > limit {
			t.Fatalf("%d peers after the events %v", len(v.peers), evs)
		}
	}
	for i := range byte(4) { // what was invented first goes first, and the table is told before it is of the next
		evs := hear(3+i, fmt.Sprintf("/ip4/192.168.1.%d/tcp/4001", 3+i))
		if len(evs) != 2 || !evs[0].Gone || evs[0].Peer.ID != testPeer(t, 100+2*limit+1+i) || evs[1].Gone || evs[1].Peer.ID != testPeer(t, 3+i) {
			t.Errorf("device %d: events %v", 3+i, evs)
		}
	}
	if v.peers[testPeer(t, 2)] == nil || len(v.peers) != limit || len(v.instances) != limit || v.counts.dropped != 2*limit+5 {
		t.Errorf("%d peers, %d instances, %d dropped", len(v.peers), len(v.instances), v.counts.dropped)
	}
}

// TestViewOldCardsSaidAgain: what a device announced before it moved is said again by a
// stranger, several in turn, also after a goodbye that the device has not said. Where the
// device is now stays known, and is among what is tried.
func TestViewOldCardsSaidAgain(t *testing.T) {
	id, name := testPeer(t, 2), testPeer(t, 2).ShortString()[8:]
	v := newView(testKey, testPeer(t, 1), 10)
	now := time.Unix(1e9, 0)
	var old []announcement
	for i := range byte(4) {
		old = append(old, said(t, id, newNonce(uint64(i)), fmt.Sprintf("/ip4/10.0.0.1/tcp/%d", 1+i)))
	}
	fresh := said(t, id, newNonce(9), "/ip4/10.0.0.2/tcp/2")
	hear := func(a announcement) []discovery.Event {
		now = now.Add(time.Second)
		return append(v.heard(a, "eth0", false, now), v.expire(now)...)
	}
	hear(old[3])
	hear(bye(old[3]))
	if got, want := told(hear(fresh)...), "+"+name+"[/ip4/10.0.0.2/tcp/2]"; got != want {
		t.Errorf("moved: %q, want %q", got, want)
	}
	sayAgain := func(when string) {
		t.Helper()
		for i := range 40 {
			a := old[i%len(old)]
			for _, ev := range append(hear(a), hear(bye(a))...) {
				if got := texts(ev.Peer.Addrs); !slices.Contains(got, "/ip4/10.0.0.2/tcp/2") || len(got) > 2 {
					t.Fatalf("%s: told of %v", when, got)
				}
			}
		}
		if n := len(v.peers[id]); n > 2 || len(v.instances) != n || len(v.left) != 0 {
			t.Errorf("%s: %d entries, %d instances, %d left", when, n, len(v.instances), len(v.left))
		}
	}
	sayAgain("heard before")
	hear(old[0])
	hear(bye(fresh)) // forged
	sayAgain("goodbye while an old one is there")
	hear(fresh)
	hear(bye(fresh))
	now = now.Add(goodbyeGrace)
	if evs := append(v.expire(now), v.expire(now)...); len(evs) == 0 || !evs[len(evs)-1].Gone || len(v.left) != 1 {
		t.Errorf("goodbye: %v, %d left", evs, len(v.left))
	}
	if got := told(hear(old[1])...); !strings.Contains(got, "/ip4/10.0.0.2/tcp/2") {
		t.Errorf("an old one after the goodbye: %q", got)
	}
	sayAgain("after a goodbye")
	// Whoever has truly gone is forgotten, and one that comes back is where it says it is.
	now = now.Add(testTTL)
	v.expire(now)
	hear(fresh)
	hear(bye(fresh))
	now = now.Add(testTTL)
	v.expire(now)
	if len(v.peers)+len(v.instances)+len(v.left) != 0 {
		t.Errorf("left over: %d peers, %d instances, %d left", len(v.peers), len(v.instances), len(v.left))
	}
	hear(fresh)
	hear(bye(fresh))
	if got, want := told(hear(said(t, id, newNonce(10), "/ip4/10.0.0.3/tcp/1"))...), "+"+name+"[/ip4/10.0.0.3/tcp/1]"; got != want {
		t.Errorf("came back: %q, want %q", got, want)
	}
}

// TestViewClockWentBack: a device whose clock has gone back is found where it is, beside where
// it was, for as long as that is remembered.
func TestViewClockWentBack(t *testing.T) {
	id := testPeer(t, 2)
	v := newView(testKey, testPeer(t, 1), 10)
	now := time.Unix(1e9, 0)
	places := func(net string) (out []string) {
		for i := range maxAddrs {
			out = append(out, fmt.Sprintf("/ip4/10.0.%s.%d/tcp/1", net, i))
		}
		return out
	}
	v.heard(said(t, id, newNonce(1000), places("1")...), "eth0", false, now)
	for k, net := range []string{"2", "3", "4"} { // it starts anew, each time without a clock
		evs := v.heard(said(t, id, newNonce(uint64(30-k)), places(net)...), "eth0", false, now)
		if len(evs) != 1 || len(evs[0].Peer.Addrs) != maxAddrs {
			t.Fatalf("events %v", evs)
		}
		for i, got := range texts(evs[0].Peer.Addrs) {
			if want := places([]string{"1", net}[i%2])[i/2]; got != want {
				t.Errorf("address %d: %s, want %s", i, got, want)
			}
		}
	}
	v.heard(said(t, id, newNonce(28), places("4")...), "eth0", false, now.Add(time.Minute))
	evs := v.expire(now.Add(testTTL))
	if len(evs) == 0 || !slices.Equal(texts(evs[len(evs)-1].Peer.Addrs), places("4")) {
		t.Errorf("what is remembered of before: %v", evs)
	}
}

// TestViewIsOutdone: what is heard of our own former registrations tells which number is greater.
func TestViewIsOutdone(t *testing.T) {
	self := testPeer(t, 1)
	v := newView(testKey, self, 10)
	own := newNonce(7)
	v.renew(own)
	for _, n := range []uint64{7, 3, 12, 5} {
		name := newNonce(n)
		if n == 7 {
			name = own
		}
		v.heard(said(t, self, name, "/ip4/10.0.0.1/tcp/1"), "eth0", false, time.Unix(1e9, 0))
	}
	v.heard(said(t, testPeer(t, 2), newNonce(99), "/ip4/10.0.0.2/tcp/1"), "eth0", false, time.Unix(1e9, 0))
	v.heard(said(t, self, "zzzzzzzzzzzzz", "/ip4/10.0.0.1/tcp/1"), "eth0", false, time.Unix(1e9, 0))
	if v.outdone != 12 || !v.ownHeard(true) {
		t.Errorf("outdone by %d, want 12", v.outdone)
	}
}

func TestViewKnown(t *testing.T) {
	v := newView(testKey, testPeer(t, 1), 10)
	now := time.Unix(1e9, 0)
	v.heard(said(t, testPeer(t, 2), "old", "/ip4/10.0.0.1/tcp/1"), "eth0", false, now)
	later := now.Add(testTTL / 4)
	v.heard(said(t, testPeer(t, 3), "new", "/ip4/10.0.0.1/tcp/1"), "eth0", false, later)
	v.heard(said(t, testPeer(t, 4), "leaver", "/ip4/10.0.0.1/tcp/1"), "eth0", false, later)
	v.heard(bye(said(t, testPeer(t, 4), "leaver", "/ip4/10.0.0.1/tcp/1")), "eth0", false, later)
	list := v.known(later)
	if len(list) != 2 || list[0].instance != "new" || list[1].ttl != testTTL*3/4 {
		t.Errorf("known %v", list)
	}
	// After half of its life a device has to answer again.
	if list = v.known(now.Add(testTTL / 2)); len(list) != 1 || list[0].instance != "new" {
		t.Errorf("known %v", list)
	}
}

func TestViewCovers(t *testing.T) {
	v := newView(testKey, testPeer(t, 1), 10)
	now := time.Unix(1e9, 0)
	v.renew("own")
	v.heard(said(t, testPeer(t, 2), "a", "/ip4/10.0.0.1/tcp/1"), "eth0", false, now)
	if !v.covers(nil, now) || !v.covers([]known{{"a", time.Hour}, {"own", time.Hour}}, now) {
		t.Error("a query that lists nothing new does not cover ours")
	}
	list := []known{{"a", time.Hour}, {"b", time.Hour}}
	for range maxAsks {
		if v.covers(list, now) {
			t.Error("a query that lists a device we lack covers ours")
		}
		v.asking()
	}
	if !v.covers(list, now) {
		t.Error("a device that never answers counts for ever")
	}
	v.expire(now.Add(maxTTL))
	if len(v.rumours) != 0 {
		t.Error("rumours do not expire")
	}
	var many []known
	for i := range 100 {
		many = append(many, known{fmt.Sprint("x", i), time.Hour})
	}
	v.covers(many, now)
	if len(v.rumours) != 10 {
		t.Errorf("%d rumours", len(v.rumours))
	}
}

// TestViewMisses: who does not answer is asked over both families.
func TestViewMisses(t *testing.T) {
	v := newView(testKey, testPeer(t, 1), 10)
	now := time.Unix(1e9, 0)
	misses := func(what string, want bool) {
		t.Helper()
		if v.misses(now) != want {
			t.Errorf("%s: misses somebody: %v", what, !want)
		}
	}
	misses("nobody is known", false)
	a := said(t, testPeer(t, 2), "aaaaaaaaaaaaa", "/ip4/10.0.0.1/tcp/1")
	v.heard(a, "eth0", false, now)
	now = now.Add(testTTL * 3 / 4)
	misses("a quarter of a life is left", false)
	now = now.Add(time.Second)
	misses("less is left", true)
	v.heard(bye(a), "eth0", false, now)
	misses("it has said goodbye", false)
	v.covers([]known{{"bbbbbbbbbbbbb", testTTL}}, now)
	misses("others know another", true)
	for range maxAsks {
		v.asking()
	}
	misses("it was asked for in vain", false)
}

func TestAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		addrs    []string
		loopback bool
		want     []string
	}{
		"both families": {addrs: []string{"/ip4/10.0.0.1/tcp/7", "/ip6/fd00::1/udp/8/quic-v1"}, want: []string{"/ip4/10.0.0.1/tcp/7", "/ip6/fd00::1/udp/8/quic-v1"}},
		"link-local":    {addrs: []string{"/ip6/fe80::1/tcp/7"}, want: []string{"/ip6zone/eth0/ip6/fe80::1/tcp/7"}},
		"nobody's": {addrs: []string{"/ip4/0.0.0.0/tcp/7", "/ip6/::/tcp/7", "/ip4/224.0.0.1/tcp/7", "/ip6/ff02::1/tcp/7",
			"/ip4/127.0.0.1/tcp/7", "/ip6/::1/tcp/7"}},
		"loopback": {addrs: []string{"/ip4/127.0.0.1/tcp/7"}, loopback: true, want: []string{"/ip4/127.0.0.1/tcp/7"}},
		"port 0":   {addrs: []string{"/ip4/10.0.0.2/tcp/0"}},
	} {
		got := texts(addresses(card{addrs: testAddrs(t, c.addrs...)}, "eth0", c.loopback))
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
