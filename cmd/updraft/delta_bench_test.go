package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestBenchMeans(t *testing.T) {
	rows := []benchRow{
		{Case: "a", Tool: "auto", Patch: 20000}, {Case: "a", Tool: "bsdiff", Patch: 40000}, {Case: "a", Tool: "zstd", Patch: 90000},
		{Case: "b", Tool: "auto", Patch: 100}, {Case: "b", Tool: "plain", Patch: 8192}, {Case: "b", Tool: "zstd", Patch: 300},
		{Case: "c", Tool: "auto", Patch: 100}, {Case: "c", Tool: "zstd", Error: "no"},
		{Case: "d", Tool: "auto", Error: "no"}, {Case: "d", Tool: "zstd", Patch: 5000},
	}
	m, of := benchMeans(rows)
	if len(m) != 2 || of["auto"] != 2 || of["plain"] != 1 || math.Abs(m["auto"]-math.Sqrt(0.5)) > 1e-9 || m["plain"] != 2 {
		t.Error(m, of)
	}
}

// toolsOf puts scripts in front of the tools that are installed, and returns where they are.
func toolsOf(t *testing.T, scripts map[string]string) string {
	t.Helper()
	bin := t.TempDir()
	for name, line := range scripts {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+line+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return bin
}

// TestBenchFails: what fails stands in the table; it is an error if it is updraft's.
func TestBenchFails(t *testing.T) {
	dir := t.TempDir()
	for _, side := range []string{"old", "new"} {
		if err := os.WriteFile(filepath.Join(dir, side), []byte(side), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bin := toolsOf(t, map[string]string{"bsdiff": "cp $2 $3", "bspatch": "echo wrong > $2", "updraft": "for a; do :; done; echo wrong > $a"})
	for _, c := range []struct {
		tool, word string
		code       int
	}{{"auto", "failed: the result is not the new side", exitVerify}, {"bsdiff", "bsdiff failed with 1 of 1 pairs", 0}} {
		out := new(bytes.Buffer)
		b := &bench{tools: []string{c.tool}, scratch: t.TempDir(), self: filepath.Join(bin, "updraft")}
		err := b.run(t.Context(), &ui{out: out, err: new(bytes.Buffer)}, []string{dir})
		if code, _ := classify(t.Context(), err); code != c.code || !strings.Contains(out.String(), c.word) {
			t.Errorf("%s: %v, exit code %d after: %s", c.tool, err, code, out)
		}
	}
}

// TestBenchGoesOn: a pair that cannot be opened takes nothing from the others, and what a tool says is in its row.
func TestBenchGoesOn(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "mixed", "old"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "whole"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"mixed/new", "whole/old", "whole/new"} {
		if err := os.WriteFile(filepath.Join(dir, side), []byte(side), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bin := toolsOf(t, map[string]string{"bsdiff": "echo first >&2; echo 'the disk is tired' >&2; exit 1", "bspatch": "", "updraft": "while [ $# -gt 2 ]; do shift; done; cp $1 $2"})
	out := new(bytes.Buffer)
	b := &bench{tools: []string{"auto", "bsdiff"}, scratch: t.TempDir(), self: filepath.Join(bin, "updraft")}
	err := b.run(t.Context(), &ui{out: out, err: new(bytes.Buffer)}, []string{dir})
	if code, _ := classify(t.Context(), err); code != exitVerify {
		t.Errorf("%v, exit code %d", err, code)
	}
	for _, re := range []string{`(?m)^mixed .* auto +failed: .* must both be files`, `(?m)^mixed .* bsdiff +failed: .* must both be files`,
		`(?m)^whole .* auto +\d`, `(?m)^whole .* bsdiff +failed: bsdiff: exit status 1: first the disk is tired$`} {
		if !regexp.MustCompile(re).MatchString(out.String()) {
			t.Errorf("nothing is %s:\n%s", re, out)
		}
	}
}

// TestBenchFollowsLinks: sides that are links are measured with every tool that is installed.
func TestBenchFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	for _, side := range []string{"old", "new"} {
		if err := os.WriteFile(filepath.Join(dir, side+".bin"), []byte(side), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(side+".bin", filepath.Join(dir, side)); err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{scratch: t.TempDir()}
	tools, err := b.choose()
	if err != nil {
		t.Fatal(err)
	}
	tools = slices.DeleteFunc(tools, func(t benchTool) bool { return t.ours })
	if len(tools) == 0 {
		t.Skip("no other tool is installed")
	}
	rows, err := b.pair(t.Context(), b.scratch, dir, "linked", tools)
	if err != nil || len(rows) != len(tools) {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		if r.Patch == 0 {
			t.Errorf("%s: %s", r.Tool, r.Error)
		}
	}
}

// TestFindPairs has a pair behind a link, a link that leads back and one that leads
// nowhere.
func TestFindPairs(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for _, d := range []string{filepath.Join(dir, "b", "old"), filepath.Join(dir, "b", "new"), filepath.Join(other, "old"), filepath.Join(other, "new")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"a": other, "back": dir, "none": filepath.Join(dir, "gone")} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := findPairs(dir)
	if want := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if got, err := findPairs(filepath.Join(dir, "a")); err != nil || len(got) != 1 {
		t.Errorf("the pair itself: %v, %v", got, err)
	}
}

// TestCaseNames: pairs are told apart, whatever their last elements are, and measured once.
func TestCaseNames(t *testing.T) {
	pairs := []string{"/c/a/app", "/c/b/app", "/c/b/etc", "app", "c/a/app", "."}
	if got, want := caseNames(pairs), []string{"/c/a/app", "b/app", "etc", "app", "c/a/app", "."}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	dir := t.TempDir()
	for _, side := range []string{"a/app/old", "a/app/new", "b/app/old", "b/app/new"} {
		if err := os.MkdirAll(filepath.Join(dir, side), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := findPairs(filepath.Join(dir, "b/"), dir, dir)
	if want := []string{filepath.Join(dir, "b/app"), filepath.Join(dir, "a/app")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
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
