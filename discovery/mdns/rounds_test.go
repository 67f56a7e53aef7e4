package mdns

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func mustIP(s string) netip.Addr { return netip.MustParseAddr(s) }

func between(t *testing.T, what string, d, lo, hi time.Duration) {
	t.Helper()
	if d < lo || d > hi {
		t.Errorf("%s: %v, want %v to %v", what, d, lo, hi)
	}
}

func TestRounds(t *testing.T) {
	now := time.Unix(1e9, 0)
	step := func(r *rounds, responders, peers int) time.Duration {
		before := r.next
		r.asked(before, responders, peers)
		return r.next.Sub(before)
	}
	for range 100 {
		r := rounds{interval: defaultInterval}
		r.begin(now)
		between(t, "first", r.next.Sub(now), 20*time.Millisecond, 120*time.Millisecond)
		between(t, "second", step(&r, 0, 0), time.Second, 1500*time.Millisecond)
		between(t, "third", step(&r, 0, 0), 3*time.Second, 4500*time.Millisecond)
		for _, s := range []time.Duration{8, 16, 32, 60, 60} {
			between(t, "lonely", step(&r, 0, 0), s*time.Second, s*time.Second*5/4)
		}
		between(t, "steady", step(&r, 50, 50), 120*time.Second, 300*time.Second)
		between(t, "crowd", step(&r, 250, 200), 300*time.Second, 750*time.Second)
		between(t, "lonely again", step(&r, 3, 0), 8*time.Second, 10*time.Second)

		r.asked(now, 5, 5)
		r.rumoured(now)
		between(t, "rumour", r.next.Sub(now), 200*time.Millisecond, 1200*time.Millisecond)
		r.asked(now, 5, 5)
		r.rumoured(now.Add(rumourGap - 1))
		between(t, "rumours in a row", r.next.Sub(now), 120*time.Second, 300*time.Second)
		at, steps := r.next, r.step
		r.overheard(now, 5, 5)
		r.overheard(now.Add(time.Millisecond), 5, 5)
		if r.step != steps+1 || r.next.Equal(at) {
			t.Fatalf("overheard twice at once: %d steps", r.step-steps)
		}
	}
}

// TestPace: interfaces are followed at once, and so are addresses, but not those of who
// changes them without end.
func TestPace(t *testing.T) {
	var p pace
	changing := func(sameLinks bool, pauses ...time.Duration) {
		t.Helper()
		for i, want := range pauses {
			age := time.Duration(0)
			for range 1000 { // the place is another one each 100 ms
				if p.left(age, sameLinks) == 0 {
					break
				}
				age += 100 * time.Millisecond
			}
			if age != want*time.Second {
				t.Errorf("session %d lasted %v, want %d s", i, age, want)
			}
		}
	}
	changing(true, 1, 2, 4, 8, 16, 32, 60, 60, 60)
	if left := p.left(10*time.Second, true); left != 50*time.Second {
		t.Errorf("%v left after 10 s of 60", left)
	}
	changing(false, 1, 1, 1) // a cable is pulled and plugged in
	changing(true, 1, 2, 4)
	if left := p.left(20*time.Second, true); left != 0 {
		t.Errorf("after 20 s without a change, %v left", left)
	}
	changing(true, 16)
	if left := p.left(2*sessionMost, true); left != 0 {
		t.Errorf("after two minutes without a change, %v left", left)
	}
	changing(true, 2, 4)
}

func flags(s string) (f net.Flags) {
	for _, c := range s {
		f |= map[rune]net.Flags{'u': net.FlagUp, 'r': net.FlagRunning, 'm': net.FlagMulticast, 'l': net.FlagLoopback}[c]
	}
	return f
}

func nic(index int, name, fl string, addrs ...string) iface {
	i := iface{Interface: net.Interface{Index: index, Name: name, Flags: flags(fl)}}
	for _, a := range addrs {
		i.addrs = append(i.addrs, mustIP(a))
	}
	return i
}

