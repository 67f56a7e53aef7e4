package zstd_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	packer "github.com/klauspost/compress/zstd"

	"updraft/delta/patch/internal/zstd"
)

// text is compressible.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "%x and %s;\n", r.IntN(3000)*7919, "some of these words come again and again"[r.IntN(30):])
	}
	return b[:n]
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

// inputs returns plain bytes of several kinds: text, code, runs, noise, mixtures.
func inputs(t testing.TB) map[string][]byte {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	code := make([]byte, 300<<10)
	if _, err := f.ReadAt(code, 0); err != nil {
		t.Fatal(err)
	}
	mixed := bytes.Clone(code[:150<<10])
	mixed = append(mixed, noise(1, 130<<10)...)
	mixed = append(mixed, make([]byte, 200<<10)...)
	mixed = append(mixed, text(2, 150<<10)...)
	digits := noise(3, 100<<10)
	for i := range digits {
		digits[i] = digits[i]%10 + '0'
	}
	return map[string][]byte{
		"code": code, "text": text(4, 200<<10), "noise": noise(5, 130<<10), "mixed": mixed, "digits": digits,
		"empty": nil, "one": {'x'}, "zeros": make([]byte, 300<<10), "short": []byte("hello, hello, hello"),
	}
}

// unit is what Split writes between two calls of unit.
type unit struct{ plain, parse []byte }

// split returns what Split writes, in units.
func split(t testing.TB, packed []byte) []unit {
	t.Helper()
	var units []unit
	var plain, parse bytes.Buffer
	src := append(append([]byte("front"), packed...), "behind"...)
	n, err := zstd.Split(bytes.NewReader(src), 5, int64(len(src)), &plain, &parse, func() error {
		units = append(units, unit{bytes.Clone(plain.Bytes()), bytes.Clone(parse.Bytes())})
		plain.Reset()
		parse.Reset()
		return nil
	})
	if err != nil || n != int64(len(packed)) {
		t.Fatalf("Split of %d bytes: %d, %v", len(packed), n, err)
	}
	if plain.Len() > 0 || parse.Len() > 0 {
		t.Errorf("%d plain bytes and %d of parse behind the last unit", plain.Len(), parse.Len())
	}
	return units
}

// whole puts units together.
func whole(units []unit) (plain, parse []byte) {
	for _, u := range units {
		plain = append(plain, u.plain...)
		parse = append(parse, u.parse...)
	}
	return plain, parse
}

// check splits a frame, compares its plain bytes, and makes it again.
func check(t testing.TB, packed, plain []byte) (parse []byte) {
	t.Helper()
	units := split(t, packed)
	got, parse := whole(units)
	if !bytes.Equal(got, plain) {
		t.Fatalf("Split gives %d plain bytes, not the %d there were", len(got), len(plain))
	}
	if len(parse)%8 != 0 {
		t.Errorf("a parse of %d bytes", len(parse))
	}
	var b bytes.Buffer
	if err := zstd.Join(&b, bytes.NewReader(plain), bytes.NewReader(parse)); err != nil {
		t.Fatalf("Join: %v", err)
	}
	if !bytes.Equal(b.Bytes(), packed) {
		at := 0
		for at < min(b.Len(), len(packed)) && b.Bytes()[at] == packed[at] {
			at++
		}
		t.Fatalf("Join makes %d bytes of %d, others from %d", b.Len(), len(packed), at)
	}
	return parse
}

// pack makes a frame.
func pack(t testing.TB, plain []byte, options ...packer.EOption) []byte {
	t.Helper()
	w, err := packer.NewWriter(nil, append(options, packer.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(plain, nil)
}

// stream makes a frame as a writer does that does not know the size.
func stream(t testing.TB, plain []byte, options ...packer.EOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := packer.NewWriter(&b, append(options, packer.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	for len(plain) > 0 {
		n := min(len(plain), 100_000)
		if _, err := w.Write(plain[:n]); err != nil {
			t.Fatal(err)
		}
		plain = plain[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var levels = []packer.EncoderLevel{packer.SpeedFastest, packer.SpeedDefault, packer.SpeedBetterCompression, packer.SpeedBestCompression}

func TestRoundTrip(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	for name, plain := range inputs(t) {
		for _, level := range levels {
			for _, checked := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v/%t", name, level, checked), func(t *testing.T) {
					o := []packer.EOption{packer.WithEncoderLevel(level), packer.WithEncoderCRC(checked), packer.WithZeroFrames(true)}
					check(t, pack(t, plain, o...), plain)
					check(t, pack(t, plain, append(o, packer.WithSingleSegment(true))...), plain)
					check(t, stream(t, plain, append(o, packer.WithWindowSize(64<<10))...), plain)
				})
			}
		}
	}
}
