package main

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestBenchMeans(t *testing.T) {
	rows := []benchRow{
		{Case: "a", Tool: "auto", Patch: 20000}, {Case: "a", Tool: "bsdiff", Patch: 40000}, {Case: "a", Tool: "zstd", Patch: 90000},
		{Case: "b", Tool: "auto", Patch: 100}, {Case: "b", Tool: "plain", Patch: 8192}, {Case: "b", Tool: "zstd", Patch: 300},
		{Case: "c", Tool: "auto", Patch: 100}, {Case: "c", Tool: "zstd", Error: "no"},
		{Case: "d", Tool: "auto", Error: "no"}, {Case: "d", Tool: "zstd", Patch: 5000},
	}
	m := benchMeans(rows)
	if len(m) != 2 || math.Abs(m["auto"]-math.Sqrt(0.5)) > 1e-9 || m["plain"] != 2 {
		t.Error(m)
	}
}

func TestPackTree(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	var sums [2][32]byte
	for i := range sums {
		out := filepath.Join(t.TempDir(), "tar")
		if err := packTree(out, dir); err != nil {
			t.Fatal(err)
		}
		var err error
		if sums[i], err = streamDigest(out); err != nil {
			t.Fatal(err)
		}
	}
	if sums[0] != sums[1] {
		t.Error("two tars of one tree differ")
	}
}
