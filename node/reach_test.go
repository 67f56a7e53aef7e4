package node_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"updraft/node"
	"updraft/node/report"
)

// muteOrigin is an address at which whatever is asked is never answered.
func muteOrigin(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(io.Discard, c) // ends with the agent
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// TestHolderGetsNowhere: a gateway, which goes before everybody, is granted the uplink
// after another device and never hears from its origin. It gives way to the one that
// does, and goes on giving way.
func TestHolderGetsNowhere(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1<<20)
	const size = 6 << 20
	v1 := noise(1, size)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	first, good := s.start(s.enroll(nil)), s.start(s.enroll(nil))
	mute := muteOrigin(t)
	gw := s.start(s.enroll(func(c *node.Config) { c.Gateway, c.Origins = true, []string{mute} }))
	gw.awaitPeers(2)
	if err := check(first); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*agent{gw, good} { // with the first one the news would be lost
		a.await("told of the release", func(st report.Status) bool { return st.Target == "1.0.0" })
	}
	first.await("a third of the way", func(st report.Status) bool { return st.IsHolder && st.Progress != nil && st.Progress.Have > size/3 })
	first.end()
	if p := gw.problem("fetch"); !strings.Contains(p.Text, "nothing came") {
		t.Errorf("problem %+v", p)
	}
	for _, a := range []*agent{gw, good} {
		a.awaitVersion("1.0.0")
		a.sees(v1)
	}
	v2 := edited(v1)
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	good.look("1.1.0")
	for _, a := range []*agent{gw, good} {
		a.awaitVersion("1.1.0")
		a.sees(v2)
	}
	if p := gw.node.Status().Problems; len(p) > 0 {
		t.Errorf("asked its origin again: %+v", p)
	}
}

// TestOneReachesTheOrigin: of several devices that wait for the uplink the one whose
// look was answered goes first, so that nobody waits for the others to fail.
func TestOneReachesTheOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 2<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	mute := muteOrigin(t)
	var as []*agent
	for range 4 {
		as = append(as, s.start(s.enroll(func(c *node.Config) { c.Origins = []string{mute} })))
	}
	good := s.start(s.enroll(nil))
	as = append(as, good)
	good.awaitPeers(4)
	if err := check(good); err != nil {
		t.Fatal(err)
	}
	for _, a := range as {
		a.awaitVersion("1.0.0")
		a.sees(v1)
		if p := a.node.Status().Problems; len(p) > 0 {
			t.Errorf("%s: problems %+v", a.data, p)
		}
	}
}
