package zstd_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	packer "github.com/klauspost/compress/zstd"
)

// tool packs with the zstd program.
func tool(t testing.TB, plain []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("zstd", append(args, "-c", "-q")...)
	cmd.Stdin = bytes.NewReader(plain)
	var failed strings.Builder
	cmd.Stderr = &failed
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("zstd %v: %v: %s", args, err, failed.String())
	}
	return b
}

// TestProgram makes frames of the zstd program again.
func TestProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("no zstd program in PATH to make frames with")
	}
	all := [][]string{{"-1"}, {"-3", "--no-check"}, {"-7"}, {"-15"}, {"-19"}, {"--ultra", "-22", "--zstd=wlog=23"}, {"--fast=5"}, {"-5", "--zstd=wlog=12"}, {"-9", "--long=23"}}
	for _, l := range []string{"2", "4", "5", "6", "8", "9", "10", "11", "12", "13", "14", "16", "17", "18"} {
		all = append(all, []string{"-" + l})
	}
	for name, plain := range inputs(t) {
		for no, args := range all {
			if name != "mixed" && (no+len(name))%3 != 0 { // that has every kind in it
				continue
			}
			t.Run(name+"/"+strings.Join(args, ""), func(t *testing.T) {
				check(t, tool(t, plain, args...), plain)
			})
		}
	}
}

// parses has how the digests of the parses of frames in testdata begin.
var parses = map[string]string{
	"go-1.zst":  "9ba2acda75f0c671",
	"go-15.zst": "d2ccb7b31b68154b",
	"go-19.zst": "aea442acbebb2756",
	"go-6.zst":  "03e53e3e73d70ff7",
	"ls-22.zst": "3fb1aa7903b68438",
}

// TestGolden makes frames again that the zstd program, version 1.5.4, made, and pins
// their parses.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.zst")
	if err != nil || len(files) == 0 {
		t.Fatalf("no frames: %v", err)
	}
	r, err := packer.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			packed, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := r.DecodeAll(packed, nil)
			if err != nil {
				t.Fatal(err)
			}
			parse := check(t, packed, plain)
			if got := fmt.Sprintf("%x", sha256.Sum256(parse)); got[:16] != parses[filepath.Base(f)] {
				t.Errorf("the parse is another: %s", got[:16])
			}
			if flags := parse[16+3]; flags&0xf0 != 0 {
				t.Errorf("descriptions are given that libzstd makes: %x", flags)
			}
		})
	}
}
