package xz

import (
	"fmt"

	"updraft/delta/patch/internal/parse"
)

// relation puts rows into the form of the parse, and back. There a match is told by how
// it differs from what a compressor would most likely take, so that rows are nearly
// the same wherever bytes are, and mostly zeros: its distance is 0 if it is the nearest
// place for its length that the finder has, and its length is how much is missing to the
// longest match, there or, if the distance is told, at that distance.
type relation struct {
	finder
	recent [4]uint32 // the last distances
}

// forget is for a chunk that resets the state.
func (x *relation) forget() { x.recent = [4]uint32{1, 1, 1, 1} }

// turn makes distance d, or that of a repeated match, the last one.
func (x *relation) turn(r row) uint32 {
	k := 3
	d := r.distance
	if r.kind != rowMatch {
		k = int(r.kind - rowRep)
		d = x.recent[k]
	}
	copy(x.recent[1:k+1], x.recent[:k])
	x.recent[0] = d
	return d
}

// relate changes rows to the form of the parse. They stand for buf[from:to], and there
// are pos bytes in front of these that they may refer to.
func (x *relation) relate(rows, buf []byte, from, to int, pos uint64) {
	at := from
	for ; len(rows) > 0; rows = rows[rowSize:] {
		r := parseRow(rows)
		n := int(r.plain() - r.literals)
		at += int(r.literals)
		if r.length > 0 {
			d, most := x.turn(r), uint32(0)
			if r.kind == rowMatch {
				r.distance, most = x.nearest(r, x.find(buf, at, to, pos+uint64(at-from)))
			}
			if most == 0 && d <= keep {
				most = x.longest(buf, at, to, d)
			}
			if most > 0 {
				r.length = most - r.length + minMatch
			}
			r.append(rows[:0])
		}
		at += n
	}
	x.learn(buf, max(x.next, to-3))
}

// nearest returns 0 and the longest match of places, if r's is among them.
func (x *relation) nearest(r row, places []place) (distance, most uint32) {
	for _, p := range places {
		if p.length >= r.length {
			if p.distance != r.distance {
				break
			}
			return 0, places[len(places)-1].length
		}
	}
	return r.distance, 0
}

// longest returns how long a match at distance d can be.
func (x *relation) longest(buf []byte, at, to int, d uint32) uint32 {
	return uint32(parse.Agree(buf[at-int(d):], buf[at:], min(maxMatch, to-at)))
}

// resolve undoes what relate did.
func (x *relation) resolve(rows, buf []byte, from, to int, pos uint64) error {
	at := from
	for ; len(rows) > 0; rows = rows[rowSize:] {
		r := parseRow(rows)
		at += int(r.literals)
		if r.kind > rowShort {
			return fmt.Errorf("%w: row % x", ErrCorrupt, rows[:rowSize])
		}
		if r.length > 0 && at < to {
			if err := x.absolute(&r, buf, at, to, pos+uint64(at-from)); err != nil {
				return err
			}
			r.append(rows[:0])
		}
		at += int(r.plain() - r.literals)
		if at > to || r.length > maxMatch {
			return fmt.Errorf("%w: row % x", ErrCorrupt, rows[:rowSize])
		}
	}
	if at < to {
		return fmt.Errorf("%w: %d bytes without a row", ErrCorrupt, to-at)
	}
	x.learn(buf, max(x.next, to-3))
	return nil
}

// absolute makes length and distance of r, which is a match at buf[at:], what they are.
func (x *relation) absolute(r *row, buf []byte, at, to int, pos uint64) error {
	missing := r.length - minMatch
	if r.kind == rowMatch && r.distance == 0 {
		places := x.find(buf, at, to, pos)
		if len(places) == 0 || places[len(places)-1].length < missing+minMatch {
			return fmt.Errorf("%w: no match that long", ErrCorrupt)
		}
		r.length = places[len(places)-1].length - missing
		for _, p := range places {
			if p.length >= r.length {
				r.distance = p.distance
				break
			}
		}
		x.turn(*r)
		return nil
	}
	d := x.turn(*r)
	if uint64(d) > pos {
		return fmt.Errorf("%w: match from %d back", ErrCorrupt, d)
	}
	if d > keep {
		return nil
	}
	most := x.longest(buf, at, to, d)
	if most < missing+minMatch {
		return fmt.Errorf("%w: no match that long at %d", ErrCorrupt, d)
	}
	r.length = most - missing
	return nil
}
