package swarm_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm"
	"updraft/testnet/simhost"
)

// remove takes a device out of a site, as if it had been killed.
func (s *site) remove(k int) {
	d := s.dev[k]
	d.host.Close()
	d.close()
	s.dev = append(s.dev[:k:k], s.dev[k+1:]...)
	s.stores = append(s.stores[:k:k], s.stores[k+1:]...)
}

func everybody(t *testing.T, n int, f func(t *testing.T, s *site, c content)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, n, nil)
		defer s.close()
		c := makeContent(uint64(n), 128, 64<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, nil)
		time.Sleep(500 * time.Millisecond)
		s.begin = time.Now()
		f(t, s, c)
	})
}

func TestRelayKilled(t *testing.T) {
	everybody(t, 8, func(t *testing.T, s *site, c content) {
		s.feed(c, 0, 0, 64, payload)
		s.remove(3)
		s.feed(c, 0, 64, 128, payload)
		r := s.finish(c)
		r.log(t, "relay killed", bound(c))
		if tail := r.last - time.Duration(1.0456*float64(bound(c))); tail > 2*time.Second {
			t.Errorf("the last device came %v after the last blob", tail)
		}
		if r.recv > 1.1 {
			t.Errorf("received %.3f", r.recv)
		}
	})
}

func TestSilentRelay(t *testing.T) {
	everybody(t, 8, func(t *testing.T, s *site, c content) {
		s.feed(c, 0, 0, 64, payload)
		s.net.Cut([]peer.ID{s.dev[3].host.ID()})
		s.feed(c, 0, 64, 128, payload)
		dead := s.dev[3]
		s.dev = append(s.dev[:3:3], s.dev[4:]...)
		s.stores = append(s.stores[:3:3], s.stores[4:]...)
		r := s.finish(c)
		r.log(t, "relay silent", bound(c))
		if tail := r.last - time.Duration(1.0456*float64(bound(c))); tail > 3*time.Second {
			t.Errorf("the last device came %v after the last blob", tail)
		}
		dead.close()
	})
}

func TestHolderKilledAndTakenOver(t *testing.T) {
	everybody(t, 8, func(t *testing.T, s *site, c content) {
		ctx := t.Context()
		first, err := s.dev[0].Acquire(ctx, swarm.AcquireOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.feed(c, 0, 0, 64, payload)
		_ = first
		s.remove(0)
		killed := time.Now()
		tn, err := s.dev[0].Acquire(ctx, swarm.AcquireOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("taken over after %v", time.Since(killed))
		if d := time.Since(killed); d > 3*time.Second {
			t.Errorf("taken over after %v", d)
		}
		miss := s.dev[0].Missing(c.ID)
		if extra := len(miss) - 64; extra > 16 {
			t.Errorf("%d blobs are fetched again", extra)
		}
		at := time.Now()
		for _, i := range miss {
			at = at.Add(time.Duration(float64(len(c.data[i])) * 8 / payload * 1e9))
			time.Sleep(time.Until(at))
			_ = s.stores[0].Put(i, c.data[i])
			s.dev[0].Inject(c.ID, i, nil)
		}
		tn.Release()
		r := s.finish(c)
		r.log(t, "holder killed", bound(c))
	})
}

func TestSplitAndHeal(t *testing.T) {
	everybody(t, 8, func(t *testing.T, s *site, c content) {
		s.feed(c, 0, 0, 32, payload)
		var part []peer.ID
		for _, d := range s.dev[5:] {
			part = append(part, d.host.ID())
		}
		s.net.Cut(part)
		s.feed(c, 0, 32, 96, payload)
		s.net.Cut()
		s.feed(c, 0, 96, 128, payload)
		r := s.finish(c)
		r.log(t, "split and healed", bound(c))
		if r.recv > 1.15 {
			t.Errorf("received %.3f", r.recv)
		}
	})
}

func TestSlowDeviceDelaysNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes CPU for many seconds")
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 7, nil)
		defer s.close()
		slow := s.add(simhost.Link{Down: 2e6, Up: 2e6}, nil)
		mesh(s.dev...)
		eventually(t, slow, "slow device joins", func() bool { return len(slow.Members()) == 7 })
		c := makeContent(5, 128, 64<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, nil)
		time.Sleep(500 * time.Millisecond)
		s.begin = time.Now()
		s.feed(c, 0, 0, 128, payload)
		all, stores := s.dev, s.stores
		s.dev, s.stores = s.dev[:7], s.stores[:7]
		r := s.finish(c)
		r.log(t, "the seven fast ones", bound(c))
		if tail := r.last - time.Duration(1.0456*float64(bound(c))); tail > 4*time.Second {
			t.Errorf("the last fast device came %v after the last blob", tail)
		}
		s.dev, s.stores = all, stores
		r = s.finish(c)
		r.log(t, "all eight", bound(c))
	})
}

