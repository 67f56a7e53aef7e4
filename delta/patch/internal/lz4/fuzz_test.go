package lz4_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"updraft/delta/patch/internal/lz4"
)

// slack is what a test may allocate besides Split, Join and what they write.
const slack = 1 << 20

func allocated(fn func()) uint64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	fn()
	runtime.ReadMemStats(&b)
	return b.TotalAlloc - a.TotalAlloc
}

func goldens(f testing.TB) (all [][]byte) {
	files, err := filepath.Glob("testdata/*.lz4")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// counted passes at most max bytes on, and counts them.
type counted struct {
	bytes.Buffer
	n, max int
}

func (c *counted) Write(b []byte) (int, error) {
	c.n += len(b)
	if c.n <= c.max {
		c.Buffer.Write(b)
	}
	return len(b), nil
}

// FuzzSplit looks for frames that crash Split, make it allocate, or are not joined to
// the same bytes again.
func FuzzSplit(f *testing.F) {
	for _, b := range goldens(f) {
		f.Add(b, false)
	}
	m := maker{}
	f.Add(append([]byte{0x1f, 'x', 1, 0, 255, 7, 0}, m.length(nil, 0)...), true)
	f.Fuzz(func(t *testing.T, b []byte, bare bool) {
		const most = 4 << 20
		plain, parse := counted{max: most}, counted{max: most}
		packed, err := int64(len(b)), error(nil)
		n := allocated(func() {
			if bare {
				err = lz4.SplitBlock(bytes.NewReader(b), 0, packed, &plain, &parse, nil)
			} else {
				packed, err = lz4.Split(bytes.NewReader(b), 0, packed, &plain, &parse, nil)
			}
		})
		if n > lz4.SplitMemory+4*most+slack {
			t.Errorf("allocated %d bytes", n)
		}
		if err != nil || plain.n > most {
			return
		}
		var out bytes.Buffer
		if err := lz4.Join(&out, &plain, &parse); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), b[:packed]) {
			t.Errorf("joined % x, want % x", out.Bytes(), b[:packed])
		}
	})
}

// FuzzJoin looks for a parse that crashes Join or makes it allocate.
func FuzzJoin(f *testing.F) {
	for _, b := range goldens(f) {
		k, err := split(b, false)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(k.plain, k.parse)
	}
	f.Fuzz(func(t *testing.T, plain, parse []byte) {
		out := counted{max: 0}
		n := allocated(func() {
			if err := lz4.Join(&out, bytes.NewReader(plain), bytes.NewReader(parse)); err != nil {
				out.n = 0
			}
		})
		if n > lz4.JoinMemory+slack {
			t.Errorf("allocated %d bytes", n)
		}
		if out.n > len(parse)+len(plain)+len(plain)/100+64 {
			t.Errorf("%d and %d bytes make %d", len(plain), len(parse), out.n)
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	plain := sample(1, 8<<20)
	for _, arg := range [][]string{{"-1"}, {"-9", "-B4"}, {"-l"}} {
		b.Run(arg[0], func(b *testing.B) {
			packed := tool(b, plain, arg...)
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				if _, err := lz4.Split(bytes.NewReader(packed), 0, int64(len(packed)), nil, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkJoin(b *testing.B) {
	plain := sample(1, 8<<20)
	for _, arg := range [][]string{{"-1"}, {"-9", "-B4"}, {"-l"}} {
		b.Run(arg[0], func(b *testing.B) {
			k, err := split(tool(b, plain, arg...), false)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				out := counted{max: 0}
				if err := lz4.Join(&out, bytes.NewReader(k.plain), bytes.NewReader(k.parse)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
