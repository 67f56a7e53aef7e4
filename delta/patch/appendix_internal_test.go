package patch

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// TestExcerpt reads excerpts and joints at random.
func TestExcerpt(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 62))
	b := make([]byte, 3000)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for range 200 {
		var spans []span
		var want []byte
		for at := r.IntN(300); at < len(b); at += 1 + r.IntN(400) {
			hi := min(at+1+r.IntN(300), len(b))
			spans, want = append(spans, span{at, hi}), append(want, b[at:hi]...)
			at = hi
		}
		x := newExcerpt(bytes.NewReader(b), spans)
		j := &joint{bytes.NewReader(b), x}
		for k, c := range []struct {
			s    Source
			want []byte
		}{{x, want}, {j, append(bytes.Clone(b), want...)}} {
			if c.s.Size() != int64(len(c.want)) {
				t.Fatalf("%d: %d bytes, not %d", k, c.s.Size(), len(c.want))
			}
			for range 20 {
				off := r.IntN(len(c.want) + 1)
				got := make([]byte, r.IntN(len(c.want)))
				n, err := c.s.ReadAt(got, int64(off))
				if !bytes.Equal(got[:n], c.want[off:min(off+len(got), len(c.want))]) || n < len(got) && err != io.EOF || n == len(got) && err != nil && err != io.EOF {
					t.Fatalf("%d: %d bytes at %d: %d, %v", k, len(got), off, n, err)
				}
			}
		}
	}
}

// TestPrices: what a part takes is at most what all does, and parts add up.
func TestPrices(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 62))
	for range 100 {
		var p prices
		total, at := int64(0), 0
		for range r.IntN(40) {
			lo := at + r.IntN(600)
			at = lo + 1 + r.IntN(3000)
			bits := r.Int64N(5000)
			p.add(lo, at, bits)
			total += bits
		}
		last := int64(0)
		for i := 0; i <= at+10; i += 1 + r.IntN(50) {
			v := p.upTo(i)
			if v < last || v > total {
				t.Fatalf("%d bits up to %d, %d before, %d in all", v, i, last, total)
			}
			last = v
		}
		if p.total() != total || p.upTo(at) != total {
			t.Errorf("%d bits, and %d up to the end, not %d", p.total(), p.upTo(at), total)
		}
	}
}

// TestAppendixHeaders: an appendix comes first, has an end, and is made from the base alone.
func TestAppendixHeaders(t *testing.T) {
	row := func(kind, region byte, size int64) segment {
		return segment{kind: kind, region: region, size: size, payload: 1}
	}
	for name, c := range map[string]struct {
		segs []segment
		ok   bool
	}{
		"none":                 {[]segment{row(kindPlain, 0, 100)}, true},
		"some":                 {[]segment{row(kindPlain, regionAppendix, 60), row(kindCopy, regionAppendix, 40), row(kindCopy, 0, 100)}, true},
		"later":                {[]segment{row(kindPlain, 0, 50), row(kindPlain, regionAppendix, 60), row(kindPlain, 0, 50)}, false},
		"too long":             {[]segment{row(kindPlain, regionAppendix, 101), row(kindPlain, 0, 100)}, false},
		"too long together":    {[]segment{row(kindPlain, regionAppendix, 60), row(kindPlain, regionAppendix, 41), row(kindPlain, 0, 100)}, false},
		"nothing of it":        {[]segment{row(kindPlain, regionAppendix, 60)}, false},
		"rows":                 {[]segment{row(kindRows, regionAppendix, 60), row(kindPlain, 0, 100)}, false},
		"another region":       {[]segment{row(kindPlain, 4, 60), row(kindPlain, 0, 100)}, false},
		"a parse of no recipe": {[]segment{row(kindPlain, 1, 60), row(kindPlain, 0, 40)}, false},
		"copy of base and it":  {[]segment{row(kindPlain, regionAppendix, 60), row(kindCopy, 0, 100)}, true},
		"copy of base alone":   {[]segment{row(kindCopy, regionAppendix, 60), row(kindPlain, 0, 100)}, false},
	} {
		h := header{baseSize: 50, newSize: 100, segs: c.segs}
		b := h.append(nil)
		got, err := parseHeader(b[headLen:], int64(len(c.segs)))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if err := got.place(nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, s := range got.segs {
			if s.region == regionAppendix && (s.at < 100 || s.at+s.size > 100+got.appendix) {
				t.Errorf("%s: %+v", name, s)
			}
		}
	}
}

// TestAppendixOfItself: no cover of the index gives the appendix from itself.
func TestAppendixOfItself(t *testing.T) {
	for _, c := range []struct {
		r  run
		ok bool
	}{
		{run{n: 90, o: 0, l: 10}, true}, {run{n: 90, o: 40, l: 11}, false}, // base of 50, output of 100, appendix of 20
		{run{n: 100, o: 30, l: 20}, true}, {run{n: 100, o: 31, l: 20}, false}, {run{n: 110, o: 55, l: 5}, false},
		{run{n: 30, o: 50, l: 20}, true}, {run{n: 30, o: 51, l: 20}, false},
	} {
		e := newEncoder()
		err := (&moves{runs: []run{c.r}}).code(e, 50, 100, 20)
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.r, err)
		}
		e = newEncoder()
		if err := (&moves{runs: []run{c.r}}).code(e, 1000, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		if err := new(moves).code(newDecoder(e.finish()), 50, 100, 20); (err == nil) != c.ok {
			t.Errorf("%+v comes back: %v", c.r, err)
		}
	}
}

// TestPagesResize: the last page of a base is read again where more is behind it.
func TestPagesResize(t *testing.T) {
	b := bytes.Repeat([]byte("0123456789"), 1000)
	p := pages{src: bytes.NewReader(b)}
	p.resize(5000)
	got := make([]byte, 10)
	if err := p.read(got, 4990); err != nil {
		t.Fatal(err)
	}
	p.resize(int64(len(b)))
	if err := p.read(got, 4995); err != nil || string(got) != "5678901234" {
		t.Errorf("%q, %v", got, err)
	}
}
