package node_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/identity"
	"updraft/node/report"
	"updraft/swarm"
	"updraft/swarm/lease"
)

// TestGatewayRole: who is configured as a gateway is one if its certificate allows it.
// Otherwise it says so and works as a device, and the others do not believe a device
// that claims the rank all the same.
func TestGatewayRole(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	gateway := func(c *node.Config) { c.Gateway = true }
	gw := s.start(s.enroll(gateway)) // dev1
	plain := s.enroll(gateway)       // dev2
	e, err := s.fleet.Enroll(fleet.EnrollOptions{Name: "dev2", Type: "lab", Site: "lab", Origins: []string{s.url}, Roles: []string{identity.RoleDevice}, Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Write(plain.Enrollment); err != nil {
		t.Fatal(err)
	}
	dev := s.start(plain)
	thief := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "thief", Site: "lab", Roles: []string{identity.RoleDevice}}), gw)
	gw.awaitPeers(2)

	if p := dev.problem("role"); !strings.Contains(p.Text, "does not allow the role of a gateway") || p.Hint == "" {
		t.Errorf("status says %+v", p)
	}
	if a, b := gw.node.Status().Role, dev.node.Status().Role; a != "gateway" || b != "device" {
		t.Errorf("roles %s, %s", a, b)
	}
	if err := thief.Announce(swarm.Profile{Rank: lease.Rank{Gateway: true, Up: 1 << 30}, Node: thief.Members()[0].Profile.Node}); err != nil {
		t.Fatal(err)
	}
	ranks := func(a *agent, want map[string]bool) {
		t.Helper()
		a.await("the ranks of others", func(report.Status) bool {
			return !slices.ContainsFunc(a.node.Peers(), func(p report.Peer) bool { return p.Gateway != want[p.Name] }) && len(a.node.Peers()) == len(want)
		})
	}
	ranks(gw, map[string]bool{"dev2": false, "thief": false})
	ranks(dev, map[string]bool{"dev1": true})
	dev.look("1.0.0")
	dev.awaitVersion("1.0.0")
}

// join makes a device of the fleet that is under somebody else's control a member of
// the agent's site; it lets everybody in.
func join(t *testing.T, e *identity.Enrollment, a *agent, change ...func(*swarm.Config)) *swarm.Swarm {
	t.Helper()
	key, _, err := e.PrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	h, err := swarm.NewHost(swarm.HostConfig{Key: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := swarm.Config{Host: h, Credential: e.Cert, Admit: func(peer.ID, []byte) (swarm.Identity, error) { return swarm.Identity{}, nil }}
	for _, f := range change {
		f(&cfg)
	}
	sw, err := swarm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sw.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, h.Close()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	to, err := peer.AddrInfoFromString(a.node.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	a.await("up", func(st report.Status) bool { return st.State != "starting" })
	sw.Connect(*to)
	for end := time.Now().Add(20 * time.Second); len(sw.Members()) == 0 || len(sw.Members()[0].Profile.Node) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not admitted")
		}
	}
	return sw
}

// TestFalseClaims: who claims newer and newer metadata, and has none, is asked once a minute.
func TestFalseClaims(t *testing.T) {
	t.Parallel()
	s, a := installed(t)
	var asked atomic.Int64
	liar := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "liar", Site: "lab"}), a, func(c *swarm.Config) {
		c.Files = func(string) ([]byte, error) { asked.Add(1); return nil, fs.ErrNotExist }
	})
	for meta := byte(100); meta < 120; meta++ {
		if err := liar.Announce(swarm.Profile{Node: []byte{0xa2, 1, 1, 2, 0x18, meta}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(150 * time.Millisecond)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	s.publish("1.1.0", s.write("v2/app.bin", noise(2, 100<<10)))
	b := s.start(s.enroll(nil)) // what is true is followed meanwhile
	b.awaitPeers(1)
	b.look("1.1.0")
	a.awaitVersion("1.1.0")
}

// TestNobodyReachesTheOrigin: whose own look fails, and that of a neighbour as well, says why of both.
func TestNobodyReachesTheOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	a := s.start(s.enroll(func(c *node.Config) { c.Origins = []string{"http://127.0.0.1:1"} }))
	fails := func(cfg *swarm.Config) {
		cfg.Call = func(context.Context, peer.ID, string, []byte) ([]byte, error) {
			return nil, errors.New("the modem is asleep")
		}
	}
	by := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "sleeper", Site: "lab"}), a, fails)
	if err := by.Announce(swarm.Profile{Node: node.ReachingProfile()}); err != nil {
		t.Fatal(err)
	}
	a.awaitPeers(1)
	_, err := a.node.Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no device of the site can reach the origin") || !strings.Contains(err.Error(), "the modem is asleep") {
		t.Errorf("got %v", err)
	}
}

// TestAskedTooOften: a member that has the site look at the origin without end is refused,
// and nobody else.
func TestAskedTooOften(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	a := s.start(s.enroll(nil))
	a.look("1.0.0")
	eager := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "eager", Site: "lab"}), a)
	answered := 0
	for range 24 {
		time.Sleep(1100 * time.Millisecond) // or the look before answers for it
		_, err := eager.Invoke(t.Context(), a.node.ID(), "check", []byte("person"))
		if err == nil {
			answered++
		} else if !strings.Contains(err.Error(), "too often") {
			t.Fatal(err)
		}
	}
	if answered < 20 || answered > 22 { // one more for each minute that this takes
		t.Errorf("%d looks in a row", answered)
	}
	b := s.start(s.enroll(nil))
	b.awaitPeers(1)
	s.publish("1.1.0", s.write("v2/app.bin", noise(2, 100<<10)))
	b.look("1.1.0")
	a.awaitVersion("1.1.0")
}
