package mdns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"updraft/discovery/mdns"

	"github.com/grandcat/zeroconf"
)

// Nine agents on a machine without any network but loopback find each other.
func TestLoopbackOnly(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	var all []*device
	began := time.Now()
	for i := range 9 {
		d := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", 4000+i))
		d.start(t)
		all = append(all, d)
	}
	for i, d := range all {
		eventually(t, fmt.Sprintf("device %d knows 8 others", i), 20*time.Second, func() bool { return d.count() == 8 })
	}
	t.Logf("9 devices know each other after %v", time.Since(began))
	want := addrsOf(t, "/ip4/127.0.0.1/tcp/4000")[0]
	if got := all[8].knows(all[0].id); len(got) != 1 || !got[0].Equal(want) {
		t.Errorf("address %v, want %v", got, want)
	}
	if err := all[0].state(); err != nil {
		t.Errorf("state: %v", err)
	}
	t.Logf("%+v", all[0].src.Counters())
}

// Devices of two sites on one network do not see each other, but know that the
// others are there; one that stops leaves no goroutine behind, and says so.
func TestTwoSites(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	var all []*device
	var stops []func()
	for i := range 4 {
		d := newDevice(t, mdns.Config{SiteKey: siteKey(byte(i % 2))}, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", 4000+i))
		all = append(all, d)
		stops = append(stops, d.start(t))
	}
	for i, d := range all {
		eventually(t, fmt.Sprintf("device %d knows its neighbour", i), 20*time.Second, func() bool {
			return len(d.knows(all[(i+2)%4].id)) == 1
		})
		eventually(t, "counters", 20*time.Second, func() bool { c := d.src.Counters(); return c.Peers == 1 && c.Others == 2 && c.Foreign > 0 })
		if d.count() != 1 {
			t.Errorf("device %d knows %d", i, d.count())
		}
	}
	stops[2]()
	eventually(t, "the neighbour's goodbye", 20*time.Second, func() bool { return all[0].count() == 0 })
	for _, stop := range stops {
		stop()
	}
	settled(t)
}

// Another port is another address: it is announced within seconds, and the
// event replaces what was said before.
func TestPortChanges(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	a := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, "/ip4/127.0.0.1/tcp/4000")
	b := newDevice(t, mdns.Config{SiteKey: siteKey(1)}) // does not listen yet
	a.start(t)
	b.start(t)
	eventually(t, "b finds a", 20*time.Second, func() bool { return len(b.knows(a.id)) == 1 })
	eventually(t, "b says that it is not announced", 20*time.Second, func() bool { return errors.Is(b.state(), mdns.ErrNotAnnounced) })
	for _, addrs := range [][]string{
		{"/ip4/127.0.0.1/tcp/5000"},
		{"/ip4/127.0.0.1/tcp/5001", "/ip6/::1/tcp/5002", "/ip4/127.0.0.1/udp/5001/quic-v1"},
	} {
		want := addrsOf(t, addrs...)
		b.move(want)
		eventually(t, fmt.Sprint("a learns ", addrs), 30*time.Second, func() bool {
			got := a.knows(b.id)
			return len(got) == len(want) && got[0].Equal(want[0])
		})
	}
	if err := b.state(); err != nil {
		t.Errorf("state: %v", err)
	}
}

// What a device announced while its clock was ahead is said again: it registers anew, so
// that where it is now is the latest that is known of it.
func TestOutdoneByItsPast(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	a := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, "/ip4/127.0.0.1/tcp/4000")
	b := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, "/ip4/127.0.0.1/tcp/5000")
	b.src.LookEvery(500 * time.Millisecond)
	name, text, err := mdns.Card(siteKey(1), time.Now().Add(time.Hour), b.id, addrsOf(t, "/ip4/127.0.0.1/tcp/4999"))
	if err != nil {
		t.Fatal(err)
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	a.start(t)
	stranger, err := zeroconf.RegisterProxy(name, "_updraft._tcp", "local", 4999, name, []string{"127.0.0.1"}, text, []net.Interface{*lo})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Shutdown()
	eventually(t, "a hears where b was", 20*time.Second, func() bool { return len(a.knows(b.id)) == 1 })
	b.start(t)
	now := addrsOf(t, "/ip4/127.0.0.1/tcp/5000")[0]
	eventually(t, "a hears where b is", 20*time.Second, func() bool {
		got := a.knows(b.id)
		return len(got) > 0 && got[0].Equal(now)
	})
	eventually(t, "b has registered twice", 20*time.Second, func() bool { return b.src.Counters().Sessions == 2 })
}

// A cable that is plugged in is noticed when it is, and who is there is found; one that is
// pulled as well.
func TestLinkChanges(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	d := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, "/ip4/10.9.0.1/tcp/4000")
	d.src.LookEvery(time.Hour)
	stop := d.start(t)
	eventually(t, "the device says that it is alone", 20*time.Second, func() bool { return errors.Is(d.state(), mdns.ErrNoMulticast) })
	ip(t, "link", "add", "d0", "type", "veth", "peer", "name", "d1")
	for _, set := range []string{"up", "down", "up"} {
		ip(t, "link", "set", "d1", set)
		ip(t, "link", "set", "d0", set)
		if set == "up" {
			ip(t, "addr", "replace", "10.9.0.1/24", "dev", "d0")
		}
		eventually(t, "the device knows that the link is "+set, 20*time.Second, func() bool { return errors.Is(d.state(), mdns.ErrNoMulticast) == (set == "down") })
	}
	stop()
	settled(t)
}

