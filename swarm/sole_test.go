package swarm_test

import (
	"testing"
	"testing/synctest"
	"time"

	"updraft/swarm"
	"updraft/testnet/simhost"
)

// TestSole counts what only one device has: as long as somebody wants it, also who receives the object in front of it and
// has not opened it yet, and until a copy is known to be elsewhere.
func TestSole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, nil)
		defer s.close()
		s.add(simhost.Link{Down: lan, Up: lan}, nil)
		s.add(simhost.Link{Down: lan, Up: lan}, nil)
		mesh(s.dev...)
		a, b, c := s.dev[0], s.dev[1], s.dev[2]
		eventually(t, a, "full mesh", func() bool { return len(a.Members()) == 2 })
		lead, page := makeContent(1, 2, 1000), makeContent(2, 4, 1000)
		open := func(d *device, x content, has func(i int) bool, receive bool) {
			t.Helper()
			if err := d.Open(x.Object, x.holding(has), swarm.OpenOptions{Receive: receive}); err != nil {
				t.Fatal(err)
			}
		}
		is := func(what string, want int64) {
			t.Helper()
			time.Sleep(2 * time.Second)
			if n := a.Sole(lead.ID, page.ID); n != want {
				t.Errorf("%s: %d bytes, want %d", what, n, want)
			}
		}
		size := func(i int) int64 { return int64(len(page.data[i])) }
		all := func(int) bool { return true }
		open(a, lead, all, false)
		open(a, page, all, false)
		is("nobody wants it", 0)
		open(b, lead, all, false)
		open(b, page, func(i int) bool { return i < 1 }, false)
		is("who has some of it makes the rest", 0)
		open(c, lead, all, true)
		is("one is about to want it", page.bytes()-size(0))
		if err := b.SetOptions(page.ID, swarm.OpenOptions{Receive: true}); err != nil {
			t.Fatal(err)
		}
		is("another has got it", 0)
		b.close()
		is("and has gone", page.bytes())
		open(c, page, func(int) bool { return false }, true)
		is("the last one has it", 0)
	})
}
