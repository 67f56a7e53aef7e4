package layer

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// bytesOf is a stream of frames and their members.
func bytesOf(t *testing.T, plain ...[]byte) (src []byte, ms []Member) {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range plain {
		src = z.EncodeAll(b, src)
	}
	spools := NewSpools(t.TempDir())
	defer spools.Close()
	fs, err := Find(context.Background(), bytes.NewReader(src), nil, spools, len(plain), 1<<30)
	if err != nil || len(fs) != len(plain) {
		t.Fatalf("%d members: %v", len(fs), err)
	}
	for i := range fs {
		ms = append(ms, fs[i].Member)
	}
	return src, ms
}

// TestWholes: frames that take turns in memory take what PartsOf says, whether they are
// long in plain bytes or in their parse.
func TestWholes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 90))
	words := make([]byte, 600<<10)
	for i := range words {
		words[i] = "etaoin shrdlu"[r.IntN(13)]
	}
	zeros := make([]byte, 1400<<10)
	src, ms := bytesOf(t, zeros, zeros, words, words)
	v, err := NewView(t.Context(), bytes.NewReader(src), ms, 1<<30, 0, 0, nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, err := io.Copy(io.Discard, io.NewSectionReader(v, 0, v.Size())); err != nil {
		t.Fatal(err)
	}
	held, largest := int64(0), int64(0)
	for i := range v.whole {
		w := &v.whole[i]
		held += int64(cap(w.plain) + cap(w.parse))
	}
	for i := range ms {
		largest = max(largest, ms[i].Plain+ms[i].Parse)
	}
	if held > leastWholes*largest {
		t.Errorf("%d bytes are held of frames of at most %d", held, largest)
	}
}

// TestSmallWholes: of small frames more are at hand, so that reading to and fro among some unpacks each once.
func TestSmallWholes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 91))
	var plain [][]byte
	size := int64(0)
	for range mostWholes {
		b := make([]byte, 100<<10)
		for i := range b {
			b[i] = "etaoin shrdlu"[r.IntN(13)]
		}
		plain = append(plain, b)
	}
	src, ms := bytesOf(t, plain...)
	for i := range ms {
		size += ms[i].Plain + ms[i].Parse
	}
	budget := size
	v, err := NewView(t.Context(), bytes.NewReader(src), ms, 1<<30, 0, 4<<20, &budget, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	b := make([]byte, 1)
	for range 3 {
		for i := range plain {
			if _, err := v.ReadAt(b, int64(i*100<<10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if budget != 0 {
		t.Errorf("%d of %d bytes are left", budget, size)
	}
}
