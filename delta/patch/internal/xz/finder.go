package xz

import (
	"encoding/binary"

	"updraft/delta/patch/internal/parse"
)

const (
	near     = parse.Near // how far back the finder looks
	hash2    = 14         // bits
	hash3    = 15
	hash4    = parse.ChainBits
	maxChain = 16 // places with the same four bytes that are looked at
)

// place is how many bytes agree with those so far back.
type place struct{ length, distance uint32 }

// finder knows where the same bytes were, much as a compressor does: the last place
// with the same two bytes, with the same three, and the last ones with the same four.
type finder struct {
	last2 [1 << hash2]uint32
	last3 [1 << hash3]uint32
	four  parse.Chain
	base  uint32 // the position of buf[0]
	next  int    // buf[:next] is known
	found [2 + maxChain]place
}

// reset forgets all; the next bytes are at buf[0].
func (f *finder) reset() {
	clear(f.last2[:])
	clear(f.last3[:])
	f.four.Reset()
	// So that positions not known yet, which are 0, are too far back.
	f.base, f.next = near+1, 0
}

// slide says that the first n bytes of buf were dropped.
func (f *finder) slide(n int) {
	f.base += uint32(n)
	f.next -= n
}

const multiplier = 2654435761

// hashes returns where the first two, three and four bytes of v are looked up.
func hashes(v uint32) (h2, h3, h4 uint32) {
	return v & 0xffff * multiplier >> (32 - hash2), v & 0xffffff * multiplier >> (32 - hash3), v * multiplier >> (32 - hash4)
}

// learn makes buf[:to] known; there are three bytes behind these.
func (f *finder) learn(buf []byte, to int) {
	for ; f.next < to; f.next++ {
		at := f.base + uint32(f.next)
		h2, h3, h4 := hashes(binary.LittleEndian.Uint32(buf[f.next:]))
		f.last2[h2], f.last3[h3] = at, at
		f.four.Enter(h4, at)
	}
}

// find returns the places that agree with buf[at:end], the nearest first and each longer
// than the one before. Not more than reach bytes in front of at may be looked at.
func (f *finder) find(buf []byte, at, end int, reach uint64) []place {
	if end-at < 4 {
		return nil
	}
	f.learn(buf, at)
	pos := f.base + uint32(at)
	reach = min(reach, near)
	h2, h3, h4 := hashes(binary.LittleEndian.Uint32(buf[at:]))
	most := min(maxMatch, end-at)
	n, best := 0, minMatch-1
	try := func(distance uint32) {
		if uint64(distance) > reach || best == most || buf[at-int(distance)+best] != buf[at+best] {
			return
		}
		if k := parse.Agree(buf[at-int(distance):], buf[at:], most); k > best {
			best = k
			f.found[n] = place{uint32(k), distance}
			n++
		}
	}
	try(pos - f.last2[h2])
	try(pos - f.last3[h3])
	distance := pos - f.four.Last(h4)
	for range maxChain {
		if uint64(distance) > reach || best == most {
			break
		}
		try(distance)
		step := f.four.Step(pos - distance)
		if step == 0 {
			break
		}
		distance += step
	}
	return f.found[:n]
}
