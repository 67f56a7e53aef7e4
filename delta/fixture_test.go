package delta_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// program returns n bytes that compress about as programs do and depend on seed
// only.
func program(seed byte, n int) []byte {
	r := rand.New(rand.NewChaCha8([32]byte{seed}))
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = fmt.Appendf(b, "%x,", r.Uint64N(1<<uint(8+r.IntN(40))))
	}
	return b[:n]
}

// edit returns b with n small changes.
func edit(b []byte, n int) []byte {
	b = bytes.Clone(b)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for range n {
		copy(b[r.IntN(len(b)-8):], "changed!")
	}
	return b
}

func writeFile(t testing.TB, path string, b []byte) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, b, 0o644))
	return path
}
