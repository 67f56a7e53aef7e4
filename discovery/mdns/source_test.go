package mdns_test

import (
	"fmt"
	"testing"
	"time"

	"updraft/discovery/mdns"
)

// Nine agents on a machine without any network but loopback find each other.
func TestLoopbackOnly(t *testing.T) {
	if inside(t) {
		return
	}
	ip(t, "link", "set", "lo", "up")
	var all []*device
	began := time.Now()
	for i := range 9 {
		d := newDevice(t, mdns.Config{SiteKey: siteKey(1)}, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", 4000+i))
		d.start(t)
		all = append(all, d)
	}
	for i, d := range all {
		eventually(t, fmt.Sprintf("device %d knows 8 others", i), 20*time.Second, func() bool { return d.count() == 8 })
	}
	t.Logf("9 devices know each other after %v", time.Since(began))
	want := addrsOf(t, "/ip4/127.0.0.1/tcp/4000")[0]
	if got := all[8].knows(all[0].id); len(got) != 1 || !got[0].Equal(want) {
		t.Errorf("address %v, want %v", got, want)
	}
	if err := all[0].state(); err != nil {
		t.Errorf("state: %v", err)
	}
	t.Logf("%+v", all[0].src.Counters())
}
