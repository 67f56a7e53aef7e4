package swarm_test

import (
	"context"
	"fmt"
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

// TestPaceForSlowMembers brings blobs at 20 Mbit/s where some or all who want them are behind slow links. Those are not
// waited for for long, whoever they are, and the fast ones have everything soon after.
func TestPaceForSlowMembers(t *testing.T) {
	for _, x := range []struct {
		fast, slow int
		bits       int
		most       time.Duration // that is waited for them
	}{
		{0, 1, 64_000, 5 * time.Second}, {0, 1, 1_000_000, 12 * time.Second}, {0, 2, 64_000, 5 * time.Second},
		{0, 6, 64_000, 5 * time.Second}, {1, 1, 64_000, time.Second}, {2, 6, 64_000, 6 * time.Second}, {6, 1, 64_000, 5 * time.Second},
	} {
		t.Run(fmt.Sprint(x.fast, " fast, ", x.slow, " with ", x.bits), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 1+x.fast, nil)
				defer s.close()
				for range x.slow {
					s.add(simhost.Link{Down: x.bits, Up: x.bits}, nil)
				}
				mesh(s.dev...)
				for len(s.dev[0].Members()) < x.fast+x.slow { // over slow links it takes more than one attempt
					time.Sleep(time.Second)
				}
				time.Sleep(time.Minute)
				c := makeContent(1, 64, 64<<10)
				s.open(c, swarm.OpenOptions{Receive: true}, nil)
				alone := time.Duration(float64(c.bytes()) * 8 / 20e6 * 1e9)
				for i := range c.data {
					time.Sleep(alone / time.Duration(len(c.data)))
					_ = s.stores[0].Put(i, c.data[i])
					s.dev[0].Inject(c.ID, i, c.data[i])
					s.dev[0].Pace(t.Context())
				}
				brought := time.Since(s.begin)
				for k := 1; k <= x.fast; k++ {
					if err := s.dev[k].Wait(t.Context(), c.ID); err != nil {
						t.Fatal(err)
					}
				}
				t.Logf("%+v: brought after %v, %v alone; the fast ones had all after %v", x, brought, alone, time.Since(s.begin))
				if brought > alone+x.most {
					t.Errorf("waited %v", brought-alone)
				}
				if d := time.Since(s.begin) - brought; d > 10*time.Second {
					t.Errorf("fast members wait for %v", d)
				}
			})
		})
	}
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
