package mdns_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// Many devices start at once, each with a network stack of its own. With
// UPDRAFT_TEST_CROWD=60 there are 60; UPDRAFT_TEST_IDLE=28m then measures what
// they cost while nothing happens, from a minute after the start.
func TestCrowd(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("UPDRAFT_TEST_CROWD"))
	if n == 0 {
		t.Skip("set UPDRAFT_TEST_CROWD to the number of devices, for example 60")
	}
	if inside(t) {
		return
	}
	s := newSite(t)
	name := func(i int) string { return fmt.Sprintf("d%d", i) }
	for i := range n {
		s.space(name(i))
		s.plug(name(i), "eth0", "br0", fmt.Sprintf("10.9.%d.%d/16", i/200, i%200+1), fmt.Sprintf("fd99::%x/64", i+1))
	}
	began := time.Now()
	var all []*process
	for i := range n {
		all = append(all, s.spawn(name(i), name(i), 4001))
	}
	started := time.Since(began)
	for i, p := range all {
		eventually(t, fmt.Sprintf("device %d knows all", i), time.Minute, func() bool { return p.known() == n-1 })
	}
	t.Logf("%d devices started within %v, all know all after %v", n, started, time.Since(began))
	cost := func(what string) []int64 {
		var sums []int64
		for i := range n {
			got, sent := s.bytes(name(i), "eth0")
			sums = append(sums, got+sent)
		}
		slices.Sort(sums)
		t.Logf("%s: bytes received and sent per device: median %d, max %d", what, sums[n/2], sums[n-1])
		return sums
	}
	time.Sleep(time.Until(began.Add(10 * time.Second)))
	cost("first 10 s")
	idle, _ := time.ParseDuration(os.Getenv("UPDRAFT_TEST_IDLE"))
	if idle == 0 {
		return
	}
	time.Sleep(time.Until(began.Add(time.Minute)))
	before := cost("first 60 s")
	time.Sleep(idle)
	after := cost("in all")
	perDay := float64(after[n/2]-before[n/2]) / idle.Hours() * 24
	t.Logf("idle: %.2f MB per device and day over %v", perDay/1e6, idle)
	for i, p := range all {
		if p.known() != n-1 || p.gone > 0 {
			t.Errorf("device %d knows %d, gave up %d", i, p.known(), p.gone)
		}
	}
}
