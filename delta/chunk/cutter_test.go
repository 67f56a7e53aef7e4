package chunk_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"updraft/delta/chunk"
)

var update = flag.Bool("update", false, "rewrite golden tables")

// noise returns n incompressible bytes that depend on seed only.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// text returns n bytes of low entropy that depend on seed only.
func text(seed byte, n int) []byte {
	r := rand.New(rand.NewChaCha8([32]byte{seed, 't'}))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "line %d of %x: %s\n", b.Len(), r.Uint32N(1000), strings.Repeat("ab", r.IntN(20)))
	}
	return b.Bytes()[:n]
}

func split(t testing.TB, p chunk.Params, data []byte) []chunk.Chunk {
	t.Helper()
	var list []chunk.Chunk
	err := chunk.Split(context.Background(), bytes.NewReader(data), p, func(c chunk.Chunk, b []byte) error {
		if len(b) != c.Len || sha256.Sum256(b) != c.Sum {
			t.Fatalf("chunk %d: data does not fit its name", len(list))
		}
		list = append(list, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// reference cuts the way the package comment says, one byte at a time.
func reference(p chunk.Params, data []byte) (ends []int) {
	var gear [256]uint64
	for i := range gear {
		sum := sha256.Sum256(append([]byte("updraft gear 1"), byte(i)))
		gear[i] = binary.BigEndian.Uint64(sum[:])
	}
	log := 0
	for 1<<log < p.Normal {
		log++
	}
	start := 0
	for start < len(data) {
		var h uint64
		end := len(data)
		for i := start; i < len(data); i++ {
			n := i - start + 1
			if n > p.Min-64 {
				h = h<<1 + gear[data[i]]
			}
			zeros := log + 1
			if n > p.Normal {
				zeros = log - 1
			}
			if n > p.Min && h>>(64-zeros) == 0 || n == p.Max {
				end = i + 1
				break
			}
		}
		ends = append(ends, end)
		start = end
	}
	return ends
}

var inputs = []struct {
	name string
	data func() []byte
}{
	{"empty", func() []byte { return nil }},
	{"one", func() []byte { return []byte{7} }},
	{"min", func() []byte { return noise(1, 16<<10) }},
	{"zeros", func() []byte { return make([]byte, 1<<20) }},
	{"noise", func() []byte { return noise(2, 3<<20) }},
	{"text", func() []byte { return text(3, 2<<20) }},
}

func TestReference(t *testing.T) {
	small := chunk.Params{Min: 64, Normal: 256, Max: 1024}
	for _, in := range inputs {
		for _, p := range []chunk.Params{chunk.Default(), small} {
			list := split(t, p, in.data())
			want := reference(p, in.data())
			if len(list) != len(want) {
				t.Fatalf("%s: %d chunks, want %d", in.name, len(list), len(want))
			}
			for i, c := range list {
				if int(c.Offset)+c.Len != want[i] {
					t.Fatalf("%s: chunk %d ends at %d, want %d", in.name, i, int(c.Offset)+c.Len, want[i])
				}
			}
		}
	}
}

func TestGolden(t *testing.T) {
	for _, in := range inputs {
		var b strings.Builder
		for _, c := range split(t, chunk.Default(), in.data()) {
			fmt.Fprintf(&b, "%d %d %x\n", c.Offset, c.Len, c.Sum)
		}
		path := filepath.Join("testdata", "cuts-"+in.name+".txt")
		if *update {
			if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s: cuts differ from the published table", in.name)
		}
	}
}

func TestWriteSizesDoNotMatter(t *testing.T) {
	data := noise(4, 2<<20)
	want := split(t, chunk.Default(), data)
	for _, step := range []int{1, 63, 4096, 16<<10 + 1, 300 << 10} {
		var got []chunk.Chunk
		c := chunk.NewCutter(chunk.Default(), func(c chunk.Chunk, b []byte) error {
			if sha256.Sum256(b) != c.Sum {
				t.Fatal("data does not fit its name")
			}
			got = append(got, c)
			return nil
		})
		for rest := data; len(rest) > 0; {
			n, err := c.Write(rest[:min(step, len(rest))])
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("writes of %d bytes cut differently", step)
		}
		if c.Offset() != int64(len(data)) {
			t.Errorf("Offset %d after all", c.Offset())
		}
	}
}

func TestBoundary(t *testing.T) {
	head, tail := noise(5, 100_000), noise(6, 700_000)
	var got []chunk.Chunk
	c := chunk.NewCutter(chunk.Default(), func(c chunk.Chunk, _ []byte) error {
		got = append(got, c)
		return nil
	})
	c.Write(head)
	for range 2 { // the second one has nothing to end
		if err := c.Boundary(); err != nil {
			t.Fatal(err)
		}
	}
	c.Write(tail)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	want := split(t, chunk.Default(), head)
	for _, ch := range split(t, chunk.Default(), tail) {
		ch.Offset += int64(len(head))
		want = append(want, ch)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Error("a boundary must make the parts independent")
	}
}

func TestInsertStaysLocal(t *testing.T) {
	data := noise(7, 8<<20)
	known := map[[32]byte]bool{}
	for _, c := range split(t, chunk.Default(), data) {
		known[c.Sum] = true
	}
	edited := append(append(bytes.Clone(data[:4<<20]), 'x'), data[4<<20:]...)
	fresh := 0
	for _, c := range split(t, chunk.Default(), edited) {
		if !known[c.Sum] {
			fresh += c.Len
		}
	}
	if fresh > 2*chunk.Default().Max {
		t.Errorf("one inserted byte makes %d bytes new", fresh)
	}
}

func TestMeanLength(t *testing.T) {
	data := noise(8, 32<<20)
	mean := len(data) / len(split(t, chunk.Default(), data))
	if mean < 48<<10 || mean > 96<<10 {
		t.Errorf("mean chunk is %d bytes", mean)
	}
}

func TestErrors(t *testing.T) {
	boom := errors.New("boom")
	c := chunk.NewCutter(chunk.Default(), func(chunk.Chunk, []byte) error { return boom })
	if _, err := c.Write(noise(9, 1<<20)); !errors.Is(err, boom) {
		t.Errorf("Write: %v", err)
	}
	if err := c.Close(); !errors.Is(err, boom) {
		t.Errorf("Close: %v", err)
	}
	nop := func(chunk.Chunk, []byte) error { return nil }
	for _, p := range []chunk.Params{{}, {63, 128, 256}, {64, 100, 256}, {64, 128, 128}, {128, 128, 256}, {64, 128, 2 << 20}} {
		if _, err := chunk.NewCutter(p, nop).Write([]byte{1}); !errors.Is(err, chunk.ErrParams) {
			t.Errorf("%v: %v", p, err)
		}
	}
	c = chunk.NewCutter(chunk.Default(), nop)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte{1}); !errors.Is(err, chunk.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := chunk.Split(ctx, bytes.NewReader(nil), chunk.Default(), nop); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := chunk.Split(context.Background(), iotest.ErrReader(boom), chunk.Default(), nop); !errors.Is(err, boom) {
		t.Errorf("read error: %v", err)
	}
	if err := chunk.Split(context.Background(), iotest.DataErrReader(strings.NewReader("x")), chunk.Default(), nop); err != nil {
		t.Errorf("data with EOF: %v", err)
	}
}

func FuzzCutter(f *testing.F) {
	f.Add([]byte("abc"), uint16(1))
	f.Add(noise(10, 5000), uint16(700))
	p := chunk.Params{Min: 64, Normal: 256, Max: 1024}
	f.Fuzz(func(t *testing.T, data []byte, step uint16) {
		var ends []int
		c := chunk.NewCutter(p, func(c chunk.Chunk, _ []byte) error {
			ends = append(ends, int(c.Offset)+c.Len)
			return nil
		})
		w := io.Writer(c)
		for rest := data; len(rest) > 0; {
			n, err := w.Write(rest[:min(int(step)+1, len(rest))])
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if want := reference(p, data); fmt.Sprint(ends) != fmt.Sprint(want) {
			t.Fatalf("cuts %v, want %v", ends, want)
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	data := noise(11, 64<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		split := func(chunk.Chunk, []byte) error { return nil }
		if err := chunk.Split(context.Background(), bytes.NewReader(data), chunk.Default(), split); err != nil {
			b.Fatal(err)
		}
	}
}
