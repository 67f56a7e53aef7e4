package swarm_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"updraft/swarm"
	"updraft/swarm/limit"
	"updraft/swarm/wire"
	"updraft/testnet/simhost"
)

// TestSlowReceiver has a device behind a slow link get what four others, or many, have. Each of them sends it a fraction
// of what the link carries; nobody is taken for one that does not answer.
func TestSlowReceiver(t *testing.T) {
	for _, x := range []struct{ bits, seeds, blobs, size int }{
		{250_000, 4, 16, 256 << 10}, {250_000, 4, 64, 64 << 10}, {250_000, 12, 48, 64 << 10}, {1_000_000, 8, 48, 64 << 10},
	} {
		t.Run(fmt.Sprint(x.bits, " from ", x.seeds, " in ", x.size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, x.seeds, nil)
				defer s.close()
				slow := s.add(simhost.Link{Down: x.bits, Up: x.bits}, nil)
				mesh(s.dev...)
				eventually(t, slow, "joins", func() bool { return len(slow.Members()) == x.seeds })
				time.Sleep(20 * time.Second) // connections that were made twice end
				before := slow.Members()
				c := makeContent(1, x.blobs, x.size)
				s.open(c, swarm.OpenOptions{Receive: true}, func(dev, _ int) bool { return dev < x.seeds })
				base, _ := s.net.Bytes(slow.host.ID())
				missed := 0
				for k := 0; ; k++ {
					time.Sleep(time.Second)
					if have, total := slow.Progress(c.ID); have == total || time.Since(s.begin) > time.Hour {
						break
					}
					if len(slow.Missing(c.ID)) > 0 {
						missed++
					}
				}
				r := s.finish(c)
				alone := time.Duration(float64(c.bytes()) * 8 / float64(x.bits) * 1e9)
				r.log(t, "slow receiver", alone)
				if ratio := float64(r.last) / float64(alone); ratio > 1.3 {
					t.Errorf("took %.2f of the time of the link", ratio)
				}
				if in, _ := s.net.Bytes(slow.host.ID()); float64(in-base) > 1.1*float64(c.bytes()) {
					t.Errorf("the link carried %.2f of the object", float64(in-base)/float64(c.bytes()))
				}
				if missed > 0 {
					t.Errorf("what everybody has counted as missing in %d looks", missed)
				}
				for k, m := range slow.Members() {
					if m.ID != before[k].ID || m.Since != before[k].Since {
						t.Errorf("connection with %s was lost", m.ID)
					}
				}
			})
		})
	}
}

// TestOneSlowSeed has a device get what three fast members and one behind a slow link have. It does not wait for the slow
// one, whoever is asked first.
func TestOneSlowSeed(t *testing.T) {
	for k := range 6 {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, 4, nil)
			defer s.close()
			slow := s.add(simhost.Link{Down: 64_000, Up: 64_000}, nil)
			mesh(s.dev...)
			eventually(t, slow, "joins", func() bool { return len(slow.Members()) == 4 })
			time.Sleep(20 * time.Second)
			c := makeContent(uint64(k), 24, 256<<10)
			s.open(c, swarm.OpenOptions{Receive: true}, func(dev, _ int) bool { return dev > 0 })
			r := s.finish(c)
			if r.last > 3*time.Second {
				t.Errorf("took %v, and 0.6 s are enough for the fast ones", r.last)
			}
			if r.linkIn > 1.2 {
				t.Errorf("the link carried %.2f of the object", r.linkIn)
			}
		})
	}
}

// TestFastSeedAfterASlowOne has a fast member join a device that gets an object from a slow one.
func TestFastSeedAfterASlowOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, nil)
		defer s.close()
		slow := s.add(simhost.Link{Down: 64_000, Up: 64_000}, nil)
		mesh(s.dev...)
		eventually(t, slow, "joins", func() bool { return len(slow.Members()) == 1 })
		time.Sleep(20 * time.Second)
		c := makeContent(1, 24, 256<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, func(dev, _ int) bool { return dev == 1 })
		time.Sleep(100 * time.Second)
		fast := s.add(simhost.Link{Down: lan, Up: lan}, nil)
		b := c.full()
		s.stores = append(s.stores, b)
		if err := fast.Open(c.Object, b, swarm.OpenOptions{}); err != nil {
			t.Fatal(err)
		}
		fast.Connect(s.dev[0].info())
		s.dev[0].Connect(fast.info())
		s.begin = time.Now()
		if r := s.finish(c); r.last > 5*time.Second {
			t.Errorf("took %v from when the fast one came", r.last)
		}
	})
}

// timed notes when blobs were stored.
type timed struct {
	*memory
	mu sync.Mutex // guards at
	at []time.Time
}

func (b *timed) Put(i int, d []byte) error {
	b.mu.Lock()
	b.at = append(b.at, time.Now())
	b.mu.Unlock()
	return b.memory.Put(i, d)
}

