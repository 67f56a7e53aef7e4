//go:build netns

package testnet_test

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"updraft/node/report"
	"updraft/testnet"
)

// TestNetnsIdle leaves a site alone after a rollout: nothing in its devices grows, and next to nothing is sent. Heaps
// are compared by what collections find in use, of which there is one in two minutes. UPDRAFT_NETNS_IDLE says for how
// long, UPDRAFT_NETNS_IDLE_DEVICES for how many devices.
func TestNetnsIdle(t *testing.T) {
	const (
		every  = 30 * time.Second
		calm   = 150 * time.Second // until the rollout is forgotten: a collection after the last timer
		day    = 24 * time.Hour
		onLAN  = 10e6 / 50 // bytes a device may receive and send in a day for each device of the site
		onLook = 1e6 / 96  // bytes a look for a release may take: there are so many in a day
		slack  = 128 << 10 // bytes of heap
	)
	long, devices := 5*time.Minute, 8
	if d, err := time.ParseDuration(os.Getenv("UPDRAFT_NETNS_IDLE")); err == nil {
		long = d
	}
	if n, err := strconv.Atoi(os.Getenv("UPDRAFT_NETNS_IDLE_DEVICES")); err == nil {
		devices = n
	}
	in := prepare(t)
	s := site(t, in, testnet.Config{Devices: devices})
	r := publish(t, s, "1.0.0", noise(t, 16<<20))
	names := s.Nodes()
	arrivals(t, s, r, names, start(t, s, names), 2*time.Minute)
	time.Sleep(calm)

	frames := func(name string) int64 {
		in, out, err := s.Lab().LAN(name)
		if err != nil {
			t.Fatal(err)
		}
		return in + out
	}
	up, begun, sent := s.Uplink(), time.Now(), map[string]int64{}
	for _, name := range names {
		sent[name] = frames(name)
	}
	figures := []string{"go_gc_heap_live_bytes", "go_goroutines", "process_open_fds"}
	seen := map[string]map[string][]float64{} // by figure and device
	for _, f := range figures {
		seen[f] = map[string][]float64{}
	}
	for time.Since(begun) < long {
		time.Sleep(every)
		for _, name := range names {
			text, err := report.Dial(s.Data(name)).Metrics(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range figures {
				seen[f][name] = append(seen[f][name], sample(t, text, f))
			}
		}
	}
	took := time.Since(begun)
	for _, name := range names {
		daily := float64(frames(name)-sent[name]) * float64(day) / float64(took)
		t.Logf("%-5s %.2f MB a day; heap %.0f, goroutines %.0f, descriptors %.0f", name, daily/1e6,
			seen[figures[0]][name], seen[figures[1]][name], seen[figures[2]][name])
		if daily > onLAN*float64(devices) {
			t.Errorf("%s: %.1f MB a day on the LAN", name, daily/1e6)
		}
		for i, f := range figures {
			list, more := seen[f][name], 0.0
			if i == 0 {
				more = slack
			}
			third := len(list) / 3
			if was, is := slices.Max(list[:third]), slices.Min(list[len(list)-third:]); is > was+more {
				t.Errorf("%s: %s has grown from %.0f to %.0f", name, f, was, is)
			}
		}
	}
	looks := 1 + took.Minutes()/15
	t.Logf("%d bytes on the uplink in %v", s.Uplink()-up, took)
	if n := float64(s.Uplink() - up); n > looks*onLook {
		t.Errorf("the uplink carried %.0f bytes, at most %.0f are allowed", n, looks*onLook)
	}
}

// sample finds a figure in Prometheus text.
func sample(t *testing.T, text, name string) float64 {
	t.Helper()
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			if n, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
				return n
			}
		}
	}
	t.Fatalf("no %s in\n%s", name, text)
	return 0
}
