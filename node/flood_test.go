package node_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// flood keeps n connections to an agent that never say a word, and opens each anew
// when it is closed.
func flood(t *testing.T, a *agent, n int) (stop func()) {
	t.Helper()
	m, err := multiaddr.NewMultiaddr(a.node.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := multiaddr.SplitFunc(m, func(c multiaddr.Component) bool { return c.Protocol().Code == multiaddr.P_P2P })
	to, err := manet.ToNetAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
				if err != nil {
					time.Sleep(100 * time.Millisecond)
					continue
				}
				end := context.AfterFunc(ctx, func() { c.Close() })
				_, _ = c.Read(make([]byte, 1024))
				end()
				c.Close()
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// TestFlood: a site converges while a stranger holds all the half-open connections
// that it gets.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("600 connections that wait for their end")
	}
	// Not beside other tests: all come from one address here, and the honest share its limit.
	s := newSite(t, 0)
	v1 := noise(1, 4<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(nil))
	defer flood(t, a, 300)()
	time.Sleep(time.Second)
	b, c := s.start(s.enroll(nil)), s.start(s.enroll(nil))
	defer flood(t, b, 300)()
	for _, x := range []*agent{a, b, c} {
		x.awaitPeers(2)
	}
	a.look("1.0.0")
	for _, x := range []*agent{a, b, c} {
		x.awaitVersion("1.0.0")
		x.sees(v1)
	}
}
