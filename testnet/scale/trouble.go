package scale

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// trouble plays a schedule drawn from a seed: one to four faults, each a crash or a split, at moments spread over the
// download and a little longer. Half of the crashes hit the device that downloads; who crashed comes back after some
// seconds with what it had on disk. Half of the splits are of one device alone, which may be the one that downloads.
func (p *play) trouble(ctx context.Context, wg *sync.WaitGroup) error {
	r := rand.New(rand.NewPCG(p.site.Faults, 5))
	whole := time.Duration(float64(p.site.Blobs*p.site.Blob) * 8 / p.site.Uplink * 1.3e9)
	for range 1 + r.IntN(4) {
		time.Sleep(time.Duration(r.Float64() * float64(whole) / 3))
		if r.IntN(2) == 0 {
			if err := p.crash(ctx, wg, p.victim(r), time.Duration(1+r.IntN(5000))*time.Millisecond); err != nil {
				return err
			}
			continue
		}
		part := []peer.ID{p.victim(r).info.ID}
		if r.IntN(2) == 0 {
			part = p.half(r)
		}
		p.split(part, time.Duration(1+r.IntN(30_000))*time.Millisecond)
	}
	return nil
}

// victim draws a device that runs.
func (p *play) victim(r *rand.Rand) *device {
	p.mu.Lock()
	d := p.holder
	p.mu.Unlock()
	if d != nil && !d.gone && r.IntN(2) == 0 {
		return d
	}
	for {
		if d := p.devs[r.IntN(len(p.devs))]; !d.gone {
			return d
		}
	}
}

// crash ends a device and starts it again.
func (p *play) crash(ctx context.Context, wg *sync.WaitGroup, d *device, after time.Duration) error {
	p.end(d)
	p.mu.Lock()
	p.killed++
	p.mu.Unlock()
	time.Sleep(after)
	again, err := p.device(ctx, d.store)
	if err != nil {
		return err
	}
	for _, o := range p.devs {
		if !o.gone {
			o.sw.Connect(again.info)
			again.sw.Connect(o.info)
		}
	}
	p.devs = append(p.devs, again)
	return p.want(ctx, wg, again)
}

// half draws a part of the site.
func (p *play) half(r *rand.Rand) []peer.ID {
	var part []peer.ID
	for _, d := range p.devs {
		if !d.gone && r.IntN(2) == 0 {
			part = append(part, d.info.ID)
		}
	}
	return part
}

// split separates a part of the site for a time.
func (p *play) split(part []peer.ID, long time.Duration) {
	p.net.Cut(part)
	time.Sleep(long)
	p.net.Cut()
	p.splits++
}
