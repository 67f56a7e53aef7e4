package patch

import (
	"bytes"
	"context"
	"io"
	"slices"
)

// rounds is how often programs are matched again: each round knows better than the one
// before where things went.
const rounds = 2

// findPrograms returns where the programs of both are.
func findPrograms(ctx context.Context, old []byte, fresh Source) (*moves, error) {
	m := &moves{}
	var err error
	if m.old, err = findImages(ctx, bytes.NewReader(old)); err != nil {
		return nil, err
	}
	m.new, err = findImages(ctx, fresh)
	return m, err
}

// matchPrograms matches again what is in the programs m of old and fresh, with references in
// place of the bytes that say them: two calls of the same function agree wherever they
// are. Dense segments predict references, so that what agrees in this way costs them
// little; and tables of them, of which no two bytes in a row stay, are seen to have
// moved. It has one program of the base in memory at a time.
func matchPrograms(ctx context.Context, m *moves, old, fresh Source, cs []cover, o job) ([]cover, error) {
	size := int64(0)
	for i := range m.new {
		size += m.new[i].end - m.new[i].off
	}
	o.meter.stage(sharePrograms, rounds*size)
	p := &mapper{}
	for range rounds {
		m.set(cs)
		m.sort()
		var again []cover
		for i, k := range m.origins() {
			if k < 0 {
				continue
			}
			a, b := m.old[k].withTables(old, nil), m.new[i].withTables(fresh, nil)
			same, err := equal(a.in(old), b.in(fresh))
			if err != nil {
				return nil, err
			}
			if same {
				continue
			}
			p.reset(m)
			p.enter(a, b)
			x, err := readAll(ctx, newAbsolute(old, a, func(v uint64) uint64 {
				if t, _, ok := p.mapped(v); ok {
					return t
				}
				return v
			}))
			if err != nil {
				return nil, err
			}
			y := newAbsolute(fresh, b, func(v uint64) uint64 { return v })
			found, err := covers(ctx, x, y, min(o.Memory, indexMemory(int64(len(x))+y.Size())), o.meter)
			if err != nil {
				return nil, err
			}
			for _, c := range found {
				again = append(again, cover{c.n + int(b.off), c.o + int(a.off), c.l})
			}
		}
		cs = fill(again, cs)
	}
	return cs, nil
}

// set makes cs the runs.
func (m *moves) set(cs []cover) {
	m.runs = m.runs[:0]
	for _, c := range cs {
		m.runs = append(m.runs, run{uint32(c.n), uint32(c.o), uint32(c.l)})
	}
}

// origins returns for each program of the output the one of the base that most of it
// comes from, or -1.
func (m *moves) origins() []int {
	out := make([]int, len(m.new))
	best := make([]int64, len(m.new))
	score := map[[2]int]int64{}
	for i := range out {
		out[i] = -1
	}
	for _, r := range m.runs {
		i, k := imageAt(m.new, int64(r.n)), imageAt(m.old, int64(r.o))
		if i < 0 || k < 0 || m.new[i].mach != m.old[k].mach {
			continue
		}
		s := score[[2]int{i, k}] + int64(r.l)
		score[[2]int{i, k}] = s
		if s > best[i] {
			out[i], best[i] = k, s
		}
	}
	return out
}

// imageAt returns the index of the image that off is in, or -1.
func imageAt(ims []image, off int64) int {
	i, found := slices.BinarySearchFunc(ims, off, func(im image, off int64) int {
		if im.off <= off {
			return -1
		}
		return 1
	})
	if found || i == 0 || off >= ims[i-1].end {
		return -1
	}
	return i - 1
}

// trim drops programs that stay as they are, and those of the base that nothing else
// comes from: nothing in them needs to be predicted.
func (m *moves) trim(old, fresh Source) error {
	used := make([]bool, len(m.old))
	keep := m.new[:0]
	for _, im := range m.new {
		i := searchRuns(m.runs, im.off)
		if i < len(m.runs) {
			r := m.runs[i]
			if o := int64(r.o) + im.off - int64(r.n); im.off >= int64(r.n) && im.end <= int64(r.n)+int64(r.l) {
				same, err := equal(io.NewSectionReader(old, o, im.end-im.off), im.in(fresh))
				if err != nil {
					return err
				}
				if same {
					continue
				}
			}
		}
		keep = append(keep, im)
		for ; i < len(m.runs) && int64(m.runs[i].n) < im.end; i++ {
			r := m.runs[i]
			d := int64(r.o) - int64(r.n)
			lo, hi := max(int64(r.n), im.off)+d, min(int64(r.n)+int64(r.l), im.end)+d
			for k := max(imageAt(m.old, lo), 0); k < len(m.old) && m.old[k].off < hi; k++ {
				if lo < m.old[k].end {
					used[k] = true
				}
			}
		}
	}
	m.new = keep
	kept := m.old[:0]
	for k, im := range m.old {
		if used[k] {
			kept = append(kept, im)
		}
	}
	m.old = kept
	return nil
}

// equal reports whether a and b are the same.
func equal(a, b Source) (bool, error) {
	if a.Size() != b.Size() {
		return false, nil
	}
	var x, y [64 << 10]byte
	for off := int64(0); off < a.Size(); off += int64(len(x)) {
		n := min(int64(len(x)), a.Size()-off)
		if err := readWhole(a, x[:n], off); err != nil {
			return false, err
		}
		if err := readWhole(b, y[:n], off); err != nil {
			return false, err
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// fill returns first, and of others what gives bytes that first does not.
func fill(first, others []cover) []cover {
	out := make([]cover, 0, len(first)+len(others))
	k := 0
	for _, c := range others {
		for {
			for k < len(first) && first[k].n+first[k].l <= c.n {
				out = append(out, first[k])
				k++
			}
			if k == len(first) || first[k].n >= c.n+c.l {
				break
			}
			if d := first[k].n - c.n; d > 0 {
				out = append(out, cover{c.n, c.o, d})
			}
			d := first[k].n + first[k].l - c.n
			if d >= c.l {
				c.l = 0
				break
			}
			c.n, c.o, c.l = c.n+d, c.o+d, c.l-d
		}
		if c.l > 0 {
			out = append(out, c)
		}
	}
	return append(out, first[k:]...)
}
