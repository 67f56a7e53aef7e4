package patch

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// randomImages makes programs that an index can say of a stream of size bytes, whatever
// there is.
func randomImages(r *rand.Rand, size int64) []image {
	var out []image
	for at := int64(r.IntN(200)); at < size-2000 && len(out) < 20; {
		im := image{off: at, mach: []uint64{mach386, machARM, machX86, machARM64, machRISCV, 7}[r.IntN(6)]}
		end := min(at+1000+r.Int64N(20000), size)
		if r.IntN(3) == 0 {
			im.rel, im.loads = true, []load{objectLoad(at, end-at)}
		} else {
			for range 1 + r.IntN(maxLoads) {
				off := at + r.Int64N(end-at)
				n := 1 + r.Int64N(end-off)
				im.loads = append(im.loads, load{off: off, n: n, v: r.Uint64() >> (12 + r.IntN(50)), mem: uint64(n) + r.Uint64N(5000), exec: r.IntN(2) == 0})
			}
			for a := at; len(im.areas) < maxAreas; {
				a += r.Int64N(500)
				n := 1 + r.Int64N(3000)
				if a+n > size {
					break
				}
				k := area{off: a, n: n, kind: uint8(r.IntN(areaKinds))}
				if k.kind >= areaRelated {
					v, _, _ := im.addr(a)
					k.base = v + r.Uint64N(1<<20) - 1<<19
				}
				im.areas, a = append(im.areas, k), a+n
			}
		}
		im.bounds()
		out, at = append(out, im), im.end+r.Int64N(300)
	}
	return out
}

// TestIndexRefuses: what a decoder could not read is not written.
func TestIndexRefuses(t *testing.T) {
	im := image{mach: machARM64, loads: []load{{n: 100, v: 1 << 20, mem: 100}}, areas: []area{{n: 10, kind: areaTypes}}}
	im.bounds()
	for _, c := range []struct {
		by int64
		ok bool
	}{{1<<55 - 1, true}, {1 - 1<<55, true}, {1 << 55, false}, {-1 << 63, false}} {
		im.areas[0].base = 1<<20 + uint64(c.by)
		m, e := &moves{old: []image{im}}, newEncoder()
		if err := m.code(e, 100, 100, 0); (err == nil) != c.ok {
			t.Errorf("base %d away: %v", c.by, err)
		}
		got := &moves{}
		if err := got.code(newDecoder(e.finish()), 100, 100, 0); c.ok && (err != nil || !reflect.DeepEqual(got.old, m.old)) {
			t.Errorf("base %d away comes back as %v, %v", c.by, got.old, err)
		}
	}
}

// TestIndex: an index comes back, and nothing that it may say about programs, true or
// not, stops the decoder.
func TestIndex(t *testing.T) {
	if testing.Short() {
		t.Skip("tries many")
	}
	r := rand.New(rand.NewPCG(40, 40))
	base := slices.Concat(relocatable(), unwound(), relocatable(3))
	size := int64(len(base))
	d := newDenseCoder(bytes.NewReader(base), int64(len(base)), false)
	for i := range 50 {
		m := &moves{old: randomImages(r, size), new: randomImages(r, size)}
		if i%2 == 0 { // what is there indeed, and more
			m.old, _ = findImages(t.Context(), bytes.NewReader(base))
			m.old[0].loads[0].n -= r.Int64N(500)
			m.old[0].loads[0].mem = uint64(m.old[0].loads[0].n)
			m.old[0].bounds()
		}
		for at := r.Int64N(500); at < size-1; {
			l := 1 + r.Int64N(min(3000, size-at))
			m.runs = append(m.runs, run{uint32(at), uint32(r.Int64N(size - l + 1)), uint32(l)})
			at += l + r.Int64N(50)
		}
		c := newEncoder()
		if err := m.code(c, size, size, 0); err != nil {
			t.Fatal(err)
		}
		got := &moves{}
		if err := got.code(newDecoder(c.finish()), size, size, 0); err != nil {
			t.Fatal(err)
		}
		for k := range m.old {
			if len(m.old[k].areas) == 0 {
				m.old[k].areas, got.old[k].areas = nil, nil
			}
		}
		if !reflect.DeepEqual(got.old, m.old) || !slices.Equal(got.runs, m.runs) || len(got.new) != len(m.new) {
			t.Fatalf("index comes back as\n%v, was\n%v", got.old, m.old)
		}
		noise := make([]byte, 20000)
		for k := range noise {
			x := r.Uint32() // few bits are set
			noise[k] = byte(x) & byte(x>>8) & byte(x>>16)
		}
		at := r.Int64N(size / 2)
		out, err := d.segment(newDecoder(noise), got, at, size/2, nil, make([]byte, 0, size/2))
		if err != nil || int64(len(out)) != size/2 {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
		c, fresh := newEncoder(), slices.Clone(out)
		if _, err := d.segment(c, got, at, size/2, fresh, make([]byte, 0, size/2)); err != nil {
			t.Fatal(err)
		}
		if out, err = d.segment(newDecoder(c.finish()), got, at, size/2, nil, make([]byte, 0, size/2)); err != nil || !bytes.Equal(out, fresh) {
			t.Fatalf("a segment does not come back: %v", err)
		}
	}
}

// TestRunsByPlace: runs are ordered by their places in the base, of one place the longest first.
func TestRunsByPlace(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 61))
	for range 200 {
		m := &moves{}
		for range r.IntN(60) {
			m.runs = append(m.runs, run{n: uint32(len(m.runs)), o: uint32(r.IntN(8)) << 29, l: 1 + uint32(r.IntN(4))})
		}
		m.sort()
		want := make([]uint32, len(m.runs))
		for i := range want {
			want[i] = uint32(i)
		}
		slices.SortStableFunc(want, func(a, b uint32) int {
			return cmp.Or(cmp.Compare(m.runs[a].o, m.runs[b].o), cmp.Compare(m.runs[b].l, m.runs[a].l))
		})
		if !slices.Equal(m.byOld, want) {
			t.Fatalf("%v: %v, want %v", m.runs, m.byOld, want)
		}
	}
}
