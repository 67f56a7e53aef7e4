package scale

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// How a site grows is played in virtual time, which package testing provides:
//
//	go test ./testnet/scale -run TestGrowth -v -timeout 1h -devices 8,24,50,100,200,500,1000 -svg $PWD/swarm/scale.svg
var (
	devices = flag.String("devices", "3,6", "how many devices the sites of TestGrowth have")
	blobs   = flag.Int("blobs", 96, "blobs of the release, 64 KiB each")
	peers   = flag.Int("peers", 0, "members that a device keeps at most (default: as the agent)")
	drawing = flag.String("svg", "", "file for the drawing of TestGrowth")
)

// TestGrowth plays a site of each size, and prints the table and draws the plot of
// what it cost.
func TestGrowth(t *testing.T) {
	var points []Point
	for s := range strings.SplitSeq(*devices, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 2 {
			t.Fatalf("%q devices", s)
		}
		p := played(t, Site{Devices: n, Blobs: *blobs, Peers: *peers})
		if p.Done != n {
			t.Fatalf("%d of %d devices have the release", p.Done, n)
		}
		points = append(points, p)
	}
	var table strings.Builder
	if err := Table(&table, points); err != nil || strings.Count(table.String(), "\n") < len(points)+1 {
		t.Fatalf("%v: %s", err, table.String())
	}
	t.Log("\n" + table.String())
	path := *drawing
	if path == "" {
		path = filepath.Join(t.TempDir(), "scale.svg")
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := SVG(f, points); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(f); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the drawing is no XML: %v", err)
		}
	}
}
