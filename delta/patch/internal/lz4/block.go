package lz4

import (
	"encoding/binary"
	"fmt"

	"updraft/delta/patch/internal/parse"
)

func appendSize(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }

// record puts a head in front of the unit's rows. There are none yet.
func (s *splitter) record(h parse.Head) { s.front = h.Append(s.front) }

// open begins a block of n packed bytes.
func (s *splitter) open(n int64) {
	var sum *xxh32
	if s.has(flgBlockSum) {
		sum = &s.check
		sum.reset()
	}
	s.in.open(n, sum)
	s.room = s.max
	s.told = s.has(flgSolitary)
	s.start, s.half = s.w, false
	if s.has(flgSolitary) {
		s.floor = s.w
	}
}

// stored reads a block that is not compressed.
func (s *splitter) stored(n int64) error {
	s.open(n)
	s.record(parse.Head{Kind: kindStored, N: uint32(n)})
	if err := s.literals(uint32(n)); err != nil {
		return err
	}
	s.in.close()
	return s.flush()
}

// block reads a compressed block.
func (s *splitter) block(n int64) error {
	s.open(n)
	s.rowKind, s.packed = kindBlock, n
	s.guess.begin()
	for last := false; !last; {
		if s.cut || s.w-s.from > unitPlain-longRun || len(s.rows) > (unitRows-2)*rowSize {
			if err := s.flush(); err != nil {
				return err
			}
		}
		var err error
		if last, err = s.sequence(); err != nil {
			return err
		}
	}
	s.in.close()
	s.ends = true
	err := s.flush()
	s.ends = false
	return err
}

// sequence reads one sequence and reports whether it ends the block. The unit has room
// for two rows, and literals of one.
func (s *splitter) sequence() (last bool, err error) {
	token, err := s.in.byte()
	if err != nil {
		return false, err
	}
	r := row{}
	if r.literals, err = s.in.length(uint32(token>>4), s.room); err != nil {
		return false, err
	}
	if r.literals > s.room {
		return false, fmt.Errorf("%w: block of more than %d", ErrFormat, s.max)
	}
	nibble := uint32(token & 15)
	last = int64(r.literals) == s.in.left()
	switch {
	case last && nibble != 0:
		return true, fmt.Errorf("%w: token %02x at the end", ErrUnsupported, token)
	case last:
		if err := s.row(r); err != nil {
			return true, err
		}
		return true, s.literals(r.literals)
	case r.literals >= longRun:
		if err := s.row(row{literals: r.literals, length: 1 + nibble}); err != nil {
			return false, err
		}
	}
	if err := s.literals(r.literals); err != nil {
		return false, err
	}
	if r.literals >= longRun {
		r.literals = 0
	}
	return false, s.match(r, nibble)
}

// match reads what follows the literals of r.
func (s *splitter) match(r row, nibble uint32) error {
	lo, err := s.in.byte()
	if err != nil {
		return err
	}
	hi, err := s.in.byte()
	if err != nil {
		return err
	}
	r.offset = uint32(hi)<<8 | uint32(lo)
	if r.length, err = s.in.length(nibble, s.room); err != nil {
		return err
	}
	r.length += minMatch
	if r.length > s.room || r.offset == 0 || int(r.offset) > s.w-s.floor {
		return fmt.Errorf("%w: match of %d at %d", ErrFormat, r.length, r.offset)
	}
	if err := s.row(r); err != nil {
		return err
	}
	return s.copy(int(r.length), int(r.offset))
}

// row puts r to the unit, behind the plain bytes of the row before it.
func (s *splitter) row(r row) error {
	if s.cut {
		if err := s.flush(); err != nil {
			return err
		}
	}
	s.rows = r.append(s.rows)
	return nil
}

// literals moves n bytes of the block to the plain bytes.
func (s *splitter) literals(n uint32) error {
	s.room -= n
	for n > 0 {
		if err := s.space(); err != nil {
			return err
		}
		if err := s.in.fill(); err != nil {
			return err
		}
		k := copy(s.buf[s.w:s.from+unitPlain], s.in.buf[s.in.r:min(s.in.w, s.in.r+int(n))])
		s.in.r += k
		s.w += k
		n -= uint32(k)
	}
	return nil
}

