package mdns_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"updraft/discovery/mdns"
)

// Two devices on a bridge, from first contact to goodbye.
func TestPair(t *testing.T) {
	if inside(t) {
		return
	}
	s := newSite(t)
	for i, name := range []string{"a", "b"} {
		s.space(name)
		s.plug(name, "eth0", "br0", fmt.Sprintf("10.9.0.%d/24", i+1), fmt.Sprintf("fd99::%d/64", i+1))
	}
	a := s.spawn("a", "a", 4001)
	b := s.spawn("b", "b", 4002)
	t.Logf("a finds b after %v", eventually(t, "a finds b", 10*time.Second, a.reaches(b, "/ip4/10.9.0.2/tcp/4002")))
	eventually(t, "b finds a", 10*time.Second, b.reaches(a, "/ip6/fd99::1/tcp/4001"))
	if got := a.at(b.id); len(got) != 2 {
		t.Errorf("addresses %v: loopback announced?", got)
	}
	eventually(t, "a is healthy", 10*time.Second, func() bool { r, ok := a.report(); return ok && r == "" })

	// Goodbye: b leaves in good order, a notices.
	b.term()
	if b.count == nil || b.count.Messages == 0 || b.count.Sessions != 1 {
		t.Errorf("counters %+v", b.count)
	}
	t.Logf("a misses b after %v; %+v", eventually(t, "a misses b", 20*time.Second, func() bool { return a.known() == 0 }), b.count)

	// And comes back, with another port.
	b = s.spawn("b", "b", 4003)
	t.Logf("a finds b again after %v", eventually(t, "a finds b again", 10*time.Second, a.reaches(b, "/ip4/10.9.0.2/tcp/4003")))

	// Killed and back with a new port: nobody said goodbye, the new entry counts.
	b.kill()
	b = s.spawn("b", "b", 4004)
	t.Logf("a learns the new port after %v", eventually(t, "a learns the new port", 10*time.Second, a.reaches(b, "/ip4/10.9.0.2/tcp/4004")))
	if got := a.at(b.id); len(got) != 2 {
		t.Errorf("addresses %v", got)
	}
}

// The interface is deleted and made again, then the address changes: zeroconf's
// registration would be dead for good after the first.
func TestInterfaceComesAndGoes(t *testing.T) {
	if inside(t) {
		return
	}
	s := newSite(t)
	s.space("a")
	s.plug("a", "eth0", "br0", "10.9.0.1/24")
	s.space("b")
	b := s.spawn("b", "b", 4002)
	a := s.spawn("a", "a", 4001)
	eventually(t, "a is healthy", 10*time.Second, func() bool { r, ok := a.report(); return ok && r == "" })

	s.plug("b", "eth0", "br0", "10.9.0.2/24")
	t.Logf("found %v after the cable was plugged in", eventually(t, "a finds b", 30*time.Second, a.reaches(b, "/ip4/10.9.0.2/tcp/4002")))
	eventually(t, "b finds a", 10*time.Second, b.reaches(a, "/ip4/10.9.0.1/tcp/4001"))

	ip(t, "link", "del", "veth0b")
	time.Sleep(7 * time.Second) // it falls back to loopback meanwhile
	s.plug("b", "eth0", "br0", "10.9.0.22/24")
	t.Logf("found %v after the interface was made again", eventually(t, "a finds b's new address", 30*time.Second, a.reaches(b, "/ip4/10.9.0.22/tcp/4002")))
	if got := a.at(b.id); len(got) != 1 {
		t.Errorf("addresses %v", got)
	}

	ip(t, "-n", "b", "addr", "del", "10.9.0.22/24", "dev", "eth0")
	ip(t, "-n", "b", "addr", "add", "10.9.0.33/24", "dev", "eth0")
	t.Logf("found %v after the address changed", eventually(t, "a learns the address", 30*time.Second, func() bool {
		got := a.at(b.id)
		return len(got) == 1 && got[0] == "/ip4/10.9.0.33/tcp/4002"
	}))
	eventually(t, "b knows a", 10*time.Second, b.reaches(a, "/ip4/10.9.0.1/tcp/4001"))
	if a.gone > 1 {
		t.Errorf("b was given up %d times though it was there", a.gone)
	}
}

// A device on two segments finds the devices of both, which do not find each
// other. It announces the addresses of both on both: dialling decides.
func TestTwoInterfaces(t *testing.T) {
	if inside(t) {
		return
	}
	s := newSite(t)
	s.bridge("br1")
	for _, n := range []string{"left", "mid", "right"} {
		s.space(n)
	}
	s.plug("left", "eth0", "br0", "10.9.0.1/24")
	s.plug("mid", "eth0", "br0", "10.9.0.2/24")
	s.plug("mid", "eth1", "br1", "10.8.0.2/24")
	s.plug("right", "eth0", "br1", "10.8.0.3/24")
	left, mid, right := s.spawn("left", "l", 4001), s.spawn("mid", "m", 4001), s.spawn("right", "r", 4001)
	eventually(t, "mid finds left", 10*time.Second, mid.reaches(left, "/ip4/10.9.0.1/tcp/4001"))
	eventually(t, "mid finds right", 10*time.Second, mid.reaches(right, "/ip4/10.8.0.3/tcp/4001"))
	eventually(t, "left finds mid", 10*time.Second, left.reaches(mid, "/ip4/10.9.0.2/tcp/4001"))
	eventually(t, "right finds mid", 10*time.Second, right.reaches(mid, "/ip4/10.8.0.2/tcp/4001"))
	if left.known() != 1 || right.known() != 1 {
		t.Errorf("left knows %d, right knows %d; want 1 each", left.known(), right.known())
	}
}

