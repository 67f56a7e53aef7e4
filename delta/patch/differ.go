package patch

import (
	"encoding/binary"
	"math/bits"
)

// differ codes how out, which holds bytes of the base and is at offset at of the output,
// differs from fresh (encoding), and makes it so (decoding).
func (l *lightCoder) differ(out, fresh []byte, at int64) {
	l.wh = 0
	for len(out) > 0 {
		n := min(lightBlock-int(at)&(lightBlock-1), len(out))
		dirty := 0
		if l.enc && string(out[:n]) != string(fresh[:n]) {
			dirty = 1
		}
		dirty = l.bit(&l.blocks[l.bh&1023], dirty)
		l.bh = l.bh<<1 | uint32(dirty)
		switch {
		case dirty == 0:
			l.wh <<= 2
		case l.enc:
			l.block(out[:n], fresh[:n], int(at&3))
		default:
			l.block(out[:n], nil, int(at&3))
		}
		if l.enc {
			fresh = fresh[n:]
		}
		out, at = out[n:], at+int64(n)
	}
}

// block codes b, which differs somewhere: first which of its words do, then how. Its
// first byte is byte at of a word.
func (l *lightCoder) block(b, fresh []byte, at int) {
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
	for differ = l.which(old[:n], differ); differ != 0; differ &= differ - 1 {
		i := bits.TrailingZeros32(differ) & (len(old) - 1)
		lo, hi := max(4*i-at, 0), min(4*i+4-at, len(b))
		v := l.word(old[i], by[i], hi-lo)
		if hi-lo == 4 {
			binary.LittleEndian.PutUint32(b[lo:], plus(old[i], v))
			continue
		}
		for k := lo; k < hi; k++ {
			b[k] += byte(v)
			v >>= 8
		}
	}
}

// words puts the words of b, the first and last of which may be cut short, into w.
func words(w *[lightBlock / 4]uint32, b []byte, at int) int {
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
func (l *lightCoder) which(old []uint32, differ uint32) uint32 {
	got, wh, before := uint32(0), l.wh, uint32(0)
	s := l.interval
	for i, w := range old {
		if i == len(old)-1 && got == 0 {
			got = 1 << i
			wh = wh<<1 | 1
			break
		}
		a, b := &l.words[w>>24<<4|wh&15], &l.exact[mix3(1, w, before>>24, 0)>>18]
		ones := uint64(0)
		if l.enc {
			ones = -uint64(l.code(int(differ>>i&1), uint64((uint32(*a)+uint32(*b))>>1)))
		} else {
			if s, ones = s.under(uint64((uint32(*a) + uint32(*b)) >> 1)); s.size < narrow {
				s = l.refill(s)
			}
		}
		*a, *b = a.moved(ones), b.moved(ones)
		got |= uint32(ones&1) << i
		wh, before = wh<<1|uint32(ones&1), w
	}
	if !l.enc {
		l.interval = s
	}
	l.wh = wh
	return got
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
func (l *lightCoder) word(old, by uint32, n int) uint32 {
	class := old >> 24
	y := &l.byClass[class]
	if n < 4 {
		return l.spell(by, n, class, y[0])
	}
	x := &l.byWord[mix3(2, old, 0, 0)>>20]
	tried, hit := uint32(0), false
	if x.key == old && x.by != 0 {
		tried = x.by
		by, hit = l.guess(tried, by, 0, class)
	}
	if !hit && y[0] != 0 && y[0] != tried {
		by, hit = l.guess(y[0], by, 1, class)
	}
	if !hit && y[1] != 0 && y[1] != tried && y[1] != y[0] {
		by, hit = l.guess(y[1], by, 2, class)
	}
	if !hit {
		by = l.spell(by, n, class, y[0])
	}
	*x = wordChange{old, by}
	if y[0] != by {
		y[0], y[1] = by, y[0]
	}
	return by
}

// guess codes whether by, which it returns if so, is v.
func (l *lightCoder) guess(v, by uint32, id, class uint32) (uint32, bool) {
	hit := 0
	if v == by {
		hit = 1
	}
	if l.bit(&l.hits[(id<<6|class>>2)&255], hit) == 0 {
		return by, false
	}
	return v, true
}

// spell codes n bytes of by: which of them are not 0, then those, in the context of
// what is in their place in like.
func (l *lightCoder) spell(by uint32, n int, class, like uint32) uint32 {
	t, set := (*[16]prob)(l.some[class<<4:]), uint32(1)
	for i := range n {
		some := 1
		if i < n-1 || set != 1<<i {
			if by>>(8*i)&255 == 0 {
				some = 0
			}
			some = l.bit(&t[set&15], some)
		}
		set = set<<1 | uint32(some)
	}
	d := uint32(0)
	for i := range uint32(n) {
		if set>>(uint32(n)-1-i)&1 == 1 {
			v := l.tree((*[256]prob)(l.value[(i<<8|like>>(8*i)&255)<<8:]), by>>(8*i)&255)
			d |= v << (8 * i)
		}
	}
	return d
}

// tree codes a byte bit by bit from the highest.
func (l *lightCoder) tree(t *[256]prob, v uint32) uint32 {
	k := uint64(1)
	if l.enc {
		for i := 7; i >= 0; i-- {
			k = k<<1 | uint64(l.bit(&t[k&255], int(v>>i&1)))
		}
		return uint32(k & 255)
	}
	s := l.interval
	for range 8 {
		p := &t[k&255]
		var ones uint64
		if s, ones = s.under(uint64(*p)); s.size < narrow {
			s = l.refill(s)
		}
		*p = p.moved(ones)
		k = k<<1 - ones
	}
	l.interval = s
	return uint32(k & 255)
}
