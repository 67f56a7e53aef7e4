// Package scale plays large sites in virtual time: the real swarm of hundreds of devices on simulated links, an uplink
// that whoever holds the lease downloads over, and what it cost.
//
//	synctest.Test(t, func(t *testing.T) { p, err = scale.Play(scale.Site{Devices: 200}) })
//
// Every device wants the release and nobody has anything. All are started within a second, find each other at once (the
// finding is not played), elect a holder, and exchange until the last is done. Links are those of simhost.Light: bytes
// take their time on the sender's and on the receiver's link, connections cost nothing to make.
package scale

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm"
	"updraft/swarm/lease"
	"updraft/testnet/simhost"
)

// Site is what is played, see [Play]. Zero values are replaced by those named.
type Site struct {
	Devices int
	Blobs   int     // 96
	Blob    int     // bytes of each; 64 KiB
	Uplink  float64 // bits per second; 20e6
	LAN     float64 // of each device, both ways; 100e6
	Peers   int     // swarm.Config.MaxPeers; 0: that of a device
	Kill    int     // how many holders are killed, spread over the download
	Faults  uint64  // seed of a schedule of crashes, pauses and splits; 0: none
	Timeout time.Duration
}

// Point is what one site cost. Bytes of the LAN are those of blobs.
type Point struct {
	Devices     int     `json:"devices"`
	Done        int     `json:"done"`
	Killed      int     `json:"killed,omitempty"`
	Splits      int     `json:"splits,omitempty"`
	LastS       float64 `json:"last_s"`       // from the start to the last device
	UplinkS     float64 `json:"uplink_s"`     // the size of the release ÷ the rate of the uplink
	TailS       float64 `json:"tail_s"`       // from the last byte over the uplink to the last device
	UplinkRatio float64 `json:"uplink_ratio"` // bytes over the uplink ÷ release
	Received    float64 `json:"received"`     // by a device, mean ÷ release
	Busiest     float64 `json:"busiest"`      // sent by the device that sent most ÷ release
	Duplicates  float64 `json:"duplicates"`   // received twice, mean ÷ release
	Pulled      float64 `json:"pulled"`       // asked for, mean ÷ blobs of the release
	Members     float64 `json:"members"`      // connections of a device, mean
	Messages    float64 `json:"messages"`     // control frames received by a device, mean
	Control     float64 `json:"control"`      // their bytes
	Memory      float64 `json:"memory"`       // bytes of heap and stacks for a device, mean
}

// tcp is what TCP over Ethernet adds to payload on the uplink.
const tcp = 1.0456

func (s Site) filled() Site {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&s.Blobs, 96)
	set(&s.Blob, 64<<10)
	if s.Uplink == 0 {
		s.Uplink = 20e6
	}
	if s.LAN == 0 {
		s.LAN = 100e6
	}
	if s.Timeout == 0 {
		s.Timeout = 30 * time.Minute
	}
	return s
}

// store is a device's copy of the release, whose bytes all devices share.
type store struct {
	data [][]byte
	have []atomic.Bool
}

// Has is part of swarm.Blobs.
func (b *store) Has(i int) bool { return b.have[i].Load() }

// Get is part of swarm.Blobs.
func (b *store) Get(i int, buf []byte) ([]byte, error) {
	if !b.have[i].Load() {
		return nil, fs.ErrNotExist
	}
	return append(buf, b.data[i]...), nil
}

// Put is part of swarm.Blobs.
func (b *store) Put(i int, _ []byte) error { b.have[i].Store(true); return nil }

// release is what is rolled out.
type release struct {
	swarm.Object
	data [][]byte
}

func makeRelease(n, size int) release {
	r := rand.NewChaCha8([32]byte{1})
	var c release
	h := sha256.New()
	for range n {
		b := make([]byte, size)
		_, _ = r.Read(b)
		sum := sha256.Sum256(b)
		h.Write(sum[:])
		c.data = append(c.data, b)
		c.Sums = append(c.Sums, sum)
		c.Sizes = append(c.Sizes, uint32(size))
	}
	h.Sum(c.ID[:0])
	return c
}

