package deflate

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// search returns the settings that need the least corrections at the stream's
// beginning. Those that are equal there are compared over longer and longer
// beginnings.
func (a *analysis) search(o Options) (Params, error) {
	cands, err := a.candidates(o)
	if err != nil {
		return Params{}, err
	}
	for most := int64(firstTrial); ; most *= 8 {
		var all bool
		cands, all, err = a.trial(cands, most)
		if err != nil {
			return Params{}, err
		}
		if len(cands) == 1 || all {
			return cands[0], nil
		}
	}
}

// trial returns those of cands that need the fewest bytes of corrections for the
// first most tokens. all: the stream has no more.
func (a *analysis) trial(cands []Params, most int64) (best []Params, all bool, err error) {
	a.most, a.cost = most, math.MaxInt
	read := int64(0)
	for _, c := range cands {
		err := a.run(c)
		if err != nil && !errors.Is(err, errEnough) {
			if errors.Is(err, ErrForeign) {
				continue
			}
			return nil, false, err
		}
		n := a.note.len()
		switch {
		case len(best) > 0 && n > a.cost:
			continue
		case n < a.cost || len(best) == 0:
			best, a.cost, read = nil, n, a.p.offset()-a.off
		}
		best = append(best, c)
		all = err == nil
	}
	if len(best) == 0 {
		return nil, false, fmt.Errorf("deflate: %w", ErrForeign)
	}
	if int64(a.cost) > slack+read/2 {
		return nil, false, fmt.Errorf("deflate: %w", ErrForeign)
	}
	return best, all, nil
}

// candidates lists settings that the first block allows.
func (a *analysis) candidates(o Options) ([]Params, error) {
	n, whole, dist, err := a.firstBlock()
	if err != nil {
		return nil, err
	}
	window := o.Window
	if window < 9 || window > 15 {
		window = 15
	}
	kinds := []Params{{Family: Zlib, Memory: 8}, {Family: Gzip, Memory: 8}, {Family: Zlib, Memory: 9}}
	golang := Params{Family: Golang, Memory: 8}
	if !whole || n == 0 {
		kinds = append(kinds, golang)
	}
	if !whole {
		switch {
		case n == 1<<15-1:
			kinds = []Params{{Family: Gzip, Memory: 8}, {Family: Zlib, Memory: 9}}
		case n == 1<<14-1:
			kinds = kinds[:1]
		case n == goSymbols:
			kinds = []Params{golang, kinds[1]}
		case n > 0 && n&0xfff == 0:
			kinds = kinds[1:2]
		case n > 0 && (n+1)&n == 0 && n >= 127:
			m := uint8(1)
			for 1<<(m+6) != n+1 {
				m++
			}
			kinds = []Params{{Family: Zlib, Memory: m}}
		}
	}
	var out []Params
	add := func(k Params, s Strategy, levels ...uint8) {
		for _, l := range levels {
			k.Level, k.Window, k.Strategy = l, window, s
			if k.check() == nil {
				out = append(out, k)
			}
		}
	}
	for _, k := range kinds {
		if dist == 0 {
			add(k, HuffmanOnly, 6)
		}
		add(k, Default, 6, 9, 1, 2, 3, 4, 5, 7, 8)
		if k.Family == Zlib {
			add(k, Filtered, 6, 9)
			add(k, Fixed, 6, 9)
			if dist == 1 {
				add(k, RunLength, 6)
			}
		}
	}
	return out, nil
}

// firstBlock counts the tokens of the first block that is not stored, and tells
// whether it is the last, and the longest distance in it.
func (a *analysis) firstBlock() (n int, last bool, dist int, err error) {
	a.p.reset(a.src, a.off, a.end)
	for {
		b, err := a.p.next()
		if errors.Is(err, io.EOF) {
			return n, true, dist, nil
		}
		if err != nil {
			return 0, false, 0, err
		}
		if b.kind == kindStored {
			var buf [512]byte
			for b.stored > 0 {
				k, err := a.p.bytes(buf[:min(b.stored, len(buf))])
				if err != nil {
					return 0, false, 0, err
				}
				b.stored -= k
			}
			continue
		}
		for n < maxTokens {
			t, err := a.p.token()
			if err != nil {
				return 0, false, 0, err
			}
			if t == tokenEnd {
				return n, b.final, dist, nil
			}
			n++
			if t.isMatch() {
				dist = max(dist, t.dist())
			}
		}
		return 0, false, 0, fmt.Errorf("deflate: %w: long block", ErrForeign)
	}
}
