package swarm_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	manet "github.com/multiformats/go-multiaddr/net"

	"updraft/swarm"
)

// crowd opens connections to d that never say a word, one each 2.5 ms from one of so many addresses in turn, and keeps
// them until the end of the test. It returns when twice as many as a device holds were opened.
func crowd(t *testing.T, d *device, addresses int) {
	t.Helper()
	to, err := manet.ToNetAddr(d.host.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	full := make(chan struct{})
	wg.Go(func() {
		var conns []net.Conn
		defer func() {
			for _, c := range conns {
				c.Close()
			}
		}()
		for i := 0; ctx.Err() == nil; i++ {
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%addresses))}}
			if c, err := from.DialContext(ctx, "tcp", to.String()); err == nil {
				conns = append(conns, c)
			}
			if len(conns) > 500 {
				conns[0].Close()
				conns = conns[1:]
			}
			if i == 400 {
				close(full)
			}
			time.Sleep(2500 * time.Microsecond)
		}
	})
	<-full
}

// TestFewAddressesTakeNotAll: a stranger who has several addresses on the LAN, of which IPv6 gives him as many as he
// likes, keeps no device out, and closes no member's connection.
func TestFewAddressesTakeNotAll(t *testing.T) {
	t.Parallel()
	for _, addresses := range []int{4, 250} {
		t.Run(fmt.Sprint(addresses), func(t *testing.T) {
			t.Parallel()
			d := start(t, nil)
			crowd(t, d, addresses)
			const n = 16
			for range n {
				start(t, nil).Connect(d.info())
			}
			eventually(t, d, "all are members", func() bool { return len(d.Members()) == n })
			before := d.Members()
			time.Sleep(time.Second) // and three times as many as a device holds are opened
			same := func(a, b swarm.Member) bool { return a.ID == b.ID && a.Since.Equal(b.Since) }
			if after := d.Members(); !slices.EqualFunc(before, after, same) {
				t.Errorf("members before %+v, after %+v", before, after)
			}
		})
	}
}
