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
	was, rep := uint64(0), 1
	for at := 0; at < len(b); {
		n, dist := 0, 0
		if f != nil {
			n, dist = f.next(at, rep)
		}
		isMatch := uint64(0)
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
		again := uint64(0)
		if dist == rep {
			again = 1
		}
		if l.bit(&l.match[4+was>>1], again) == 1 {
			dist = rep
			n = int(min(l.num(uint64(max(n-minAgain, 0)), numAgain), MaxSegment)) + minAgain
		} else {
			n = int(min(l.num(uint64(max(n-minMatch, 0)), numMatch), MaxSegment)) + minMatch
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
	t, u := &l.literal[p1], &l.literal[1<<8+mix3(3, p1, p2, 0)>>(32-litBits)]
	l.states, b[at] = l.bytes(l.states, t, u, b[at])
}

// distance codes how far back a match is, minus one.
func (l *lightCoder) distance(v uint64, id int) uint64 {
	n := l.size(l.far[id][:], uint64(bits.Len64(v)))
	if n < 2 {
		return n
	}
	tail := min(n-1, 3) // of the bits but the first, the last few are not alike
	r := l.rest(1, v>>tail, int(n-1-tail))
	last := uint64(0)
	l.states, last = l.symbol(l.states, &l.tail[tail], v&(1<<tail-1))
	return r<<tail | last&(1<<tail-1)
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
