package swarm_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm"
	"updraft/testnet/simhost"
)

// site is a set of devices on a simulated LAN, in virtual time: make it in a synctest bubble.
type site struct {
	t      *testing.T
	net    *simhost.Net
	dev    []*device
	stores []*memory
	begin  time.Time
	up     time.Duration // since when a device that is added has run
	asleep func() time.Duration
}

const lan = 100e6 // bits per second

func newSite(t *testing.T, n int, change func(*swarm.Config)) *site {
	t.Helper()
	s := &site{t: t, net: simhost.New(200 * time.Microsecond)}
	for range n {
		s.add(simhost.Link{Down: lan, Up: lan}, change)
	}
	mesh(s.dev...)
	for _, d := range s.dev {
		eventually(t, d, "full mesh", func() bool { return len(d.Members()) == n-1 })
	}
	return s
}

func (s *site) add(l simhost.Link, change func(*swarm.Config)) *device {
	s.t.Helper()
	gate := new(swarm.Gate)
	h, err := s.net.Host(l, gate)
	if err != nil {
		s.t.Fatal(err)
	}
	cfg := swarm.Config{
		Host: h, Gate: gate, Credential: []byte("fleet"), Settle: -1,
		Admit: func(id peer.ID, cred []byte) (swarm.Identity, error) {
			if string(cred) != "fleet" {
				return swarm.Identity{}, errors.New("another fleet")
			}
			return swarm.Identity{Name: id.ShortString(), Type: "test"}, nil
		},
	}
	if change != nil {
		change(&cfg)
	}
	sw, err := swarm.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	sw.SetStart(time.Now().Add(-s.up))
	if s.asleep != nil {
		sw.SetAsleep(s.asleep)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &device{Swarm: sw, host: h, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		if err := sw.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	}()
	s.dev = append(s.dev, d)
	return d
}

func (s *site) close() {
	for _, d := range s.dev {
		d.close()
	}
	s.net.Close()
}

// open opens c everywhere; has says who starts with what.
func (s *site) open(c content, opt swarm.OpenOptions, has func(dev, blob int) bool) {
	s.t.Helper()
	s.stores = nil
	for k, d := range s.dev {
		b := c.holding(func(i int) bool { return has != nil && has(k, i) })
		s.stores = append(s.stores, b)
		if err := d.Open(c.Object, b, opt); err != nil {
			s.t.Fatal(err)
		}
	}
	s.begin = time.Now()
}

// feed injects blobs from to to of c at one device, as an uplink of so many bits per second of payload would.
func (s *site) feed(c content, dev, from, to int, bits float64) {
	at := time.Now()
	for i := from; i < to; i++ {
		at = at.Add(time.Duration(float64(len(c.data[i])) * 8 / bits * 1e9))
		time.Sleep(time.Until(at))
		_ = s.stores[dev].Put(i, c.data[i])
		s.dev[dev].Inject(c.ID, i, c.data[i])
	}
}

// result is what a run cost.
type result struct {
	last                time.Duration
	recv, sent, busiest float64 // payload ÷ object: mean received, mean sent, most sent
	dup                 float64 // duplicates ÷ object, mean
	linkIn              float64 // bytes on the link ÷ object, worst receiver
	pulled, redelegated int64
	controlIn           float64
}

// finish waits for every device and adds up.
func (s *site) finish(c content) result {
	s.t.Helper()
	var r result
	size := float64(c.bytes())
	n := float64(len(s.dev))
	for k, d := range s.dev {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		if err := d.Wait(ctx, c.ID); err != nil {
			have, total := d.Progress(c.ID)
			s.t.Errorf("device %d: %v: %d of %d", k, err, have, total)
		}
		cancel()
		r.last = max(r.last, time.Since(s.begin))
	}
	for k, d := range s.dev {
		check(s.t, c, s.stores[k])
		cnt := d.Counters()
		r.recv += float64(cnt.BytesIn) / size / n
		r.sent += float64(cnt.BytesOut) / size / n
		r.dup += float64(cnt.DupBytes) / size / n
		r.busiest = max(r.busiest, float64(cnt.BytesOut)/size)
		r.pulled += cnt.Pulled
		r.redelegated += cnt.Redelegated
		r.controlIn += float64(cnt.ControlIn) / n
		in, _ := s.net.Bytes(d.host.ID())
		r.linkIn = max(r.linkIn, float64(in)/size)
	}
	return r
}

func (r result) log(t *testing.T, what string, bound time.Duration) {
	t.Helper()
	t.Logf("%s: last %.2fs ÷ bound %.3f; received %.3f (link %.3f) sent %.3f busiest %.2f dup %.4f; pulled %d redelegated %d control %.0f B",
		what, r.last.Seconds(), float64(r.last)/float64(bound), r.recv, r.linkIn, r.sent, r.busiest, r.dup, r.pulled, r.redelegated, r.controlIn)
}
