package xz

import (
	"fmt"

	"updraft/delta/patch/internal/parse"
)

// Control bytes of chunks.
const (
	controlEnd   = 0
	controlFresh = 1 // stored, resets the dictionary
	controlPlain = 2 // stored
	controlLZMA  = 0x80

	resetNothing    = 0
	resetState      = 1
	resetProperties = 2
	resetDictionary = 3
)

var errEarly = fmt.Errorf("%w: chunk ends early", ErrFormat)

// chunks reads the chunks of a block.
func (s *splitter) chunks() error {
	dictionary, properties := false, false
	for {
		b, err := s.in.take(1)
		if err != nil {
			return err
		}
		control := b[0]
		fresh := control == controlFresh || control >= controlLZMA|resetDictionary<<5
		if fresh {
			dictionary, properties = true, false
			s.pos = 0
		}
		if control >= controlLZMA|resetProperties<<5 {
			properties = true
		}
		switch {
		case control == controlEnd:
			return nil
		case control < controlLZMA && control > controlPlain, !dictionary, control >= controlLZMA && !properties:
			return fmt.Errorf("%w: control byte %02x", ErrFormat, control)
		case control < controlLZMA:
			err = s.stored(control)
		default:
			err = s.lzma(control)
		}
		if err == nil {
			err = s.flush()
		}
		if err != nil {
			return err
		}
	}
}

// stored reads a chunk that is not compressed.
func (s *splitter) stored(control byte) error {
	b, err := s.in.take(2)
	if err != nil {
		return err
	}
	n := (int(b[0])<<8 | int(b[1])) + 1
	if b, err = s.in.take(n); err != nil {
		return err
	}
	s.room()
	s.w += copy(s.buf[s.w:], b)
	s.pos += uint64(n)
	s.record(parse.Head{Kind: kindStored, A: control, N: uint32(n)})
	return nil
}

