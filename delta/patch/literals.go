package patch

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// literals codes b, what no cover gives, with matches among itself.
func (l *lightCoder) literals(b []byte) error {
	var f *finder
	if l.enc {
		f = newFinder(b)
	}
	was, rep := 0, 1
	for at := 0; at < len(b); {
		n, dist := 0, 0
		if f != nil {
			n, dist = f.next(at, rep)
		}
		isMatch := 0
		if n > 0 {
			isMatch = 1
		}
		isMatch = l.bit(&l.match[was], isMatch)
		was = was<<1&3 | isMatch
		if isMatch == 0 {
			l.lit(b, at)
			at++
			continue
		}
		again := 0
		if dist == rep {
			again = 1
		}
		if l.bit(&l.match[4+was>>1], again) == 1 {
			dist = rep
			n = int(l.num(uint64(max(n-minAgain, 0)), numAgain)) + minAgain
		} else {
			n = int(l.num(uint64(max(n-minMatch, 0)), numMatch)) + minMatch
			dist = int(l.distance(uint64(max(dist-1, 0)), min(n-minMatch, 3))) + 1
		}
		if dist > at || n > len(b)-at {
			return fmt.Errorf("%w: match of %d bytes, %d back", ErrCorrupt, n, dist)
		}
		rep = dist
		if !l.enc {
			for i := range n {
				b[at+i] = b[at+i-dist]
			}
		}
		at += n
	}
	return nil
}

// lit codes b[at].
func (l *lightCoder) lit(b []byte, at int) {
	p1, p2 := uint32(0), uint32(0)
	if at > 0 {
		p1 = uint32(b[at-1])
	}
	if at > 1 {
		p2 = uint32(b[at-2])
	}
	s := l.literal[p1<<8:][:256]
	t := l.literal[1<<16+mix3(3, p1, p2, 0)>>(32-litBits+8)<<8:][:256]
	b[at] = l.trees((*[256]prob)(s), (*[256]prob)(t), b[at])
}

// trees is tree with the mean of two trees.
func (l *lightCoder) trees(t, u *[256]prob, v byte) byte {
	k := uint64(1)
	if l.enc {
		for i := 7; i >= 0; i-- {
			k = k<<1 | uint64(l.pair(&t[k&255], &u[k&255], int(v>>i&1)))
		}
		return byte(k)
	}
	s := l.interval
	for range 8 {
		p, q := &t[k&255], &u[k&255]
		var ones uint64
		if s, ones = s.under(uint64((uint32(*p) + uint32(*q)) >> 1)); s.size < narrow {
			s = l.refill(s)
		}
		*p, *q = p.moved(ones), q.moved(ones)
		k = k<<1 - ones
	}
	l.interval = s
	return byte(k)
}

// distance codes how far back a match is, minus one.
func (l *lightCoder) distance(v uint64, id int) uint64 {
	n := bits.Len64(v)
	k := 1
	for i := 4; i >= 0; i-- { // its length in bits
		k = k<<1 | l.bit(&l.far[id<<6|k], n>>i&1)
	}
	n = k & 31
	r := uint64(0)
	if n > 0 {
		r = 1
	}
	for i := n - 2; i >= 0; i-- {
		b := int(v >> uint(i) & 1)
		if i < 3 {
			b = l.bit(&l.tail[1<<(2-i)|int(r&(1<<(2-i)-1))], b)
		} else {
			b = l.code(b, 1<<15)
		}
		r = r<<1 | uint64(b)
	}
	return r
}

const (
	minMatch = 4
	minAgain = 2
)

// finder finds matches within literals.
type finder struct {
	b    []byte
	head []int32
	prev []int32
	at   int // what is in the tables
}

func newFinder(b []byte) *finder {
	return &finder{b: b, head: make([]int32, 1<<16), prev: make([]int32, len(b))}
}

func (f *finder) insert(to int) {
	for ; f.at < to && f.at+minMatch <= len(f.b); f.at++ {
		h := binary.LittleEndian.Uint32(f.b[f.at:]) * 0x9E3779B1 >> 16
		f.prev[f.at], f.head[h] = f.head[h], int32(f.at+1)
	}
}

// best returns the match at at that saves the most.
func (f *finder) best(at, rep int) (n, dist int) {
	f.insert(at)
	if rep <= at {
		if n = common(f.b[at-rep:], f.b[at:]); n < minAgain {
			n = 0
		}
		dist = rep
	}
	if at+minMatch > len(f.b) {
		return n, dist
	}
	h := binary.LittleEndian.Uint32(f.b[at:]) * 0x9E3779B1 >> 16
	least := max(n+2, minMatch)
	for k, tries := f.head[h], 0; k > 0 && tries < 64; k, tries = f.prev[k-1], tries+1 {
		p := int(k - 1)
		if m := common(f.b[p:], f.b[at:]); m >= least && (m > minMatch+1 || at-p < 1<<14) {
			n, dist, least = m, at-p, m+1
			if m > 256 {
				break
			}
		}
	}
	return n, dist
}

// next is best, or nothing where a literal and the match behind it are better.
func (f *finder) next(at, rep int) (n, dist int) {
	if n, dist = f.best(at, rep); n > 0 && n < 64 && at+1 < len(f.b) {
		if m, d := f.best(at+1, rep); m > n+1 || d == rep && m > n && dist != rep {
			return 0, 0
		}
	}
	return n, dist
}
