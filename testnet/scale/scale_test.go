package scale

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
)

func played(t *testing.T, s Site) Point {
	t.Helper()
	var p Point
	synctest.Test(t, func(t *testing.T) {
		var err error
		if p, err = Play(s); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%+v", p)
	return p
}

func TestEverybodyConnected(t *testing.T) {
	p := played(t, Site{Devices: 24})
	if p.Done != 24 || p.UplinkRatio != 1 || p.TailS > 0.5 || p.Duplicates > 0.01 || p.Busiest > 2 || p.Members < 22.9 {
		t.Error("more than it should cost")
	}
}

// TestPartialViews plays a site on which nobody has room for everybody.
func TestPartialViews(t *testing.T) {
	site := Site{Devices: 60, Peers: 24, Blobs: 64}
	if testing.Short() {
		site = Site{Devices: 30, Peers: 16, Blobs: 32}
	}
	p := played(t, site)
	if p.Done != site.Devices || p.Members > float64(site.Peers) {
		t.Error("not what was asked for")
	}
	// Until rumors have met, two devices may bring the same: some of that comes twice.
	if p.UplinkRatio > 1.5 || p.Duplicates > 0.15 || p.Busiest > 6 || p.TailS > 3 {
		t.Error("more than it should cost")
	}
}

func TestHoldersKilled(t *testing.T) {
	p := played(t, Site{Devices: 12, Kill: 2})
	if p.Done != 10 || p.Killed != 2 {
		t.Error("not what was asked for")
	}
	if spare := 2.0 * (1 << 20) / (96 * 64 << 10); p.UplinkRatio > 1+spare {
		t.Errorf("the uplink carried %.3f of the release", p.UplinkRatio)
	}
}

// TestFaults plays schedules of crashes and splits: always does everybody get the release, and the uplink carries it
// once for each part of the site, and 1 MiB for each crash. UPDRAFT_FAULTS names how many.
func TestFaults(t *testing.T) {
	runs := 40
	if testing.Short() {
		runs = 5
	}
	if n, err := strconv.Atoi(os.Getenv("UPDRAFT_FAULTS")); err == nil {
		runs = n
	}
	worst := 0.0
	for seed := range runs {
		s := Site{Devices: 8, Blobs: 64, Faults: uint64(seed + 1)}
		p := played(t, s)
		size := float64(64 * 64 << 10)
		limit := 1 + float64(p.Splits) + float64(p.Killed)*(1<<20)/size
		worst = max(worst, p.UplinkRatio-limit)
		if p.Done != 8 {
			t.Errorf("seed %d: %d devices have the release", seed+1, p.Done)
		}
		if p.UplinkRatio > limit {
			t.Errorf("seed %d: the uplink carried %.3f of the release, at most %.3f are allowed", seed+1, p.UplinkRatio, limit)
		}
	}
	t.Logf("%d schedules; the worst carried %.3f more than allowed", runs, worst)
}

func TestTableAndDrawing(t *testing.T) {
	points := []Point{{Devices: 8, TailS: 0.1, UplinkRatio: 1, Messages: 10, Memory: 1e6}, {Devices: 200, TailS: 1, UplinkRatio: 1.02, Messages: 1e3, Memory: 3e6}}
	var table, svg strings.Builder
	if err := Table(&table, points); err != nil || strings.Count(table.String(), "\n") != 4 {
		t.Errorf("%v\n%s", err, table.String())
	}
	if err := SVG(&svg, points); err != nil || !strings.HasSuffix(svg.String(), "</svg>\n") || strings.Count(svg.String(), "<circle") != 8 || strings.Contains(svg.String(), "NaN") {
		t.Errorf("%v\n%s", err, svg.String())
	}
	if err := SVG(&svg, nil); err == nil {
		t.Error("nothing can be drawn")
	}
	for v, want := range map[float64]float64{1: 1, 1.1: 1.2, 3: 3.2, 0.05: 0.06, 999: 1000} {
		if got := round(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("%v became %v, want %v", v, got, want)
		}
	}
}