// TestSlowSender gets blobs of a quarter MiB, which are blocks of patches, from a device with a limit: each comes when
// the limit allows it, and not with the next.
func TestSlowSender(t *testing.T) {
	for _, limits := range []func(*swarm.Config, int64){
		func(c *swarm.Config, rate int64) { c.Upload = limit.New(rate) },
		func(c *swarm.Config, rate int64) { c.Download = limit.New(rate) },
	} {
		for _, rate := range []int64{16 << 10, 64 << 10, 256 << 10, 1 << 20} {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 2, func(c *swarm.Config) { limits(c, rate) })
				defer s.close()
				c := makeContent(1, 12, 256<<10)
				if err := s.dev[0].Open(c.Object, c.full(), swarm.OpenOptions{}); err != nil {
					t.Fatal(err)
				}
				b := &timed{memory: c.empty()}
				begin := time.Now()
				if err := s.dev[1].Open(c.Object, b, swarm.OpenOptions{Receive: true}); err != nil {
					t.Fatal(err)
				}
				if err := s.dev[1].Wait(t.Context(), c.ID); err != nil {
					t.Fatal(err)
				}
				alone := float64(c.bytes()) / float64(rate)
				if took := time.Since(begin).Seconds(); took > alone/0.8 {
					t.Errorf("%d bytes a second: took %.1f s, %.2f of what the limit allows", rate, took, took/alone)
				}
				if n := s.dev[1].Counters(); n.BytesIn > c.bytes() {
					t.Errorf("%d bytes a second: received %d of %d bytes", rate, n.BytesIn, c.bytes())
				}
				gap := time.Duration(0) // a blob has up to one and a half times a quarter MiB
				for k := range b.at[1:] {
					gap = max(gap, b.at[k+1].Sub(b.at[k]))
				}
				if most := time.Duration(1.6 * float64(256<<10) / float64(rate) * 1e9); gap > most {
					t.Errorf("%d bytes a second: %v passed between two blobs, want at most %v", rate, gap, most)
				}
			})
		}
	}
}

// TestLimitedSeedOfMany has so many members want what one has that sends with a limit that each would get less of it than
// keeps a connection. They are sent to in turn, and all stay.
func TestLimitedSeedOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 20
		s := newSite(t, many, nil)
		defer s.close()
		seed := s.add(simhost.Link{Down: lan, Up: lan}, func(c *swarm.Config) { c.Upload = limit.New(16 << 10) })
		mesh(s.dev...)
		eventually(t, seed, "joins", func() bool { return len(seed.Members()) == many })
		time.Sleep(20 * time.Second) // connections that were made twice end
		before := seed.Members()
		c := makeContent(1, 4, 256<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, func(dev, _ int) bool { return dev == many })
		r := s.finish(c)
		alone := time.Duration(float64(c.bytes()) / (16 << 10) * 1e9)
		r.log(t, "seed with a limit", alone)
		if r.last > 4*alone {
			t.Errorf("took %.2f of the time of the limit", float64(r.last)/float64(alone))
		}
		for k, m := range seed.Members() {
			if m.ID != before[k].ID || m.Since != before[k].Since {
				t.Errorf("connection with %s was lost", m.ID)
			}
		}
	})
}

// TestTrickle has a member send one blob a few bytes at a time, and answer to everything. Below a pace it is dropped; above
// that it may go on, but for what it sends so slowly nobody waits for long.
func TestTrickle(t *testing.T) {
	for _, x := range []struct {
		rate    int           // bytes a second
		waited  time.Duration // if it is not dropped: 30 s, and what the blob takes at 4 KiB/s
		dropped bool
	}{{64, 5 * time.Second, true}, {2 << 10, 94 * time.Second, false}} {
		hostile(t, func(t *testing.T, s *site, _ content, p *raw) {
			c := makeContent(12, 1, 256<<10)
			if err := s.dev[0].Open(c.Object, c.empty(), swarm.OpenOptions{Receive: true}); err != nil {
				t.Fatal(err)
			}
			p.join()
			p.send(wire.AppendInterest(nil, wire.Interest{ID: c.ID, Count: 1, Flags: wire.FlagAll}))
			st, err := p.h.NewStream(t.Context(), p.to, swarm.ProtoBlob)
			if err != nil {
				t.Fatal(err)
			}
			begun, waited := time.Now(), time.Duration(0)
			_, err = st.Write(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: c.ID, Len: c.Sizes[0]}))
			for k := 0; err == nil && p.h.Network().Connectedness(p.to) == network.Connected && k+x.rate < len(c.data[0]); k += x.rate {
				_, err = st.Write(c.data[0][k : k+x.rate])
				_, _ = p.control.Write(wire.AppendFrame(nil, wire.TypePong, nil))
				time.Sleep(time.Second)
				if len(s.dev[0].Missing(c.ID)) == 0 && waited == time.Since(begun)-time.Second {
					waited = time.Since(begun)
				}
			}
			d := time.Since(begun)
			if dropped := p.h.Network().Connectedness(p.to) != network.Connected; dropped != x.dropped || d > time.Minute && dropped {
				t.Errorf("%d bytes a second: dropped %v after %v", x.rate, dropped, d)
			}
			if waited > x.waited+2*time.Second || waited < x.waited/2 {
				t.Errorf("%d bytes a second: waited for %v", x.rate, waited)
			}
		})
	}
}

