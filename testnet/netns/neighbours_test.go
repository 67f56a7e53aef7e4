package netns

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNeighbours(t *testing.T) {
	for devices, want := range map[int]int{1: 2 + 4 + 2, 2: 6 + 6 + 2, 30: 994, 31: 1058, MaxDevices: 40604} {
		if got := neighbours(devices); got != want {
			t.Errorf("%d devices: %d entries, want %d", devices, got, want)
		}
	}
}

// TestFitsTable: a site whose links would fail is refused, with what to do about it.
func TestFitsTable(t *testing.T) {
	proc := t.TempDir()
	if err := fitsTable(Config{Devices: MaxDevices}, proc); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	for family, room := range map[string]string{"ipv4": "1024\n", "ipv6": "4096\n"} {
		dir := filepath.Join(proc, "sys/net", family, "neigh/default")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "gc_thresh3"), []byte(room), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		cfg Config
		do  string // empty: it fits
	}{
		{Config{Devices: 30}, ""},
		{Config{Devices: 31}, "sysctl -w net.ipv4.neigh.default.gc_thresh3=2048"},
		{Config{Devices: 31, IPv6: true}, ""},
		{Config{Devices: 200, IPv6: true}, "sysctl -w net.ipv6.neigh.default.gc_thresh3=65536"},
	} {
		err := fitsTable(c.cfg, proc)
		if errors.Is(err, ErrNeighbours) != (c.do != "") || c.do != "" && !strings.Contains(err.Error(), c.do) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
}