// play is a site that is being played.
type play struct {
	site  Site
	rel   release
	net   *simhost.Light
	devs  []*device
	begin time.Time

	mu     sync.Mutex // guards what follows
	free   time.Time  // when the uplink has sent what was asked of it
	uplink int64      // bytes
	last   time.Time  // when the last of them was there
	holder *device
	killed int
	splits int
	err    error
}

type device struct {
	sw    *swarm.Swarm
	info  peer.AddrInfo
	store *store
	stop  context.CancelFunc
	close func() error
	ended chan struct{} // Run has returned
	gone  bool
	done  time.Time
}

// Play plays a site; it must run in a bubble of testing/synctest. It returns when all devices have the release and
// everything has ended.
func Play(s Site) (Point, error) {
	s = s.filled()
	p := &play{site: s, rel: makeRelease(s.Blobs, s.Blob), net: simhost.NewLight(200 * time.Microsecond)}
	before := memory()
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	err := p.start(ctx)
	var out Point
	if err == nil {
		out, err = p.roll(ctx, before)
	}
	cancel()
	for _, d := range p.devs {
		p.end(d)
	}
	p.net.Close()
	return out, errors.Join(err, p.err)
}

func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// start makes the devices and lets them meet.
func (p *play) start(ctx context.Context) error {
	for range p.site.Devices {
		d, err := p.device(ctx, nil)
		if err != nil {
			return err
		}
		p.devs = append(p.devs, d)
	}
	for _, d := range p.devs {
		for _, o := range p.devs {
			if o != d {
				d.sw.Connect(o.info)
			}
		}
	}
	// Until nobody gets to know anybody any more.
	for last, calm := -1, 0; calm < 3; {
		time.Sleep(time.Second)
		n := 0
		for _, d := range p.devs {
			n += len(d.sw.Members())
		}
		if calm++; n != last {
			last, calm = n, 0
		}
		if ctx.Err() != nil {
			return fmt.Errorf("scale: the devices do not come to rest: %w", ctx.Err())
		}
	}
	return nil
}

// device makes a device, with what is in the store of an earlier one.
func (p *play) device(ctx context.Context, kept *store) (*device, error) {
	h, err := p.net.Host(simhost.Link{Down: int(p.site.LAN), Up: int(p.site.LAN)})
	if err != nil {
		return nil, err
	}
	sw, err := swarm.New(swarm.Config{Host: h, Credential: []byte("fleet"), Settle: -1, MaxPeers: p.site.Peers,
		Admit: func(peer.ID, []byte) (swarm.Identity, error) { return swarm.Identity{}, nil }})
	if err != nil {
		return nil, err
	}
	if err := sw.Announce(swarm.Profile{Rank: lease.Rank{}}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &device{sw: sw, info: peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}, stop: cancel, close: h.Close, ended: make(chan struct{}), store: kept}
	if kept == nil {
		d.store = &store{data: p.rel.data, have: make([]atomic.Bool, len(p.rel.data))}
	}
	go func() {
		defer close(d.ended)
		if err := sw.Run(ctx); err != nil {
			p.fail(err)
		}
	}()
	return d, nil
}

func (p *play) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = errors.Join(p.err, err)
}

// end takes a device off the site, as a power cut does. It may be called again.
func (p *play) end(d *device) {
	if !d.gone {
		d.gone = true
		_ = d.close()
		d.stop()
	}
	<-d.ended
}

// roll rolls the release out.
func (p *play) roll(ctx context.Context, before uint64) (Point, error) {
	p.begin = time.Now()
	p.free = p.begin
	var wg sync.WaitGroup
	for _, d := range p.devs {
		if err := p.want(ctx, &wg, d); err != nil {
			return Point{}, err
		}
	}
	p.kill(ctx)
	var err error
	if p.site.Faults != 0 {
		err = p.trouble(ctx, &wg)
	}
	wg.Wait()
	return p.count(before), err
}

