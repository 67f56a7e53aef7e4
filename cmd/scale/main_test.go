package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updraft/testnet/scale"
)

func TestScale(t *testing.T) {
	var out strings.Builder
	svg := filepath.Join(t.TempDir(), "scale.svg")
	if err := run(t, []string{"--devices", "3, 6", "--blobs", "16", "--svg", svg, "--json"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var points []scale.Point
	if err := json.Unmarshal([]byte(out.String()), &points); err != nil || len(points) != 2 || points[1].Devices != 6 || points[1].Done != 6 {
		t.Errorf("%v: %s", err, out.String())
	}
	if b, err := os.ReadFile(svg); err != nil || !strings.HasPrefix(string(b), "<svg") {
		t.Errorf("%v: %.40s", err, b)
	}
	for _, args := range [][]string{{"--devices", "x"}, {"--devices", "1"}, {"--nothing"}} {
		if err := run(t, args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v: accepted", args)
		}
	}
}