// Addresses that come and go without end do not have the device register each time, but
// the last ones are announced.
func TestAddressesChangeWithoutEnd(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "d0", "type", "veth", "peer", "name", "d1")
	ip(t, "link", "set", "d1", "up")
	ip(t, "link", "set", "d0", "up")
	ip(t, "addr", "add", "10.9.0.1/24", "dev", "d0")
	ip(t, "addr", "add", "10.9.0.2/24", "dev", "d1")
	d := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, "/ip4/10.9.0.1/tcp/4000")
	d.src.LookEvery(time.Hour)
	o := newDevice(t, mdns.Config{SiteKey: siteKey(1), Interfaces: []string{"lo"}}, "/ip4/127.0.0.1/tcp/4001")
	d.start(t)
	o.start(t)
	eventually(t, "the device is found", 20*time.Second, func() bool { return len(o.knows(d.id)) == 1 })
	for began, i := time.Now(), 0; time.Since(began) < 3500*time.Millisecond; i++ {
		ip(t, "addr", "add", fmt.Sprintf("fd00:%x::1/64", i), "dev", "d0", "nodad", "valid_lft", "1", "preferred_lft", "1")
		time.Sleep(100 * time.Millisecond)
	}
	d.move(addrsOf(t, "/ip4/10.9.0.1/tcp/4005"))
	ip(t, "addr", "add", "fd00:ffff::1/64", "dev", "d0", "nodad")
	want := addrsOf(t, "/ip4/10.9.0.1/tcp/4005")[0]
	eventually(t, "what it announces last is heard", 20*time.Second, func() bool { return slices.ContainsFunc(o.knows(d.id), want.Equal) })
	if c := d.src.Counters(); c.Sessions > 4 {
		t.Errorf("%d sessions", c.Sessions)
	}
}

// Stopping before anything has happened works as well.
func TestStopAtOnce(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	for i := range 10 {
		d := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, "/ip4/127.0.0.1/tcp/4000")
		stop := d.start(t)
		time.Sleep(time.Duration(i*i) * time.Millisecond)
		stop()
	}
	settled(t)
}

// A browser that knows nothing of us finds the entry: it is plain DNS-SD.
func TestPlainBrowser(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "add", "d0", "type", "veth", "peer", "name", "d1")
	ip(t, "link", "set", "d1", "up")
	ip(t, "link", "set", "d0", "up")
	ip(t, "addr", "add", "10.9.0.1/24", "dev", "d0")
	d := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, "/ip4/10.9.0.1/tcp/4000", "/ip4/127.0.0.1/tcp/4000")
	d.start(t)
	resolver, err := zeroconf.NewResolver(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	found := make(chan *zeroconf.ServiceEntry, 10)
	if err := resolver.Browse(ctx, "_updraft._tcp", "local", found); err != nil {
		t.Fatal(err)
	}
	e := <-found
	if e == nil || e.Port != 4000 || len(e.AddrIPv4) != 1 || e.AddrIPv4[0].String() != "10.9.0.1" || len(e.Text) != 4 {
		t.Fatalf("%+v", e)
	}
	for _, s := range e.Text {
		if s == "" || len(s) > 255 {
			t.Errorf("TXT string %q", s)
		}
	}
	// Nothing of the machine is told: the host is named by the nonce, as the instance.
	if e.HostName != e.Instance+".local." || e.Text[0] != "n="+e.Instance {
		t.Errorf("host %s, instance %s, text %q", e.HostName, e.Instance, e.Text)
	}
	cancel()
	for range found {
	}
	// It resolves a name that it was told, too.
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if resolver, err = zeroconf.NewResolver(nil); err != nil {
		t.Fatal(err)
	}
	named := make(chan *zeroconf.ServiceEntry, 10)
	if err := resolver.Lookup(ctx, e.Instance, "_updraft._tcp", "local", named); err != nil {
		t.Fatal(err)
	}
	if got := <-named; got == nil || got.Port != 4000 || !slices.Equal(got.Text, e.Text) {
		t.Errorf("looked up: %+v", got)
	}
	cancel()
	for range named {
	}
}

// Another program holds the port for itself: the source names it, and goes on
// when the port is free.
func TestPortTaken(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	taken, err := net.ListenPacket("udp4", "0.0.0.0:5353")
	if err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, "/ip4/127.0.0.1/tcp/4000")
	d.start(t)
	eventually(t, "the device says that the port is taken", 20*time.Second, func() bool {
		err := d.state()
		return errors.Is(err, mdns.ErrNoMulticast) && strings.Contains(err.Error(), "in use")
	})
	taken.Close()
	o := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, "/ip4/127.0.0.1/tcp/4001")
	o.start(t)
	eventually(t, "the device is well", time.Minute, func() bool { return d.state() == nil && d.count() == 1 })
	eventually(t, "it is found", 20*time.Second, func() bool { return o.count() == 1 })
}