// lzma reads a compressed chunk.
func (s *splitter) lzma(control byte) error {
	b, err := s.in.take(4)
	if err != nil {
		return err
	}
	plain := (int(control&0x1f)<<16 | int(b[0])<<8 | int(b[1])) + 1
	packed := (int(b[2])<<8 | int(b[3])) + 1
	s.next = parse.Head{Kind: kindChunk, A: control >> 5 & 3}
	if s.next.A >= resetProperties {
		if b, err = s.in.take(1); err != nil {
			return err
		}
		s.next.B = b[0]
		if err := s.properties(b[0]); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	if s.next.A >= resetState {
		s.model.reset()
	}
	if b, err = s.in.take(packed); err != nil {
		return err
	}
	// What lies behind the chunk is slack.
	if packed < 5 || !s.rc.reset(b[:packed+slack]) {
		return fmt.Errorf("%w: chunk of %d bytes", ErrFormat, packed)
	}
	if err := s.symbols(plain, packed); err != nil {
		return err
	}
	s.rc.normalize()
	if s.rc.p > packed {
		return errEarly
	}
	if s.rc.p != packed || s.rc.code != 0 {
		return fmt.Errorf("%w: range coder ends at %d of %d", ErrUnsupported, s.rc.p, packed)
	}
	return nil
}

// symbols decodes a chunk.
func (s *splitter) symbols(plain, packed int) error {
	s.room()
	run := 0 // literals of the row to come
	s.with = 0
	for left := plain; left > 0; {
		if s.rc.p > packed {
			return errEarly
		}
		if s.rc.bit(&s.isMatch[s.state][s.posState()]) == 0 {
			s.literal()
			left--
			if run++; run < maxRun {
				continue
			}
		}
		r, err := row{literals: uint32(run)}, error(nil)
		if run < maxRun {
			if r, err = s.matched(r, left); err != nil {
				return err
			}
			left -= int(r.plain()) - run
		}
		run = 0
		if err := s.row(r); err != nil {
			return err
		}
	}
	if run > 0 {
		return s.row(row{literals: uint32(run)})
	}
	return nil
}

func (s *splitter) posState() uint32 { return uint32(s.pos) & s.posMask }

// row puts r to the unit, and begins another if this one could become too large.
func (s *splitter) row(r row) error {
	r.with, s.with = s.with, 0
	s.rows = r.append(s.rows)
	if s.w-s.from <= unitPlain-maxRun-maxMatch && len(s.rows) < unitRows*rowSize {
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	s.room()
	return nil
}

// literal decodes a literal.
func (s *splitter) literal() {
	prev := byte(0)
	if s.pos > 0 {
		prev = s.buf[s.w-1]
	}
	probs := s.literals(uint32(s.pos), prev)
	if s.behindMatch() {
		with := s.buf[s.w-1-int(s.reps[0])]
		if s.reps[0] >= keep {
			s.with = with
		}
		s.buf[s.w] = s.rc.matched(probs, with)
	} else {
		s.buf[s.w] = s.rc.literal(probs)
	}
	s.after(afterLiteral)
	s.w++
	s.pos++
}

// matched decodes what is no literal, up to left bytes, and returns r with it.
func (s *splitter) matched(r row, left int) (row, error) {
	at := s.posState()
	if s.rc.bit(&s.isRep[s.state]) == 0 {
		r.kind = rowMatch
		r.length = s.rc.length(&s.match, at)
		s.push(s.rc.distance(&s.model, r.length))
		r.distance = s.reps[0] + 1
		s.after(afterMatch)
	} else {
		r.kind = s.repeated(at)
		if r.kind == rowShort {
			s.after(afterShort)
		} else {
			r.length = s.rc.length(&s.rep, at)
			s.after(afterRep)
		}
	}
	n := int(r.plain() - r.literals)
	far := uint64(s.reps[0]) + 1
	if far > min(s.pos, uint64(s.window)) {
		if s.large && far <= s.pos {
			return r, fmt.Errorf("%w: match from %d back", ErrUnsupported, far)
		}
		return r, fmt.Errorf("%w: match from %d back", ErrFormat, far)
	}
	if n > left {
		return r, fmt.Errorf("%w: match over the end of a chunk", ErrFormat)
	}
	s.copy(n, int(far))
	return r, nil
}

// repeated decodes which of the last distances a match has, and makes it the last.
func (s *splitter) repeated(at uint32) byte {
	if s.rc.bit(&s.notRep0[s.state]) == 0 {
		if s.rc.bit(&s.longRep0[s.state][at]) == 0 {
			return rowShort
		}
		return rowRep
	}
	k := 1
	if s.rc.bit(&s.notRep1[s.state]) != 0 {
		k = 2 + int(s.rc.bit(&s.notRep2[s.state]))
	}
	s.repeat(k)
	return rowRep + byte(k)
}

// copy repeats n plain bytes from far back.
func (s *splitter) copy(n, far int) {
	s.pos += uint64(n)
	for n > 0 {
		k := copy(s.buf[s.w:s.w+n], s.buf[s.w-far:s.w])
		s.w += k
		n -= k
	}
}

// firstBuf is the size of a buffer before it is known that more is needed.
const firstBuf = 512 << 10

// secondBuf is what medium streams take, others the whole window.
const secondBuf = 2 << 20

// room makes room for a unit's plain bytes in front of its first.
func (s *splitter) room() {
	if len(s.buf)-s.from >= unitPlain {
		return
	}
	// A little more than needed makes moves rare.
	history := max(s.window, keep)
	full := history + history/32 + unitPlain + unitPlain/4
	switch {
	case len(s.buf) == 0:
		s.buf = make([]byte, firstBuf)
		return
	case len(s.buf) < full && s.w > history, len(s.buf) >= full:
		k := s.w - min(s.w, history)
		copy(s.buf, s.buf[k:s.w])
		s.w -= k
		s.from = s.w
		s.slide(k)
	}
	if len(s.buf)-s.from < unitPlain {
		size := full
		if len(s.buf) == firstBuf {
			size = min(full, secondBuf)
		}
		b := make([]byte, size)
		copy(b, s.buf[:s.w])
		s.buf = b
	}
}
