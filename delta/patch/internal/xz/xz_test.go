package xz_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"updraft/delta/patch/internal/parse/parsetest"
	"updraft/delta/patch/internal/xz"
)

var codec = parsetest.Codec{Split: xz.Split, Join: xz.Join, Corrupt: xz.ErrCorrupt}

// tool runs the xz program on b.
func tool(t testing.TB, b []byte, arg ...string) []byte {
	t.Helper()
	return parsetest.Tool(t, b, "xz", append(arg, "-c", "-q")...)
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{2}).Read(b)
	return b
}

var toolArgs = []string{
	"-0", "-1", "-3", "-6", "-9e", "-T2 --block-size=100KiB", "-C none --block-size=300KiB", "-C crc32 --lzma2=dict=1MiB", "-C sha256 -2",
	"--x86 --lzma2 -C crc32", "--delta=dist=4 --arm64 --lzma2", "--lzma2=lc=0,lp=2,pb=0", "--lzma2=lc=4,pb=4,mode=fast,nice=5", "--lzma2=lc=1,lp=3,mf=bt2",
}

func TestTool(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	inputs := map[string][]byte{
		"empty": nil, "one": {'x'}, "sample": parsetest.Sample(3, 500<<10), "noise": noise(300 << 10), "zeros": make([]byte, 3<<20),
		"turns": bytes.Join([][]byte{parsetest.Sample(5, 200<<10), noise(200 << 10), parsetest.Sample(6, 100<<10)}, nil),
		"far":   bytes.Join([][]byte{parsetest.Sample(1, 200<<10), noise(300 << 10), parsetest.Sample(1, 250<<10)}, nil),
	}
	for name, b := range inputs {
		for i, arg := range toolArgs {
			if (i+len(name))%3 > 0 && len(b) > 1<<20 {
				continue
			}
			t.Run(name+" "+arg, func(t *testing.T) {
				packed := tool(t, b, strings.Fields(arg)...)
				k := codec.Check(t, append(packed, 0, 0, 0, 0))
				filtered := strings.Contains(arg, "--x86") || strings.Contains(arg, "--delta")
				if !filtered && !bytes.Equal(k.Plain, b) || len(k.Plain) != len(b) || k.Packed != int64(len(packed)) {
					t.Errorf("%d of %d packed, %d of %d plain", k.Packed, len(packed), len(k.Plain), len(b))
				}
			})
		}
	}
}
