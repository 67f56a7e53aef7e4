package lz4_test

import (
	"bytes"
	"testing"

	"updraft/delta/patch/internal/lz4"
	"updraft/delta/patch/internal/parse/parsetest"
)

// FuzzSplit looks for frames that crash Split, make it allocate, or are not joined to
// the same bytes again.
func FuzzSplit(f *testing.F) {
	for _, b := range parsetest.Goldens(f, "testdata/*.lz4") {
		f.Add(b, false)
	}
	m := maker{}
	f.Add(append([]byte{0x1f, 'x', 1, 0, 255, 7, 0}, m.length(nil, 0)...), true)
	f.Fuzz(func(t *testing.T, b []byte, bare bool) {
		const most = 4 << 20
		plain, parse := parsetest.Counted{Max: most}, parsetest.Counted{Max: most}
		var packed int64
		var err error
		n := parsetest.Allocated(func() {
			packed, err = codec(bare).Split(bytes.NewReader(b), 0, int64(len(b)), &plain, &parse, nil)
		})
		if n > lz4.SplitMemory+4*most+parsetest.Slack {
			t.Errorf("allocated %d bytes", n)
		}
		if err != nil || plain.N > most {
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
	for _, b := range parsetest.Goldens(f, "testdata/*.lz4") {
		k, err := codec(false).Take(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(k.Plain, k.Parse)
	}
	f.Add([]byte("abcabcabcd"), []byte{3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 3, 0, 6, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte("abc"), []byte{3, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, plain, parse []byte) {
		out := parsetest.Counted{Max: 0}
		n := parsetest.Allocated(func() {
			if err := lz4.Join(&out, bytes.NewReader(plain), bytes.NewReader(parse)); err != nil {
				out.N = 0
			}
		})
		if n > lz4.JoinMemory+parsetest.Slack {
			t.Errorf("allocated %d bytes", n)
		}
		if out.N > len(parse)+len(plain)+len(plain)/100+64 {
			t.Errorf("%d and %d bytes make %d", len(plain), len(parse), out.N)
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	plain := parsetest.Sample(1, 8<<20)
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
	plain := parsetest.Sample(1, 8<<20)
	for _, arg := range [][]string{{"-1"}, {"-9", "-B4"}, {"-l"}} {
		b.Run(arg[0], func(b *testing.B) {
			k, err := codec(false).Take(tool(b, plain, arg...))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				out := parsetest.Counted{Max: 0}
				if err := lz4.Join(&out, bytes.NewReader(k.Plain), bytes.NewReader(k.Parse)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
