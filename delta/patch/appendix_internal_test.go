package patch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
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
		"too large for dense":  {[]segment{row(kindDense, regionAppendix, 60), row(kindCopy, 0, 100)}, false},
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

// TestAppendixTooLargeForDense: base and appendix together have places of 32 bits where there is an index.
func TestAppendixTooLargeForDense(t *testing.T) {
	for n, ok := range map[int64]bool{1 << 20: true, 2 << 30: false} {
		h := header{baseSize: 3 << 30, newSize: 3 << 30, index: 10, segs: []segment{
			{kind: kindDense, region: regionAppendix, size: 1 << 20, payload: 1},
			{kind: kindCopy, region: regionAppendix, size: n, payload: 1},
			{kind: kindCopy, size: 3 << 30, payload: 1}}}
		if _, err := parseHeader(h.append(nil)[headLen:], 13); (err == nil) != ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("an appendix of %d bytes: %v", n+1<<20, err)
		}
	}
}

// TestObjectAtTheEnd: what headers of an object at the end of the base speak of is not in the appendix.
func TestObjectAtTheEnd(t *testing.T) {
	object := func(skip ...int) []byte { // its symbols lie behind it
		b := relocatable(skip...)
		h := b[binary.LittleEndian.Uint64(b[40:])+4*64:]
		binary.LittleEndian.PutUint32(h[4:], 2)
		binary.LittleEndian.PutUint64(h[24:], uint64(len(relocatable())))
		binary.LittleEndian.PutUint64(h[32:], 256*24)
		return b
	}
	pad, rows := random(1, 30<<10), random(2, 300*24)
	for i := 0; i < len(rows); i += 24 {
		rows[i+4], rows[i+6], rows[i+7] = 3, 1, 0
	}
	old := append(bytes.Clone(pad), object()...)
	block := append(rows, object(7, 50, 90, 111, 140, 201, 202, 260)...)
	fresh := slices.Concat(pad, block, random(3, 300<<10), block, random(4, 300<<10), block)
	var p, out bytes.Buffer
	if _, err := Create(t.Context(), bytes.NewReader(old), bytes.NewReader(fresh), &p, Options{Profile: Dense, SegmentSize: 128 << 10}); err != nil {
		t.Fatal(err)
	}
	if Kinds(p.Bytes())[kindDense] == 0 {
		t.Error("nothing is dense")
	}
	if _, err := Decode(t.Context(), bytes.NewReader(p.Bytes()), bytes.NewReader(old), &out, DecodeOptions{}); err != nil || !bytes.Equal(out.Bytes(), fresh) {
		t.Errorf("it does not come back: %v", err)
	}
}

// TestAppendixPruned: covers of the appendix do not move into it, though the same bytes are nearer there.
func TestAppendixPruned(t *testing.T) {
	base, shared := random(5, 40<<10), random(6, 200)
	again := base[100:160]
	appendix := append(bytes.Clone(shared), again...)
	end := len(base) - len(shared)
	copy(base[end:], shared)
	k := &making{h: &header{baseView: int64(len(base)), newView: 5000, appendix: int64(len(appendix))},
		base: append(bytes.Clone(base), appendix...), to: bytes.NewReader(append(make([]byte, 5000), appendix...)),
		cs: []cover{{n: 5000, o: end, l: len(shared)}, {n: 5000 + len(shared), o: 100, l: len(again)}}}
	if err := k.prune(); err != nil {
		t.Fatal(err)
	}
	if len(k.cs) != 2 || k.cs[1].o != 100 {
		t.Errorf("%+v", k.cs)
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
