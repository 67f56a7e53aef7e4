package swarm_test

import (
	"context"
	"fmt"
	"io/fs"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"updraft/swarm"
)

// shared is a store whose bytes are those of the content itself: it measures the exchange, not a disk.
type shared struct {
	c    content
	have []atomic.Bool
}

func (b *shared) Has(i int) bool { return b.have[i].Load() }

func (b *shared) Get(i int, buf []byte) ([]byte, error) {
	if !b.have[i].Load() {
		return nil, fs.ErrNotExist
	}
	return append(buf, b.c.data[i]...), nil
}

func (b *shared) Put(i int, _ []byte) error { b.have[i].Store(true); return nil }

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSite spreads 64 MiB over real connections on loopback, at the pace of an uplink of 160 Mbit/s, and reports
// CPU-seconds for each device and GiB, with everything that a device sends and receives in it.
func BenchmarkSite(b *testing.B) {
	for _, n := range []int{2, 8, 24} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := makeContent(1, 1024, 64<<10)
			for range b.N {
				ds := startMesh(b, n, nil)
				stores := make([]*shared, n)
				for k, d := range ds {
					stores[k] = &shared{c: c, have: make([]atomic.Bool, len(c.data))}
					if err := d.Open(c.Object, stores[k], swarm.OpenOptions{Receive: true}); err != nil {
						b.Fatal(err)
					}
				}
				time.Sleep(200 * time.Millisecond)
				var m0, m1 runtime.MemStats
				runtime.ReadMemStats(&m0)
				begin, used := time.Now(), cpu()
				at := begin
				for i, d := range c.data {
					at = at.Add(time.Duration(float64(len(d)) * 8 / 160e6 * 1e9))
					time.Sleep(time.Until(at))
					stores[0].have[i].Store(true)
					ds[0].Inject(c.ID, i, d)
				}
				var dup, pulled int64
				for _, d := range ds {
					if err := d.Wait(context.Background(), c.ID); err != nil {
						b.Fatal(err)
					}
					dup += d.Counters().DupBytes
					pulled += d.Counters().Pulled
				}
				used = cpu() - used
				runtime.ReadMemStats(&m1)
				gib := float64(c.bytes()) / (1 << 30)
				b.ReportMetric(used.Seconds()/float64(n)/gib, "cpu-s/device/GiB")
				b.ReportMetric(float64(dup)/float64(c.bytes())/float64(n), "dup")
				b.ReportMetric(float64(pulled)/float64(n), "pulled/device")
				b.ReportMetric(float64(m1.TotalAlloc-m0.TotalAlloc)/float64(n)/float64(c.bytes()), "alloc/byte")
				b.ReportMetric(float64(m1.HeapInuse)/float64(n)/(1<<20), "heapMiB/device")
				for _, d := range ds {
					d.close()
				}
			}
		})
	}
}