func TestTwoProducersShareTheWork(t *testing.T) {
	if testing.Short() {
		t.Skip("takes CPU for many seconds")
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 8, nil)
		defer s.close()
		c := makeContent(6, 128, 64<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, nil)
		for k := range 2 {
			if err := s.dev[k].SetOptions(c.ID, swarm.OpenOptions{Produce: true}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(500 * time.Millisecond)
		s.begin = time.Now()
		for i := range c.data {
			for k := range 2 {
				_ = s.stores[k].Put(i, c.data[i])
				s.dev[k].Inject(c.ID, i, c.data[i])
			}
			time.Sleep(20 * time.Millisecond)
		}
		r := s.finish(c)
		r.log(t, "two producers", bound(c))
		if r.dup > 0.05 {
			t.Errorf("duplicates %.3f", r.dup)
		}
		for k := range 2 {
			if out := float64(s.dev[k].Counters().BytesOut) / float64(c.bytes()); out < 0.2 || out > 2 {
				t.Errorf("producer %d sent %.2f copies", k, out)
			}
		}
	})
}

func TestJoinerInTheMiddle(t *testing.T) {
	if testing.Short() {
		t.Skip("takes CPU for many seconds")
	}
	everybody(t, 8, func(t *testing.T, s *site, c content) {
		s.feed(c, 0, 0, 64, payload)
		late := s.add(simhost.Link{Down: lan, Up: lan}, nil)
		mesh(s.dev...)
		b := c.empty()
		s.stores = append(s.stores, b)
		if err := late.Open(c.Object, b, swarm.OpenOptions{Receive: true}); err != nil {
			t.Fatal(err)
		}
		s.feed(c, 0, 64, 128, payload)
		r := s.finish(c)
		r.log(t, "joiner in the middle", bound(c))
		if r.dup > 0.03 {
			t.Errorf("duplicates %.3f", r.dup)
		}
	})
}

func TestDroppedBlobIsReplaced(t *testing.T) {
	everybody(t, 3, func(t *testing.T, s *site, c content) {
		s.feed(c, 0, 0, 128, 10*payload)
		s.finish(c)
		// The bytes of device 1 change on disk; a new device finds the blob elsewhere, and 1 stops offering it.
		s.stores[1].mu.Lock()
		s.stores[1].lost[5], s.stores[1].puts[5] = true, 0 // it may be brought again
		s.stores[1].mu.Unlock()
		s.dev[0].Drop(c.ID, 5)
		s.stores[0].mu.Lock()
		s.stores[0].data[5], s.stores[0].puts[5] = nil, 0
		s.stores[0].mu.Unlock()
		r := s.finish(c)
		r.log(t, "dropped blob", bound(c))
	})
}

func TestFailingStoreIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, nil)
		defer s.close()
		c := makeContent(8, 16, 64<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, func(dev, _ int) bool { return dev == 0 })
		f := &failing{memory: c.empty()}
		f.left.Store(3)
		s.dev[1].Close(c.ID)
		s.stores[1] = f.memory
		if err := s.dev[1].Open(c.Object, f, swarm.OpenOptions{Receive: true}); err != nil {
			t.Fatal(err)
		}
		if r := s.finish(c); r.last > 5*time.Second {
			t.Errorf("took %v: the other device is to blame", r.last)
		}
		if f.left.Load() > 0 {
			t.Error("the store did not fail")
		}
	})
}

// failing fails the first Puts.
type failing struct {
	*memory
	left atomic.Int32
}

func (f *failing) Put(i int, b []byte) error {
	if f.left.Add(-1) >= 0 {
		return errFull
	}
	return f.memory.Put(i, b)
}

// TestSuspendedHolder: a holder that the machine's sleep has stopped gives the lease up before it does anything else, and
// tells of it. Go's clock stands still meanwhile.
func TestSuspendedHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 0, nil)
		defer s.close()
		var asleep, woken atomic.Int64
		s.asleep = func() time.Duration { return time.Duration(asleep.Load()) }
		d := s.add(simhost.Link{Down: lan, Up: lan}, func(c *swarm.Config) { c.Woke = func() { woken.Add(1) } })
		asleep.Store(int64(time.Second))
		first, err := d.Acquire(t.Context(), swarm.AcquireOptions{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		select {
		case <-first.Lost():
			t.Error("lost while awake")
		default:
		}
		asleep.Add(int64(10 * time.Minute))
		time.Sleep(time.Second)
		select {
		case <-first.Lost():
		default:
			t.Error("still holds after the sleep")
		}
		if n := woken.Load(); n != 1 {
			t.Errorf("told %d times", n)
		}
		next, err := d.Acquire(t.Context(), swarm.AcquireOptions{})
		if err != nil {
			t.Fatal(err)
		}
		next.Release()
	})
}
