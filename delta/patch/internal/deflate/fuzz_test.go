package deflate_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"updraft/delta/patch/internal/deflate"
	"updraft/delta/patch/internal/parse/parsetest"
)

// maxAlloc bounds what a Reader or a Writer may allocate, and what a test does.
const maxAlloc = 8 << 20

// small is compressible.
func small(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for len(b) < n {
		b = append(b, "some of these words come again and again: "[r.IntN(30):]...)
	}
	return b[:n]
}

// written returns the stream that a Writer makes, or nil.
func written(p deflate.Params, corrections, plain []byte) []byte {
	var b bytes.Buffer
	w, err := deflate.NewWriter(&b, p, corrections)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil
	}
	return b.Bytes()
}

// FuzzReader looks for streams that crash a Reader or make it allocate, and checks
// that one can go on between blocks.
func FuzzReader(f *testing.F) {
	for _, p := range []deflate.Params{{Family: deflate.Zlib, Level: 6, Memory: 1, Window: 15}, {Family: deflate.Gzip, Level: 9, Memory: 8, Window: 15}} {
		f.Add(written(p, nil, small(3000)))
		f.Add(written(p, nil, nil))
	}
	f.Add([]byte("\x01\x05\x00\xfa\xffhello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 1 << 20
		var points []deflate.Point
		var plain []byte
		var err error
		if n := parsetest.Allocated(func() {
			r := deflate.NewReader(bytes.NewReader(b), 0, int64(len(b)))
			r.OnBlock(func() {
				if len(points) < 8 {
					points = append(points, r.Point(nil))
				}
			})
			plain, err = io.ReadAll(io.LimitReader(r, most))
		}); n > maxAlloc {
			t.Errorf("allocated %d bytes", n)
		}
		for _, p := range points {
			if err != nil || p.Plain > int64(len(plain)) || len(plain) == most {
				continue
			}
			r := deflate.NewReader(bytes.NewReader(b), 0, 0)
			r.Resume(bytes.NewReader(b), int64(len(b)), p)
			if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, plain[p.Plain:]) {
				t.Errorf("from %d: %d bytes, want %d: %v", p.Plain, len(rest), len(plain)-int(p.Plain), err)
			}
		}
	})
}

// FuzzWriter looks for parameters and corrections that crash a Writer or make it
// allocate. What it makes without error is a stream, and most often of these bytes: a
// correction may name a match that is none.
func FuzzWriter(f *testing.F) {
	p := deflate.Params{Family: deflate.Zlib, Level: 6, Memory: 1, Window: 15}
	f.Add(p.Append(nil), []byte{}, small(2000))
	f.Add(p.Append(nil), []byte{2, 3, 0, 1, 1, 100}, small(500))
	f.Add(p.Append(nil), []byte{0, 0, 1<<2 | 1<<5}, small(500))
	for level := range uint8(10) {
		p = deflate.Params{Family: deflate.Golang, Level: level, Memory: 8, Window: 15}
		f.Add(p.Append(nil), []byte{2, 3, 0, 1, 1, 100}, small(2000))
	}
	f.Fuzz(func(t *testing.T, params, corrections, plain []byte) {
		p, err := deflate.ParseParams(params)
		if err != nil || len(plain) > 1<<16 {
			return
		}
		var b []byte
		if n := parsetest.Allocated(func() { b = written(p, corrections, plain) }); n > maxAlloc {
			t.Errorf("allocated %d bytes", n)
		}
		if b == nil {
			return
		}
		got, err := io.ReadAll(deflate.NewReader(bytes.NewReader(b), 0, int64(len(b))))
		if len(corrections) == 0 && (err != nil || !bytes.Equal(got, plain)) {
			t.Errorf("%v: %d bytes come back as %d: %v", p, len(plain), len(got), err)
		}
	})
}

// TestResume goes on between the blocks of a long stream.
func TestResume(t *testing.T) {
	plain := small(4 << 20)
	b := written(deflate.Params{Family: deflate.Zlib, Level: 6, Memory: 8, Window: 15}, nil, plain)
	r := deflate.NewReader(bytes.NewReader(b), 0, int64(len(b)))
	var points []deflate.Point
	r.OnBlock(func() { points = append(points, r.Point(nil)) })
	if _, err := io.Copy(io.Discard, r); err != nil || len(points) < 2 {
		t.Fatalf("%d points: %v", len(points), err)
	}
	r.OnBlock(nil)
	for _, p := range points[len(points)-2:] {
		r.Resume(bytes.NewReader(b), int64(len(b)), p)
		if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, plain[p.Plain:]) {
			t.Errorf("from %d: %d bytes, want %d: %v", p.Plain, len(rest), len(plain)-int(p.Plain), err)
		}
	}
}