func TestChoose(t *testing.T) {
	lo := nic(1, "lo", "url", "127.0.0.1", "::1")
	eth := nic(2, "eth0", "urm", "10.0.0.1", "fe80::1")
	wlan := nic(3, "wlan0", "urm", "fd00::1")
	veth := nic(4, "veth1", "urm", "fe80::2")
	down := nic(5, "eth1", "m", "10.0.1.1")
	unplugged := nic(6, "eth2", "um", "10.0.2.1")
	tunnel := nic(7, "tun0", "ur", "10.0.3.1")
	bare := nic(8, "eth3", "urm")
	for name, c := range map[string]struct {
		all      []iface
		patterns []string
		loopback bool
		want     []string
	}{
		"all kinds":       {all: []iface{lo, wlan, veth, down, unplugged, tunnel, bare, eth}, want: []string{"eth0", "wlan0", "lo"}},
		"loopback only":   {all: []iface{lo, down, unplugged, tunnel, bare}, want: []string{"lo"}},
		"listens there":   {all: []iface{lo, eth}, loopback: true, want: []string{"lo"}},
		"link-local only": {all: []iface{lo, veth}, want: []string{"veth1", "lo"}},
		"named":           {all: []iface{lo, eth, wlan}, patterns: []string{"lo", "wlan*"}, want: []string{"lo", "wlan0"}},
		"named, absent":   {all: []iface{lo, eth}, patterns: []string{"eth9", "["}},
		"named, down":     {all: []iface{lo, down}, patterns: []string{"eth1"}},
		"nothing":         {},
	} {
		if got := names(choose(c.all, c.patterns, c.loopback)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var many []iface
	for i := range 40 {
		many = append(many, nic(10+i, "eth", "urm", "10.0.0.1"))
	}
	if got := choose(many, nil, false); len(got) != maxIfaces {
		t.Errorf("%d of 40", len(got))
	}
	if fingerprint([]iface{eth}) == fingerprint([]iface{nic(9, "eth0", "urm", "10.0.0.1", "fe80::1")}) {
		t.Error("an interface that was made again looks the same")
	}
}

func TestAnnounceable(t *testing.T) {
	lo := nic(1, "lo", "url", "127.0.0.1", "::1")
	eth := nic(2, "eth0", "urm", "10.0.0.1", "fd00::1")
	docker := nic(3, "docker0", "um", "172.17.0.1")
	all := []iface{lo, eth, docker}
	everywhere := []string{"/ip6/fd00::1/tcp/4", "/ip4/127.0.0.1/tcp/4", "/ip4/172.17.0.1/tcp/4", "/ip4/10.0.0.1/udp/4/quic-v1", "/ip4/10.0.0.1/tcp/4", "/ip6/::1/tcp/4"}
	for name, c := range map[string]struct {
		addrs  []string
		chosen []iface
		want   []string
	}{
		"the LAN":       {everywhere, []iface{eth}, []string{"/ip4/10.0.0.1/tcp/4", "/ip6/fd00::1/tcp/4", "/ip4/10.0.0.1/udp/4/quic-v1"}},
		"loopback":      {everywhere, []iface{lo}, []string{"/ip4/127.0.0.1/tcp/4", "/ip6/::1/tcp/4"}},
		"both":          {everywhere[:3], []iface{lo, eth}, []string{"/ip6/fd00::1/tcp/4"}},
		"not on lo":     {[]string{"/ip4/10.0.0.1/tcp/4"}, []iface{lo}, []string{"/ip4/10.0.0.1/tcp/4"}},
		"port forward":  {[]string{"/ip4/203.0.113.5/tcp/4"}, []iface{eth}, []string{"/ip4/203.0.113.5/tcp/4"}},
		"unusable":      {[]string{"/ip4/0.0.0.0/tcp/4", "/dns4/x/tcp/4", "/ip4/224.0.0.1/tcp/4", "/ip4/10.0.0.1/tcp/0"}, []iface{eth}, nil},
		"no interfaces": {nil, nil, nil},
	} {
		if got := texts(announceable(testAddrs(t, c.addrs...), all, c.chosen)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if !onlyLoopback(testAddrs(t, "/ip4/127.0.0.1/tcp/4", "/ip6/::1/tcp/4")) || onlyLoopback(testAddrs(t, everywhere...)) || onlyLoopback(nil) {
		t.Error("onlyLoopback")
	}
}