// want has a device want the release.
func (p *play) want(ctx context.Context, wg *sync.WaitGroup, d *device) error {
	if err := d.sw.Open(p.rel.Object, d.store, swarm.OpenOptions{Receive: true}); err != nil {
		return err
	}
	wg.Go(func() { p.fetch(ctx, d) })
	return nil
}

// kill ends the holders that the site is to lose, one after the other.
func (p *play) kill(ctx context.Context) {
	size := int64(p.site.Blobs * p.site.Blob)
	for k := range p.site.Kill {
		at := size * int64(k+1) / int64(p.site.Kill+1)
		for ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
			p.mu.Lock()
			d, got := p.holder, p.uplink
			p.mu.Unlock()
			if d != nil && got >= at {
				p.end(d)
				p.mu.Lock()
				p.killed++
				p.mu.Unlock()
				break
			}
		}
	}
}

// fetch is the uplink work of a device: whenever it holds the lease, it brings what nobody has.
func (p *play) fetch(ctx context.Context, d *device) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		if d.sw.Wait(ctx, p.rel.ID) == nil {
			d.done = time.Now()
		}
		cancel()
	}()
	for ctx.Err() == nil {
		t, err := d.sw.Acquire(ctx, swarm.AcquireOptions{})
		if err != nil {
			break
		}
		p.hold(ctx, d, t)
		t.Release()
		time.Sleep(100 * time.Millisecond)
	}
	<-finished
}

func (p *play) hold(ctx context.Context, d *device, t *swarm.Tenure) {
	p.setHolder(nil, d)
	defer p.setHolder(d, nil)
	for {
		miss := d.sw.Missing(p.rel.ID)
		if len(miss) == 0 {
			return
		}
		i := miss[0]
		if !p.download(ctx, t, len(p.rel.data[i])) {
			return
		}
		d.store.have[i].Store(true)
		d.sw.Inject(p.rel.ID, i, p.rel.data[i])
	}
}

// setHolder notes who holds the lease: d, unless it is held by another than was, which is not nil.
func (p *play) setHolder(was, d *device) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if was == nil || p.holder == was {
		p.holder = d
	}
}

// download waits for n bytes to come over the uplink; false when the lease or ctx ended meanwhile.
func (p *play) download(ctx context.Context, t *swarm.Tenure, n int) bool {
	p.mu.Lock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(n) * 8 * tcp / p.site.Uplink * 1e9))
	at := p.free
	p.uplink += int64(n)
	p.mu.Unlock()
	select {
	case <-ctx.Done():
		return false
	case <-t.Lost():
		return false
	case <-time.After(time.Until(at)):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = at
	return true
}

// count adds up.
func (p *play) count(before uint64) Point {
	size := float64(p.site.Blobs * p.site.Blob)
	o := Point{Devices: p.site.Devices, Killed: p.killed, Splits: p.splits, UplinkS: size * 8 / p.site.Uplink, UplinkRatio: float64(p.uplink) / size}
	o.Memory = max(0, float64(memory())-float64(before)) / float64(p.site.Devices)
	n := float64(p.site.Devices)
	if p.site.Faults == 0 { // with faults, who was killed comes back
		n -= float64(p.killed)
	}
	for _, d := range p.devs {
		if d.gone {
			continue
		}
		if !d.done.IsZero() {
			o.Done++
			o.LastS = max(o.LastS, d.done.Sub(p.begin).Seconds())
			o.TailS = max(o.TailS, d.done.Sub(p.last).Seconds())
		}
		c := d.sw.Counters()
		o.Received += float64(c.BytesIn) / size / n
		o.Busiest = max(o.Busiest, float64(c.BytesOut)/size)
		o.Duplicates += float64(c.DupBytes) / size / n
		o.Pulled += float64(c.Pulled) / float64(p.site.Blobs) / n
		o.Members += float64(len(d.sw.Members())) / n
		o.Messages += float64(c.MessagesIn) / n
		o.Control += float64(c.ControlIn) / n
	}
	return o
}
