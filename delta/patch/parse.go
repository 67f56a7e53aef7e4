package patch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"updraft/delta/patch/internal/layer"
)

// shingles are the pairs of neighbouring rows of parses, as far as a filter of B. H. Bloom's
// kind (1970; here with one hash) tells.
type shingles struct {
	bits []uint64
	buf  []byte
}

const (
	shingleBits = 26
	parseRow    = 8 // bytes of a row of a parse
	newRow      = 2 // bytes that a row which is not in the base takes in a patch, about
)

// each calls f with the hash of each pair of rows of member i.
func (s *shingles) each(f *found, i int, do func(h uint64)) error {
	m := &f.ms[i]
	le := binary.LittleEndian
	for at := int64(0); at < m.Parse; at += int64(len(s.buf)) - parseRow {
		s.buf = grow(s.buf, int(min(64<<10, m.Parse-at)))
		if err := readWhole(f.spools.Parse, s.buf, m.ParseAt+at); err != nil {
			return err
		}
		for b := s.buf; len(b) >= 2*parseRow; b = b[parseRow:] {
			do((le.Uint64(b)*0x9E3779B97F4A7C15 ^ le.Uint64(b[parseRow:])) * 0xD6E8FEB86659FD93 >> (64 - shingleBits))
		}
		if int64(len(s.buf)) == m.Parse-at {
			break
		}
	}
	return nil
}

// strange closes those frames of new whose parse, to be told, would take about as much
// as they do, since the base has nothing like it.
func strange(old, new *found) error {
	s := &shingles{}
	for i := range old.ms {
		if !old.ms[i].Wrap.Parsed() {
			continue
		}
		if s.bits == nil {
			s.bits = make([]uint64, 1<<shingleBits/64)
		}
		if err := s.each(old, i, func(h uint64) { s.bits[h/64] |= 1 << (h % 64) }); err != nil {
			return err
		}
	}
	for i := range new.ms {
		m := &new.ms[i]
		if !new.open[i] || !m.Wrap.Parsed() {
			continue
		}
		unknown := int64(0)
		if s.bits == nil {
			unknown = m.Parse / parseRow
		} else if err := s.each(new, i, func(h uint64) { unknown += int64(1 - s.bits[h/64]>>(h%64)&1) }); err != nil {
			return err
		}
		if unknown*newRow > m.Packed-m.Packed/8 {
			new.open[i] = false
		}
	}
	return nil
}

// joins reports whether member i, a frame, is made again of its plain bytes and its parse.
func (f *found) joins(i int) (bool, error) {
	m := &f.ms[i]
	is := &same{src: f.src, off: m.Off, left: m.Packed}
	err := m.Wrap.Join(is, io.NewSectionReader(f.spools.Plain, m.Spool, m.Plain), io.NewSectionReader(f.spools.Parse, m.ParseAt, m.Parse))
	if errors.Is(err, errDiffers) || errors.Is(err, layer.ErrCorrupt) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("patch: analyse: %w", err)
	}
	return is.left == 0, nil
}

var errDiffers = errors.New("patch: what is written differs")

// same compares what is written to it with a part of a stream.
type same struct {
	src       Source
	off, left int64
	buf       []byte
}

// Write implements io.Writer. errDiffers: it is not the same.
func (s *same) Write(b []byte) (int, error) {
	if int64(len(b)) > s.left {
		return 0, errDiffers
	}
	s.buf = grow(s.buf, len(b))
	if err := readWhole(s.src, s.buf, s.off); err != nil {
		return 0, err
	}
	if !bytes.Equal(s.buf, b) {
		return 0, errDiffers
	}
	s.off += int64(len(b))
	s.left -= int64(len(b))
	return len(b), nil
}

// parseRoom is how much of a parse a piece in front of the parses may want: with one
// piece more, and what is left of a unit, it fits into a decoder's queue.
const parseRoom = 640 << 10

// errLong reports frames, or parses of them, that are too much for a decoder.
var errLong = errors.New("patch: long frames")

// need returns how much of the parses of layer l must have come before so many bytes of
// the view are taken, and how much is used up then at least.
func (u *unpacking) need(l int, to int64) (need, used int64) {
	least, most := to, to
	for i := len(u.views) - 1; i > l; i-- {
		least, _ = u.views[i].Made(least)
		_, most = u.views[i].Made(most)
	}
	need, _ = u.views[l].Need(most)
	_, used = u.views[l].Need(least)
	return need, used
}

// arrange puts pieces of the view into the order in which they are decoded: parses in
// front of the plain bytes that want them, and not long in front. ErrTooLarge: no such
// order is found.
func (u *unpacking) arrange(in []piece, size int64) ([]piece, error) {
	ends := u.recipe.regions(size)
	var queues [maxLayers + 1][]piece
	for _, p := range in {
		for r := range ends {
			if end := int(min(int64(p.hi), ends[r])); p.lo < end {
				queues[r] = append(queues[r], p.to(end, byte(r)))
				p = p.behind(end)
			}
		}
	}
	for r := 1; r < len(queues); r++ {
		queues[r] = shorter(queues[r], maxParse)
	}
	var given [maxLayers]int64
	var out []piece
	for _, p := range queues[0] {
		for p.lo < p.hi {
			end := u.reach(p)
			if end == p.lo {
				return nil, errLong
			}
			for l := range u.views {
				need, _ := u.need(l, int64(end))
				for q := &queues[l+1]; given[l] < need; *q = (*q)[1:] {
					given[l] += int64((*q)[0].hi - (*q)[0].lo)
					out = append(out, (*q)[0])
				}
			}
			out = append(out, p.to(end, 0))
			p = p.behind(end)
		}
	}
	return out, nil
}

// reach returns how far of p may be decoded at once.
func (u *unpacking) reach(p piece) int {
	fits := func(to int) bool {
		for l := range u.views {
			_, used := u.need(l, int64(p.lo))
			if need, _ := u.need(l, int64(to)); need-used > parseRoom {
				return false
			}
		}
		return true
	}
	if fits(p.hi) {
		return p.hi
	}
	return p.lo + sort.Search(p.hi-p.lo, func(n int) bool { return !fits(p.lo + n + 1) })
}

// to returns the part of p in front of end.
func (p piece) to(end int, region byte) piece {
	p.hi, p.region = end, region
	return p
}

// behind returns the part of p from at on.
func (p piece) behind(at int) piece {
	p.from += at - p.lo
	p.lo = at
	return p
}

// shorter cuts pieces into ones of at most size bytes.
func shorter(in []piece, size int) []piece {
	var out []piece
	for _, p := range in {
		for p.hi-p.lo > size {
			out = append(out, p.to(p.lo+size, p.region))
			p = p.behind(p.lo + size)
		}
		out = append(out, p)
	}
	return out
}
