package delta_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/klauspost/compress/zstd"

	"updraft/delta"
	"updraft/delta/chunk"
)

func named(b []byte) chunk.Chunk {
	return chunk.Chunk{Sum: sha256.Sum256(b), Len: len(b)}
}

func TestDecoder(t *testing.T) {
	d, err := delta.NewDecoder()
	must(t, err)
	z, err := zstd.NewWriter(nil)
	must(t, err)
	data := program(20, 100_000)
	frame := z.EncodeAll(data, nil)
	got, err := d.Chunk(nil, frame, false, named(data))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("frame: %v", err)
	}
	buf := make([]byte, 0, 200_000)
	got, err = d.Chunk(buf, data, true, named(data))
	if err != nil || !bytes.Equal(got, data) || &got[0] != &buf[:1][0] {
		t.Fatalf("raw: %v", err)
	}
	bomb := z.EncodeAll(make([]byte, 64<<20), nil)
	other := named(data)
	other.Sum[0] ^= 1
	for name, c := range map[string]struct {
		stored []byte
		raw    bool
		c      chunk.Chunk
	}{
		"other sum":     {frame, false, other},
		"other raw":     {data, true, other},
		"cut":           {frame[:len(frame)-1], false, named(data)},
		"cut raw":       {data[1:], true, named(data)},
		"shorter":       {frame, false, chunk.Chunk{Sum: named(data).Sum, Len: len(data) - 1}},
		"longer":        {frame, false, chunk.Chunk{Sum: named(data).Sum, Len: len(data) + 1}},
		"bomb":          {bomb, false, named(data)},
		"nothing":       {nil, false, named(data)},
		"no zstd":       {data, false, named(data)},
		"length 0":      {frame, false, chunk.Chunk{}},
		"length beyond": {frame, false, chunk.Chunk{Len: chunk.MaxLen + 1}},
	} {
		if _, err := d.Chunk(nil, c.stored, c.raw, c.c); !errors.Is(err, delta.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	z, err := zstd.NewWriter(nil)
	must(f, err)
	data := []byte("some bytes, some bytes, some bytes")
	f.Add(z.EncodeAll(data, nil), false)
	f.Add(data, true)
	d, err := delta.NewDecoder()
	must(f, err)
	f.Fuzz(func(t *testing.T, stored []byte, raw bool) {
		got, err := d.Chunk(nil, stored, raw, named(data))
		if err == nil && !bytes.Equal(got, data) {
			t.Fatal("wrong bytes pass")
		}
	})
}

func BenchmarkDecoder(b *testing.B) {
	data := program(21, 64<<10)
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	must(b, err)
	frame := z.EncodeAll(data, nil)
	d, err := delta.NewDecoder()
	must(b, err)
	buf := make([]byte, 0, len(data))
	c := named(data)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Chunk(buf, frame, false, c); err != nil {
			b.Fatal(err)
		}
	}
}
