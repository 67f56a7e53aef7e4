package xz_test

import (
	"bytes"
	"io"
	"os"
	"testing"

	"updraft/delta/patch/internal/xz"
)

// program returns what a Linux program has: the code of this test.
func program(b *testing.B) []byte {
	name, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	code, err := os.ReadFile(name)
	if err != nil {
		b.Fatal(err)
	}
	return code[:min(len(code), 4<<20)]
}

func BenchmarkSplit(b *testing.B) {
	plain := program(b)
	packed := tool(b, plain, "-6")
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if _, err := xz.Split(bytes.NewReader(packed), 0, int64(len(packed)), nil, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	k, err := codec.Take(tool(b, program(b), "-6"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(k.Plain)))
	for b.Loop() {
		if err := xz.Join(io.Discard, bytes.NewReader(k.Plain), bytes.NewReader(k.Parse)); err != nil {
			b.Fatal(err)
		}
	}
}