// copy repeats n plain bytes from off back.
func (s *splitter) copy(n, off int) error {
	s.room -= uint32(n)
	for n > 0 {
		if err := s.space(); err != nil {
			return err
		}
		k := copy(s.buf[s.w:min(s.from+unitPlain, s.w+n)], s.buf[s.w-off:s.w])
		s.w += k
		n -= k
	}
	return nil
}

// space makes room for plain bytes; the rows that they belong to are there.
func (s *splitter) space() error {
	if s.w < s.from+unitPlain {
		return nil
	}
	err := s.flush()
	s.cut = true
	return err
}

// flush writes what the unit has, and begins another.
func (s *splitter) flush() error {
	if len(s.rows) > 0 {
		way := s.tell()
		s.front = parse.Head{Kind: s.rowKind, A: way, N: uint32(len(s.rows) / rowSize)}.Append(s.front)
		if s.rowKind == kindBlock && s.sized {
			s.front = appendSize(s.front, uint64(s.packed))
		}
		if way != wayRows {
			s.front = appendSize(s.front, uint64(s.w-s.from))
		}
		s.rowKind = kindMore
	}
	if err := s.WriteParse(s.front); err != nil {
		return err
	}
	if err := s.WriteParse(s.rows); err != nil {
		return err
	}
	s.front, s.rows, s.cut = s.front[:0], s.rows[:0], false
	plain := s.buf[s.from:s.w]
	if err := s.WritePlain(plain); err != nil {
		return err
	}
	s.total += uint64(len(plain))
	if s.has(flgSum) {
		s.content.write(plain)
	}
	if s.w > window {
		k := s.w - window
		copy(s.buf[:window], s.buf[k:s.w])
		s.w = window
		s.start -= k
		s.floor = max(0, s.floor-k)
	}
	s.from = s.w
	return s.End()
}

// tell makes rows of the unit that tell of sequences only what is not expected, if they are
// few, and returns how the unit is told.
func (s *splitter) tell() byte {
	if !s.told {
		return wayRows
	}
	s.guess.set(s.buf[:s.w], -s.start, s.ends)
	out, same, strange, most := s.spare[:0], uint32(0), 0, len(s.rows)/rowSize/8
	at := s.from
	for rows := s.rows; len(rows) > 0; rows = rows[rowSize:] {
		r := parseRow(rows)
		if !s.half {
			want, ok := s.guess.next(at)
			if ok && r == want && r.literals < longRun {
				same++
				at += int(r.literals + r.match())
				continue
			}
			if strange++; strange > most {
				s.told = false
				return wayRows
			}
		}
		at += int(r.literals + r.match())
		s.half = r.offset == 0 && r.length > 0
		if same > 0 {
			out, same = row{literals: same, length: rowSame}.append(out), 0
		}
		out = r.append(out)
	}
	if same > 0 {
		out = row{length: rowSame}.append(out)
	}
	s.rows, s.spare = out, s.rows[:0]
	if s.ends {
		return wayEnd
	}
	return wayOn
}

// finish writes what ends the frame.
func (s *splitter) finish() error {
	s.record(parse.Head{Kind: kindEnd})
	return s.flush()
}

// verify reads a checksum and compares it.
func (s *splitter) verify(x *xxh32) error {
	n, err := s.in.fixed(4)
	if err == nil && uint32(n) != x.sum() {
		err = fmt.Errorf("%w: checksum", ErrFormat)
	}
	return err
}

// scan checks the structure of the block of n bytes that begins here.
func (s *splitter) scan(n int64) error {
	s.in.open(n, nil)
	plain := uint32(0)
	for {
		token, err := s.in.byte()
		if err != nil {
			return err
		}
		k, err := s.in.length(uint32(token>>4), s.max)
		if err != nil {
			return err
		}
		last := int64(k) == s.in.left()
		if err := s.in.skip(int64(k)); err != nil {
			return err
		}
		plain += k
		if last && token&15 == 0 && plain <= s.max {
			return nil
		}
		var off [2]byte
		if err := s.in.read(off[:]); err != nil {
			return err
		}
		if k, err = s.in.length(uint32(token&15), s.max); err != nil {
			return err
		}
		back := uint32(binary.LittleEndian.Uint16(off[:]))
		if back == 0 || back > plain || plain+k+minMatch > s.max {
			return fmt.Errorf("%w: match of %d at %d", ErrFormat, k, back)
		}
		plain += k + minMatch
	}
}
