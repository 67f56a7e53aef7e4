package swarm_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"updraft/swarm"
	"updraft/testnet/simhost"
)

// TestPace has a device bring blobs far faster than its link can pass them on. It waits, so that hardly more than
// 1 MiB is lost with it: that, the blob after it, and what is on its way to four members, up to three blobs to each.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 4, nil)
		defer s.close()
		slow := s.add(simhost.Link{Down: lan, Up: 4e6}, nil)
		mesh(s.dev...)
		eventually(t, slow, "full mesh", func() bool { return len(slow.Members()) == 4 })
		c := makeContent(1, 128, 64<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, nil)
		time.Sleep(time.Second)
		at := time.Now()
		inject := func(c content, b *memory, i int) {
			_ = b.Put(i, c.data[i])
			slow.Inject(c.ID, i, c.data[i])
			slow.Pace(t.Context())
		}
		for i := range c.data {
			inject(c, s.stores[4], i)
		}
		took := time.Since(at)
		reached := 0
		slow.close()
		time.Sleep(30 * time.Second)
		for i := range c.data {
			for _, b := range s.stores[:4] {
				if b.Has(i) {
					reached++
					break
				}
			}
		}
		t.Logf("injected in %v; %d of %d blobs outlive the device", took, reached, len(c.data))
		if lost := (len(c.data) - reached) * 64 << 10; lost > 1<<20+13*64<<10 || took < 10*time.Second {
			t.Errorf("%d bytes are lost", lost)
		}
	})
}

// TestPaceForNobody does not wait when no member wants what is brought, nor longer than its caller.
func TestPaceForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, nil)
		defer s.close()
		c := makeContent(1, 64, 64<<10)
		b := c.holding(func(int) bool { return false })
		if err := s.dev[0].Open(c.Object, b, swarm.OpenOptions{Receive: true}); err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		for i := range c.data {
			_ = b.Put(i, c.data[i])
			s.dev[0].Inject(c.ID, i, c.data[i])
			s.dev[0].Pace(t.Context())
		}
		if d := time.Since(at); d > 0 {
			t.Errorf("waited %v for nobody", d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.dev[0].Pace(ctx)
	})
}
