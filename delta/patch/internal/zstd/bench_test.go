package zstd_test

import (
	"bytes"
	"io"
	"testing"

	packer "github.com/klauspost/compress/zstd"

	"updraft/delta/patch/internal/zstd"
)

// frames returns frames of 128 KiB and their plain bytes, as squashfs has them.
func frames(b *testing.B) (packed, plain [][]byte) {
	p := inputs(b)
	w, err := packer.NewWriter(nil, packer.WithEncoderLevel(packer.SpeedBestCompression), packer.WithEncoderConcurrency(1))
	if err != nil {
		b.Fatal(err)
	}
	for _, kind := range []string{"code", "text"} {
		for at := 0; at < len(p[kind]); at += 128 << 10 {
			piece := p[kind][at:min(at+128<<10, len(p[kind]))]
			plain = append(plain, piece)
			packed = append(packed, w.EncodeAll(piece, nil))
		}
	}
	return packed, plain
}

func BenchmarkSplit(b *testing.B) {
	packed, plain := frames(b)
	b.SetBytes(int64(len(bytes.Join(plain, nil))))
	b.ReportAllocs()
	for b.Loop() {
		for _, f := range packed {
			if _, err := zstd.Split(bytes.NewReader(f), 0, int64(len(f)), io.Discard, io.Discard, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	packed, plain := frames(b)
	var parses [][]byte
	for _, f := range packed {
		var parse bytes.Buffer
		if _, err := zstd.Split(bytes.NewReader(f), 0, int64(len(f)), nil, &parse, nil); err != nil {
			b.Fatal(err)
		}
		parses = append(parses, parse.Bytes())
	}
	b.SetBytes(int64(len(bytes.Join(plain, nil))))
	b.ReportAllocs()
	for b.Loop() {
		for i, p := range parses {
			if err := zstd.Join(io.Discard, bytes.NewReader(plain[i]), bytes.NewReader(p)); err != nil {
				b.Fatal(err)
			}
		}
	}
}
