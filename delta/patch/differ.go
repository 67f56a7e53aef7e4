package patch

import (
	"encoding/binary"
	"math/bits"
)

// differ codes how out, which holds bytes of the base and is at offset at of the output,
// differs from fresh (encoding), and makes it so (decoding).
func (l *lightCoder) differ(out, fresh []byte, at int64) {
	l.wh = 0
	s := l.states
	for len(out) > 0 {
		n := min(lightBlock-int(at)&(lightBlock-1), len(out))
		dirty := uint64(0)
		if l.enc && string(out[:n]) != string(fresh[:n]) {
			dirty = 1
		}
		p := &l.blocks[l.bh&1023]
		if l.enc {
			l.note(*p, dirty)
		} else {
			if s, dirty = s.under(uint64(*p)); s.y < lowest {
				s = l.refill(s)
			}
			dirty &= 1
		}
		*p = p.moved(-dirty)
		l.bh = l.bh<<1 | uint32(dirty)
		switch {
		case dirty == 0:
			l.wh <<= 2
		case l.enc:
			s = l.block(s, out[:n], fresh[:n], int(at&3))
		default:
			s = l.block(s, out[:n], nil, int(at&3))
			if l.account != nil {
				l.account.block(int(at), int(at)+n, -len(l.buf))
			}
		}
		if l.enc {
			fresh = fresh[n:]
		}
		out, at = out[n:], at+int64(n)
	}
	l.states = s
}

// block codes b, which differs somewhere: first which of its words do, then how. Its
// first byte is byte at of a word.
func (l *lightCoder) block(s states, b, fresh []byte, at int) states {
	var old, by [lightBlock / 4]uint32
	n := words(&old, b, at)
	differ := uint32(0)
	if l.enc {
		words(&by, fresh, at)
		for i := range n {
			if by[i] = lanes(by[i], old[i]); by[i] != 0 {
				differ |= 1 << i
			}
		}
	}
	s, differ = l.which(s, old[:n], differ)
	for ; differ != 0; differ &= differ - 1 {
		i := bits.TrailingZeros32(differ) & (len(old) - 1)
		lo, hi := max(4*i-at, 0), min(4*i+4-at, len(b))
		var v uint32
		s, v = l.word(s, old[i], by[i], hi-lo)
		if hi-lo == 4 {
			binary.LittleEndian.PutUint32(b[lo:], plus(old[i], v))
			continue
		}
		for k := lo; k < hi; k++ {
			b[k] += byte(v)
			v >>= 8
		}
	}
	return s
}

// words puts the words of b, the first and last of which may be cut short, into w.
func words(w *[lightBlock / 4]uint32, b []byte, at int) int {
	if at == 0 && len(b) == lightBlock {
		for i := range w {
			w[i] = binary.LittleEndian.Uint32(b[4*i:])
		}
		return len(w)
	}
	n := 0
	if at > 0 {
		first := min(4-at, len(b))
		w[0], n, b = wordOf(b[:first]), 1, b[first:]
	}
	for ; len(b) >= 4 && n < len(w); n++ {
		w[n], b = binary.LittleEndian.Uint32(b), b[4:]
	}
	if len(b) > 0 && n < len(w) {
		w[n] = wordOf(b)
		n++
	}
	return n
}

// wordOf returns the word of which b has the first bytes.
func wordOf(b []byte) (w uint32) {
	for i, x := range b {
		w |= uint32(x) << (8 * i)
	}
	return w
}

// which codes which words of a block differ, a bit for each. At least one does.
func (l *lightCoder) which(s states, old []uint32, differ uint32) (states, uint32) {
	got, wh, before := uint32(0), l.wh, uint32(0)
	for i, w := range old {
		if i == len(old)-1 && got == 0 {
			got = 1 << i
			wh = wh<<1 | 1
			break
		}
		a, b := &l.words[w>>24<<4|wh&15], &l.exact[mix3(1, w, before>>24, 0)>>18]
		p := (uint32(*a) + uint32(*b)) >> 1
		ones := -uint64(differ >> i & 1)
		if l.enc {
			l.note(prob(p), ones)
		} else if s, ones = s.under(uint64(p)); s.y < lowest {
			s = l.refill(s)
		}
		*a, *b = a.moved(ones), b.moved(ones)
		got |= uint32(ones&1) << i
		wh, before = wh<<1|uint32(ones&1), w
	}
	l.wh = wh
	return s, got
}

// plus returns the sums of a and b, byte by byte.
func plus(a, b uint32) uint32 {
	return (a&^0x80808080 + b&^0x80808080) ^ (a^b)&0x80808080
}

// lanes returns the differences of a to b, byte by byte.
func lanes(a, b uint32) uint32 {
	return ((a | 0x80808080) - (b &^ 0x80808080)) ^ ((a ^ ^b) & 0x80808080)
}

// word codes the difference by of n bytes of word old: as this word, or words like it,
// differed before, or else byte by byte.
func (l *lightCoder) word(s states, old, by uint32, n int) (states, uint32) {
	class := old >> 24
	y := &l.byClass[class]
	if n < 4 {
		return l.spell(s, &l.cut[n&3], by, y[0])
	}
	x := &l.byWord[mix3(2, old, 0, 0)>>20]
	guesses := [3]uint32{0, y[0], y[1]}
	if x.key == old {
		guesses[0] = x.by
	}
	hit := uint64(0)
	for id, v := range guesses {
		if v == 0 || id > 0 && v == guesses[0] || id > 1 && v == guesses[1] {
			continue
		}
		if v == by {
			hit = 1
		}
		p := &l.hits[(uint32(id)<<6|class>>2)&255]
		s, hit = l.decide(s, *p, hit)
		if *p = p.moved(-hit); hit != 0 {
			by = v
			break
		}
	}
	if hit == 0 {
		s, by = l.spell(s, &l.some[class], by, y[0])
	}
	*x = wordChange{old, by}
	if y[0] != by {
		y[0], y[1] = by, y[0]
	}
	return s, by
}

// spell codes the bytes of by: which of them are not 0, by t, then those, in the context
// of what is in their place in like.
func (l *lightCoder) spell(s states, t *symbols, by, like uint32) (states, uint32) {
	s, set := l.symbol(s, t, some(by))
	d := uint32(0)
	for ; set != 0; set &= set - 1 {
		i := bits.TrailingZeros64(set) & 3
		var v byte
		s, v = l.byte(s, &l.value[i<<8|int(like>>(8*i)&255)], byte(by>>(8*i)))
		d |= uint32(v) << (8 * i)
	}
	return s, d
}

// some returns which of the bytes of v are not 0, a bit for each.
func some(v uint32) (set uint64) {
	for i := range 4 {
		if v>>(8*i)&255 != 0 {
			set |= 1 << i
		}
	}
	return set
}
