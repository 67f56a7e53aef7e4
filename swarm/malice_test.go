package swarm_test

import (
	"context"
	"flag"
	"fmt"
	"runtime/metrics"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm"
)

var malice = flag.Int("malice", 0, "runs of a site with a malicious device, each with another seed; 0: each act once")

const (
	honest      = 7
	maliceBlobs = 64
	maliceRate  = 6e6 // bits per second of the uplink: the villain has some seconds for what it does
)

// plot is a site of seven honest devices and a villain.
type plot struct {
	*site
	c     content
	gates []*swarm.Gate

	mu      sync.Mutex // guards what follows
	brought int        // blobs that came over the uplink
	blamed  map[peer.ID]int
	most    swarm.Held
	heap    uint64 // most bytes
}

// TestMalice: whatever an admitted device does, one thing at a time or everything at random, the others get the release
// in bounded time, lose a blob for each lie at most, keep their memory, shun it where it lied and blame nobody else.
func TestMalice(t *testing.T) {
	list := acts()
	random := list[len(list)-1]
	converged := 0
	run := func(seed int, a act) {
		t.Run(fmt.Sprintf("%d/%s", seed, a.name), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playMalice(t, uint64(seed), a) })
			if !t.Failed() {
				converged++
			}
		})
	}
	if *malice == 0 {
		for seed, a := range list {
			if !testing.Short() || seed%3 == 0 { // those that flood take CPU for many seconds
				run(seed, a)
			}
		}
	}
	for seed := range *malice {
		if seed%4 == 3 {
			run(seed, random)
		} else { // the others take the acts in turn
			run(seed, list[(seed-seed/4)%(len(list)-1)])
		}
	}
	t.Logf("%d runs converged", converged)
}

func playMalice(t *testing.T, seed uint64, a act) {
	p := &plot{blamed: map[peer.ID]int{}}
	p.site = newSite(t, honest, func(c *swarm.Config) {
		p.gates = append(p.gates, c.Gate)
		c.Blamed = func(id peer.ID, _ swarm.Identity, _ error, _ time.Duration) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.blamed[id]++
		}
	})
	defer p.close()
	p.c = makeContent(seed, maliceBlobs, 32<<10)
	before := heapBytes()
	p.open(p.c, swarm.OpenOptions{Receive: true}, nil)
	v, end := p.attack(p.c, seed, a)
	defer end()
	time.Sleep(v.between(0, 2*time.Second))
	p.begin = time.Now()

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait() // before the rest is closed, whatever fails
	defer cancel()
	for k, d := range p.dev {
		wg.Go(func() { p.work(ctx, k, d) })
	}
	wg.Go(func() { p.watch(ctx) })
	r := p.finish(p.c)
	cancel()
	wg.Wait()

	t.Logf("%-30s %6.1fs; %d of %d blobs over the uplink; received %.2f dup %.2f; kept %+v; heap +%d MiB", a.name, r.last.Seconds(),
		p.brought, maliceBlobs, r.recv, r.dup, p.most, int64(p.heap-before)>>20)
	p.judge(v, r, before)
}

// judge looks at what the villain achieved.
func (p *plot) judge(v *villain, r result, before uint64) {
	t := p.t
	if limit := 2*time.Minute + v.act.stall; r.last > limit {
		t.Errorf("took %v, want at most %v", r.last, limit)
	}
	for k, d := range p.dev {
		cnt := d.Counters()
		if lies := v.liesTo(d); int(cnt.BadBlobs) > lies || int(cnt.Shunned) > lies {
			t.Errorf("device %d: %d wrong blobs and %d times shunned for %d lies", k, cnt.BadBlobs, cnt.Shunned, lies)
		}
		if cnt.BadBlobs > 1 {
			t.Errorf("device %d lost %d blobs", k, cnt.BadBlobs)
		}
		if (v.act.shuns && v.liesTo(d) > 0 || cnt.BadBlobs > 0) && !p.gates[k].Shunned(v.h.ID()) {
			t.Errorf("device %d does not shun the villain", k)
		}
		for _, o := range p.dev {
			if p.gates[k].Shunned(o.host.ID()) {
				t.Errorf("device %d shuns an honest one", k)
			}
		}
	}
	for id := range p.blamed {
		if id != v.h.ID() {
			t.Errorf("%s is blamed", id)
		}
	}
	if l := p.most; l.Shares > 4096 || l.ShareBytes > 1<<20 || l.Wants > 4096 || l.Nacks > 4096 || l.Leases > 64 || l.Rumors > 16 || l.Outstanding > 1<<20 || l.Cache > 4<<20+64<<10 || l.Late > 1024 {
		t.Errorf("kept %+v", l)
	}
	if grown := int64(p.heap - before); grown > honest*8<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
	if p.brought > 2*maliceBlobs {
		t.Errorf("%d blobs came over the uplink", p.brought)
	}
}

// work brings over the uplink what is missing, whenever it is the turn of device k.
func (p *plot) work(ctx context.Context, k int, d *device) {
	for ctx.Err() == nil && !p.complete(d) {
		t, err := d.Acquire(ctx, swarm.AcquireOptions{})
		if err != nil {
			return
		}
		p.bring(ctx, t, k, d)
		t.Release()
		p.stalls(ctx, d)
	}
}

func (p *plot) complete(d *device) bool {
	have, total := d.Progress(p.c.ID)
	return have == total
}

// bring fetches what is missing while the lease is held.
func (p *plot) bring(ctx context.Context, t *swarm.Tenure, k int, d *device) {
	held, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, i := range d.Missing(p.c.ID) {
		select {
		case <-t.Lost():
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(float64(len(p.c.data[i])) * 8 / maliceRate * 1e9)):
		}
		p.mu.Lock()
		p.brought++
		p.mu.Unlock()
		if p.stores[k].Has(i) {
			continue
		}
		_ = p.stores[k].Put(i, p.c.data[i])
		d.Inject(p.c.ID, i, p.c.data[i])
		d.Pace(held)
	}
}

// stalls waits until the device is complete, misses something for a second, or gets nothing for three.
func (p *plot) stalls(ctx context.Context, d *device) {
	last, since, full := 0, time.Now(), time.Now()
	for !p.complete(d) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
		if len(d.Missing(p.c.ID)) == 0 {
			full = time.Now()
		}
		if have, _ := d.Progress(p.c.ID); have != last {
			last, since = have, time.Now()
		}
		if time.Since(full) > time.Second || time.Since(since) > 3*time.Second {
			return
		}
	}
}

// watch notes the most that is kept.
func (p *plot) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(250 * time.Millisecond):
		}
		heap := heapBytes()
		p.mu.Lock()
		p.heap = max(p.heap, heap)
		for _, d := range p.dev {
			l := d.Held()
			m := &p.most
			m.Shares, m.ShareBytes, m.Wants, m.Nacks = max(m.Shares, l.Shares), max(m.ShareBytes, l.ShareBytes), max(m.Wants, l.Wants), max(m.Nacks, l.Nacks)
			m.Leases, m.Rumors, m.Outbox, m.Outstanding = max(m.Leases, l.Leases), max(m.Rumors, l.Rumors), max(m.Outbox, l.Outbox), max(m.Outstanding, l.Outstanding)
			m.Cache, m.Members, m.Strange, m.Late = max(m.Cache, l.Cache), max(m.Members, l.Members), max(m.Strange, l.Strange), max(m.Late, l.Late)
		}
		p.mu.Unlock()
	}
}

// heapBytes returns the bytes of live objects and of those not yet collected.
func heapBytes() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
