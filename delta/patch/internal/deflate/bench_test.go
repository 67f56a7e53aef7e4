package deflate_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"testing"

	"updraft/delta/patch/internal/deflate"
)

// stream returns a stream of the corpus' code and text, and its plain bytes.
func stream(b *testing.B) (packed, plain []byte) {
	c := corpus(b)
	plain = append(bytes.Clone(c["code"]), c["text"]...)
	var buf bytes.Buffer
	w, err := deflate.NewWriter(&buf, deflate.Params{Family: deflate.Gzip, Level: 6, Memory: 8, Window: 15}, nil)
	if err != nil {
		b.Fatal(err)
	}
	w.Write(plain)
	w.Close()
	return buf.Bytes(), plain
}

func BenchmarkWriter(b *testing.B) {
	_, plain := stream(b)
	for _, level := range []uint8{1, 6, 9} {
		p := deflate.Params{Family: deflate.Gzip, Level: level, Memory: 8, Window: 15}
		b.Run(p.String(), func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				w, _ := deflate.NewWriter(io.Discard, p, nil)
				w.Write(plain)
				w.Close()
			}
		})
	}
	b.Run("compress/gzip -6", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			w := gzip.NewWriter(io.Discard)
			w.Write(plain)
			w.Close()
		}
	})
}

func BenchmarkReader(b *testing.B) {
	packed, plain := stream(b)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		io.Copy(io.Discard, deflate.NewReader(bytes.NewReader(packed), 0, int64(len(packed))))
	}
}

func BenchmarkAnalyze(b *testing.B) {
	packed, plain := stream(b)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if _, err := deflate.Analyze(context.Background(), bytes.NewReader(packed), 0, int64(len(packed)), deflate.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
