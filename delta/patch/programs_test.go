package patch

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestFill: what is in both comes from the first, in order, without overlap.
func TestFill(t *testing.T) {
	first := []cover{{10, 100, 5}, {20, 200, 10}, {40, 300, 1}}
	others := []cover{{0, 0, 12}, {14, 50, 4}, {21, 60, 3}, {28, 70, 20}, {60, 80, 2}}
	want := []cover{{0, 0, 10}, {10, 100, 5}, {15, 51, 3}, {20, 200, 10}, {30, 72, 10}, {40, 300, 1}, {41, 83, 7}, {60, 80, 2}}
	if got := fill(first, others); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	r := rand.New(rand.NewPCG(5, 6))
	random := func() []cover {
		var cs []cover
		for at := r.IntN(9); at < 1000; at += r.IntN(9) {
			l := 1 + r.IntN(20)
			cs = append(cs, cover{at, r.IntN(1000), l})
			at += l
		}
		return cs
	}
	for range 200 {
		first, others := random(), random()
		from := make([]int, 1200)
		for _, cs := range [][]cover{others, first} {
			for _, c := range cs {
				for i := range c.l {
					from[c.n+i] = c.o + i + 1
				}
			}
		}
		at := 0
		for _, c := range fill(first, others) {
			if c.n < at {
				t.Fatalf("cover %v begins in front of %d", c, at)
			}
			for i := range c.l {
				if from[c.n+i] != c.o+i+1 {
					t.Fatalf("byte %d comes from %d, want %d", c.n+i, c.o+i, from[c.n+i]-1)
				}
				from[c.n+i] = 0
			}
			at = c.n + c.l
		}
		if i := slices.IndexFunc(from, func(o int) bool { return o != 0 }); i >= 0 {
			t.Fatalf("byte %d is left out", i)
		}
	}
}

// TestOrigins: a program comes from where most of it does, if the machine is the same.
func TestOrigins(t *testing.T) {
	at := func(mach uint64, off, n int64) image {
		im := image{off: off, mach: mach, loads: []load{{off: off, n: n, mem: uint64(n)}}}
		im.bounds()
		return im
	}
	m := &moves{
		old:  []image{at(62, 0, 100), at(62, 200, 100), at(40, 400, 100)},
		new:  []image{at(62, 0, 100), at(62, 100, 100), at(62, 300, 50)},
		runs: []run{{0, 200, 30}, {30, 0, 40}, {70, 240, 20}, {110, 400, 60}, {190, 10, 5}, {310, 150, 20}},
	}
	if got, want := m.origins(), []int{1, 0, -1}; !slices.Equal(got, want) {
		t.Errorf("origins %v, want %v", got, want)
	}
}

// TestTrim: programs that stay are not in the index, others are, with where they come
// from.
func TestTrim(t *testing.T) {
	at := func(off int64) image {
		im := image{off: off, mach: machX86, loads: []load{{off: off, n: 100, mem: 100}}}
		im.bounds()
		return im
	}
	old := make([]byte, 1000)
	for i := range old {
		old[i] = byte(i * 7)
	}
	fresh := slices.Clone(old)
	fresh[250]++
	m := &moves{
		old:  []image{at(0), at(200), at(400), at(600)},
		new:  []image{at(0), at(200), at(400), at(600)},
		runs: []run{{0, 0, 300}, {400, 400, 50}, {450, 0, 10}, {460, 460, 40}, {590, 590, 200}},
	}
	if err := m.trim(bytes.NewReader(old), bytes.NewReader(fresh)); err != nil {
		t.Fatal(err)
	}
	offs := func(ims []image) (o []int64) {
		for _, im := range ims {
			o = append(o, im.off)
		}
		return o
	}
	if got := offs(m.new); !slices.Equal(got, []int64{200, 400}) {
		t.Errorf("programs of the output at %v", got)
	}
	if got := offs(m.old); !slices.Equal(got, []int64{0, 200, 400}) {
		t.Errorf("programs of the base at %v", got)
	}
}