// learnPace has the first device learn how fast the second is.
func (s *site) learnPace() {
	s.t.Helper()
	c := makeContent(1, 1, 64<<10)
	s.open(c, swarm.OpenOptions{Receive: true}, func(dev, _ int) bool { return dev == 1 })
	s.finish(c)
}

// TestTrickleHoldsUpNobody has eight members send long blobs a few bytes at a time, each anew as soon as it is cut off. They
// do not keep the memory in which blobs are received from a member that sends as it should.
func TestTrickleHoldsUpNobody(t *testing.T) {
	for _, rate := range []int{2 << 10, 8 << 10} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, 2, nil)
			defer s.close()
			s.learnPace()
			c := makeContent(2, 24, 600<<10)
			b := c.empty()
			if err := s.dev[0].Open(c.Object, b, swarm.OpenOptions{Receive: true}); err != nil {
				t.Fatal(err)
			}
			for k := range uint32(8) {
				head := wire.BlobHeader{ID: c.ID, Index: k, Len: c.Sizes[k], Flags: wire.BlobPacked, Packed: c.Sizes[k] - 1}
				_, end := s.attack(c, uint64(k), act{play: func(f *front) {
					ok := f.write(wire.AppendBlobHeader(nil, head))
					for at := 0; ok && at+rate < len(c.data[k]); at += rate {
						ok = f.write(c.data[k][at:at+rate]) && f.sleep(time.Second)
					}
				}})
				defer end()
			}
			time.Sleep(time.Second)
			begin := time.Now()
			if err := s.dev[1].Open(c.Object, c.full(), swarm.OpenOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := s.dev[0].Wait(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
			check(t, c, b)
			if d := time.Since(begin); d > 45*time.Second {
				t.Errorf("%d bytes a second: took %v", rate, d)
			}
		})
	}
}

// slowDisk takes as long for each blob.
type slowDisk struct {
	*memory
	each time.Duration
}

func (b slowDisk) Put(i int, d []byte) error {
	time.Sleep(b.each)
	return b.memory.Put(i, d)
}

// TestSlowDiskIsNobodysFault fills the memory in which blobs are received with some that have come at once, and are not
// stored for long. Nobody is dropped for that, although another waits for the memory who would have sent its own long ago.
func TestSlowDiskIsNobodysFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, nil)
		defer s.close()
		s.learnPace()
		const many = 24 // more than there is memory for
		c := makeContent(2, many+8, 600<<10)
		b := c.empty()
		if err := s.dev[0].Open(c.Object, slowDisk{b, 12 * time.Second}, swarm.OpenOptions{Receive: true}); err != nil {
			t.Fatal(err)
		}
		for k := range uint32(many) {
			p := s.raw(s.dev[0])
			defer p.h.Close()
			p.join()
			st, err := p.h.NewStream(t.Context(), p.to, swarm.ProtoBlob)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = st.Write(append(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: c.ID, Index: k, Len: c.Sizes[k]}), c.data[k]...))
			}()
		}
		time.Sleep(time.Second)
		if err := s.dev[1].Open(c.Object, c.full(), swarm.OpenOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if have, _ := s.dev[0].Progress(c.ID); have > 0 {
			t.Fatalf("%d blobs are stored", have)
		}
		if n := len(s.dev[0].Members()); n != many+1 {
			t.Errorf("%d of %d members are left", n, many+1)
		}
		if err := s.dev[0].Wait(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		check(t, c, b)
	})
}

// TestUpForLong: a device that has run for 2^32 ms goes on asking for what it was asking for.
func TestUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 0, nil)
		defer s.close()
		seed := s.add(simhost.Link{Down: lan, Up: lan}, func(c *swarm.Config) { c.Upload = limit.New(256 << 10) })
		s.up = 1<<32*time.Millisecond - 4*time.Second
		late := s.add(simhost.Link{Down: lan, Up: lan}, nil)
		mesh(s.dev...)
		eventually(t, late, "mesh", func() bool { return len(late.Members()) == 1 })
		c := makeContent(3, 64, 64<<10) // 4 MiB: 16 s
		if err := seed.Open(c.Object, c.full(), swarm.OpenOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := late.Open(c.Object, c.empty(), swarm.OpenOptions{Receive: true}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := late.Wait(ctx, c.ID); err != nil {
			have, total := late.Progress(c.ID)
			t.Errorf("%d of %d blobs: %v", have, total, err)
		}
	})
}
