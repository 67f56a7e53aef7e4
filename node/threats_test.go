package node_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreats: every row of the table of attacks names tests and errors that exist.
func TestThreats(t *testing.T) {
	b, err := os.ReadFile("THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{"node": ".", "release": "../delta/release", "patch": "../delta/patch", "layer": "../delta/patch/internal/layer",
		"tree": "../delta/tree", "identity": "identity", "install": "install", "fleet": "fleet", "report": "report", "swarm": "../swarm",
		"lease": "../swarm/lease", "origin": "../swarm/origin", "mdns": "../discovery/mdns", "wire": "../swarm/wire", "cmd": "../cmd/updraft", "testnet": "../testnet"}
	there := map[string]bool{}
	defined := regexp.MustCompile(`(?m)^func (Test\w+)\(|^(?:var)?\s*(Err\w+)\s*=`)
	for name, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, f := range files {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range defined.FindAllSubmatch(src, -1) {
				there[name+"."+string(m[1])+string(m[2])] = true
			}
		}
	}
	rows := regexp.MustCompile(`(?m)^\| \d+ \|.*$`).FindAllString(string(b), -1)
	if len(rows) < 40 {
		t.Errorf("%d attacks", len(rows))
	}
	name := regexp.MustCompile(`\w+\.(Test|Err)\w+`)
	for _, row := range rows {
		named := name.FindAllString(row, -1)
		if !strings.Contains(row, ".Test") {
			t.Errorf("without a test: %s", row)
		}
		for _, n := range named {
			if !there[n] {
				t.Errorf("there is no %s: %s", n, row)
			}
		}
	}
}
