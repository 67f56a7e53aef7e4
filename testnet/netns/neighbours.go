package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNeighbours reports a site with more links than the kernel has room for.
var ErrNeighbours = errors.New("netns: the kernel's table of neighbours is too small")

// neighbours returns how many entries of the table a site of so many devices may take:
// each of them, and the gateway, knows all the others and the router, which knows all of
// them; the router and the origin know each other.
func neighbours(devices int) int {
	lan := devices + 1
	return lan*(lan-1) + 2*lan + 2
}

// fitsTable returns an ErrNeighbours, which says what to do, if the table is too small;
// nil where nothing says how large it is.
func fitsTable(cfg Config, proc string) error {
	family := "ipv4"
	if cfg.IPv6 {
		family = "ipv6"
	}
	b, err := os.ReadFile(filepath.Join(proc, "sys/net", family, "neigh/default/gc_thresh3"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	room, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("netns: gc_thresh3: %w", err)
	}
	if need := neighbours(cfg.Devices); need > room {
		name := "net." + family + ".neigh.default.gc_thresh3"
		return fmt.Errorf("%w: %d devices may take %d entries, %s is %d; do: sysctl -w %s=%d", ErrNeighbours, cfg.Devices, need, name, room, name, 1<<bits.Len(uint(need)))
	}
	return nil
}
