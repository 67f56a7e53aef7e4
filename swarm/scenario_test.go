package swarm_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"updraft/swarm"
)

// uplink is 20 Mbit/s; TCP over Ethernet leaves 1/1.0456 of it for payload.
const (
	uplink  = 20e6
	payload = uplink / 1.0456
)

// bound is the time in which the uplink alone delivers the object, headers not counted.
func bound(c content) time.Duration { return time.Duration(float64(c.bytes()) * 8 / uplink * 1e9) }

func TestSiteKeepsUpWithUplink(t *testing.T) {
	for _, x := range []struct {
		devices, blobs int
		ratio          float64
	}{{8, 256, 1.06}, {24, 96, 1.08}, {50, 48, 1.15}} {
		t.Run(fmt.Sprint(x.devices), func(t *testing.T) {
			if testing.Short() && x.devices > 8 {
				t.Skip("takes CPU for many seconds")
			}
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, x.devices, nil)
				defer s.close()
				blobs := x.blobs
				if testing.Short() {
					blobs = 96
				}
				c := makeContent(1, blobs, 64<<10)
				s.open(c, swarm.OpenOptions{Receive: true}, nil)
				time.Sleep(time.Second)
				s.begin = time.Now()
				s.feed(c, 0, 0, len(c.data), payload)
				r := s.finish(c)
				r.log(t, fmt.Sprint(x.devices, " devices"), bound(c))
				// The tail is the same few hundred milliseconds for any size: judge it for 64 MiB.
				tail := r.last - time.Duration(float64(bound(c))*1.0456)
				full := (26.84*1.0456 + tail.Seconds()) / 26.84
				t.Logf("tail %v; for 64 MiB last ÷ bound would be %.3f", tail, full)
				if full > x.ratio {
					t.Errorf("last ÷ bound %.3f, want at most %.2f", full, x.ratio)
				}
				if r.recv > 1.05 || r.busiest > 4 || r.dup > 0.03 {
					t.Errorf("too many bytes on the LAN")
				}
			})
		})
	}
}

func TestLateJoinersShareOneSeed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes CPU for many seconds")
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 9, nil)
		defer s.close()
		c := makeContent(2, 256, 64<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, func(dev, _ int) bool { return dev == 0 })
		r := s.finish(c)
		one := time.Duration(float64(c.bytes()) * 8 / lan * 1e9)
		r.log(t, "8 joiners, 1 seed", one)
		if seed := float64(s.dev[0].Counters().BytesOut) / float64(c.bytes()); seed > 3 {
			t.Errorf("the seed sent %.2f copies", seed)
		}
		if r.dup > 0.03 {
			t.Errorf("duplicates %.3f", r.dup)
		}
	})
}

func TestLateJoinerAtFullSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 9, nil)
		defer s.close()
		c := makeContent(3, 256, 64<<10)
		s.open(c, swarm.OpenOptions{Receive: true}, func(dev, _ int) bool { return dev != 8 })
		r := s.finish(c)
		one := time.Duration(float64(c.bytes()) * 8 / lan * 1e9)
		r.log(t, "1 joiner, 8 seeds", one)
		if ratio := float64(r.last) / float64(one); ratio > 1.2 {
			t.Errorf("took %.2f of the time of its link", ratio)
		}
	})
}

// TestIdleSiteIsQuiet leaves a site with complete and with incomplete objects alone for hours.
func TestIdleSiteIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 6, nil)
		defer s.close()
		whole, part := makeContent(21, 16, 32<<10), makeContent(22, 16, 32<<10)
		s.open(part, swarm.OpenOptions{Receive: true}, func(_, blob int) bool { return blob < 8 })
		s.open(whole, swarm.OpenOptions{Receive: true}, func(int, int) bool { return true })
		time.Sleep(time.Minute)
		before := s.dev[0].Counters()
		time.Sleep(6 * time.Hour)
		after := s.dev[0].Counters()
		if n := after.ControlIn + after.ControlOut - before.ControlIn - before.ControlOut; n > 0 {
			t.Errorf("an idle device exchanged %d bytes in six hours", n)
		}
		if n := len(s.dev[0].Members()); n != 5 {
			t.Errorf("%d members after six hours", n)
		}
	})
}