// IPv6 only, IPv4 only and both on the same LAN.
func TestFamilies(t *testing.T) {
	if inside(t) {
		return
	}
	s := newSite(t)
	for _, n := range []string{"four", "six", "both", "none"} {
		s.space(n)
	}
	ip(t, "netns", "exec", "four", "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
	s.plug("four", "eth0", "br0", "10.9.0.4/24")
	s.plug("six", "eth0", "br0", "fd99::6/64")
	s.plug("both", "eth0", "br0", "10.9.0.5/24", "fd99::5/64")
	four, six, both := s.spawn("four", "4", 4001), s.spawn("six", "6", 4001), s.spawn("both", "b", 4001)
	eventually(t, "four finds both", 30*time.Second, four.reaches(both, "/ip4/10.9.0.5/tcp/4001"))
	eventually(t, "six finds both", 30*time.Second, six.reaches(both, "/ip6/fd99::5/tcp/4001"))
	eventually(t, "both finds four", 30*time.Second, both.reaches(four, "/ip4/10.9.0.4/tcp/4001"))
	eventually(t, "both finds six", 30*time.Second, both.reaches(six, "/ip6/fd99::6/tcp/4001"))
}

// Without any interface that is up the source says so, and goes on by itself when
// there is one.
func TestNoMulticast(t *testing.T) {
	if inside(t) {
		return
	}
	s := newSite(t)
	ip(t, "netns", "add", "a")
	a := s.spawn("a", "a", 4001)
	eventually(t, "a says that it has no multicast", 10*time.Second, func() bool {
		r, ok := a.report()
		return ok && strings.Contains(r, "no multicast")
	})
	s.plug("a", "eth0", "br0", "10.9.0.1/24")
	eventually(t, "a is well", 20*time.Second, func() bool { r, ok := a.report(); return ok && r == "" })
	a.mu.Lock()
	if len(a.reports) > 3 {
		t.Errorf("reports repeat: %q", a.reports)
	}
	a.mu.Unlock()
	// Then it is gone, and the device's addresses are those of loopback; or it is back,
	// but without multicast. Loopback does not make up for it.
	ip(t, "-n", "a", "link", "set", "lo", "up")
	ip(t, "-n", "a", "addr", "flush", "dev", "eth0")
	eventually(t, "a says that it has only loopback, its addresses included", 30*time.Second, func() bool {
		r, ok := a.report()
		return ok && strings.Contains(r, "no interface but loopback")
	})
	ip(t, "-n", "a", "addr", "add", "10.9.0.1/24", "dev", "eth0")
	eventually(t, "a is well again", 30*time.Second, func() bool { r, ok := a.report(); return ok && r == "" })
	ip(t, "-n", "a", "link", "set", "eth0", "multicast", "off")
	eventually(t, "a says that it has only loopback", 30*time.Second, func() bool {
		r, ok := a.report()
		return ok && strings.Contains(r, "no interface but loopback")
	})
}

// Without a source of its own a device is told of what happens to its interfaces, too: when a cable is plugged in and when
// an address changes, not when it is pulled out, and not twice.
func TestWatchLinks(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "eth0", "type", "veth", "peer", "name", "switch")
	ip(t, "link", "set", "switch", "up")
	ctx, stop := context.WithCancel(t.Context())
	told := make(chan struct{}, 100)
	var wg sync.WaitGroup
	wg.Go(func() { mdns.WatchLinks(ctx, []string{"eth*"}, func() { told <- struct{}{} }) })
	defer wg.Wait()
	defer stop()
	time.Sleep(time.Second)
	for _, x := range []struct {
		what string
		cmd  string
		told bool
	}{
		{"an address without a cable", "addr add 10.9.0.1/24 dev eth0", false},
		{"the cable", "link set eth0 up", true},
		{"another address", "addr add 10.9.0.2/24 dev eth0", true},
		{"no cable", "link set eth0 down", false},
		{"the cable again", "link set eth0 up", true},
	} {
		ip(t, strings.Fields(x.cmd)...)
		time.Sleep(2500 * time.Millisecond) // an address of IPv6 comes after two
		n := len(told)
		for range n {
			<-told
		}
		if n > 3 || (n > 0) != x.told {
			t.Errorf("%s: told %d times", x.what, n)
		}
	}
}
