package zstd

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// unpacking is a packed block while it is taken apart.
type unpacking struct {
	*block
	in       []byte // what is left of it
	literals []byte
	given    [1 + kinds][]byte // descriptions
	starts   [kinds]uint16     // states that encoding began with
}

// broken is ErrFormat with what is wrong.
func broken(what string) error { return fmt.Errorf("%w: %s", ErrFormat, what) }

// packed takes the packed block of n bytes at the beginning of in apart.
func (s *splitter) packed(b *block, n int) error {
	u := unpacking{block: b, in: s.in[:n]}
	if err := s.literals(&u); err != nil {
		return err
	}
	if err := s.count(&u); err != nil {
		return err
	}
	if u.sequences > 0 {
		if err := s.codes(&u); err != nil {
			return err
		}
	}
	if u.sequences > 0 {
		if err := s.sequences(&u); err != nil {
			return err
		}
		s.expectTables(&u)
	}
	if len(s.history)-s.block+len(u.literals) > maxBlock {
		return broken("a block above 128 KiB")
	}
	s.history = append(s.history, u.literals...)
	b.size = uint32(len(s.history) - s.block)
	s.rows = b.append(s.rows)
	for i, d := range u.given {
		if b.flags&(givenBit<<i) != 0 {
			s.rows = appendGiven(s.rows, d)
		}
	}
	if b.flags&statesBit != 0 {
		for _, at := range u.starts {
			s.rows = binary.LittleEndian.AppendUint16(s.rows, at)
		}
		s.rows = append(s.rows, 0, 0)
	}
	return s.tell(int(b.sequences))
}

// literals reads the section of literals (RFC 8878, 3.1.1.3.1).
func (s *splitter) literals(u *unpacking) error {
	if len(u.in) < 2 {
		return broken("block")
	}
	way := u.in[0] & 3
	u.block.literals = way
	if way >= literalsTree {
		return s.treeLiterals(u)
	}
	width, skip := byte(1), 3
	switch u.in[0] >> 2 & 3 {
	case 1:
		width, skip = 2, 4
	case 3:
		width, skip = 3, 4
	}
	if len(u.in) < int(width) {
		return broken("block")
	}
	size := 0
	for i, c := range u.in[:width] {
		size |= int(c) << (8 * i)
	}
	size >>= skip
	u.width(width, size, false)
	u.in = u.in[width:]
	take := size
	if way == literalsRun {
		take = 1
	}
	if size > maxBlock || take > len(u.in) {
		return broken("literals")
	}
	switch {
	case way == literalsRaw:
		u.literals = u.in[:size]
	case size == 0:
		return fmt.Errorf("%w: empty run of literals", ErrUnsupported)
	default:
		u.literals = s.literal[:size]
		fill(u.literals, u.in[0])
	}
	u.in = u.in[take:]
	return nil
}

// width notes how wide the sizes of the literals are unless that is expected.
func (u *unpacking) width(width byte, size int, packed bool) {
	if width != expectedWidth(size, packed) {
		u.block.literals |= width << widthShift
	}
}

// treeLiterals reads literals that are coded by a tree.
func (s *splitter) treeLiterals(u *unpacking) error {
	format := u.in[0] >> 2 & 3
	width := max(format, 1)
	if len(u.in) < int(width)+2 {
		return broken("block")
	}
	var field [8]byte
	copy(field[:5], u.in)
	v, bits := binary.LittleEndian.Uint64(field[:])>>4, 6+4*width
	size, packed := int(v&(1<<bits-1)), int(v>>bits&(1<<bits-1))
	u.width(width, size, true)
	u.in = u.in[width+2:]
	if packed > len(u.in) || size > maxBlock {
		return broken("literals")
	}
	if size == 0 {
		return fmt.Errorf("%w: a tree of no literals", ErrUnsupported)
	}
	in := u.in[:packed]
	u.in = u.in[packed:]
	if u.block.literals&literalsMask == literalsTree {
		var weights [256]uint8
		n, symbols, ok := readWeights(in, &weights, &s.weights)
		if !ok {
			return broken("tree of literals")
		}
		s.tree.set(&weights, symbols)
		s.planted = true
		u.give(0, in[:n])
		in = in[n:]
	}
	if !s.planted {
		return broken("no tree of literals before")
	}
	u.literals = s.literal[:size]
	if format > 0 {
		u.block.literals |= fourBit
	}
	if !s.streams(u.literals, in, format > 0) {
		return broken("streams of literals")
	}
	if u.block.literals&literalsMask == literalsTree {
		if d, ok := expectTree(nil, countBytes(u.literals), s.tree.bits, &s.weights); ok && bytes.Equal(d, u.given[0]) {
			u.expected(0, s.tree.bits)
		}
	}
	return nil
}

// expected notes that a description is the one expected, and for which log.
func (u *unpacking) expected(which int, log uint8) {
	u.flags &^= givenBit << which
	u.logs[which] = log
}

// give notes a description.
func (u *unpacking) give(which int, description []byte) {
	u.flags |= givenBit << which
	u.given[which] = description
}

// streams decodes literals from one or four streams.
func (s *splitter) streams(dst, in []byte, four bool) bool {
	if !four {
		return s.tree.decode(dst, in[:cap(in)], len(in))
	}
	if len(in) < 6 {
		return false
	}
	part := (len(dst) + 3) / 4
	if 3*part > len(dst) {
		return false
	}
	at := 6
	for i := range 3 {
		n := int(binary.LittleEndian.Uint16(in[2*i:]))
		if n > len(in)-at || !s.tree.decode(dst[:part], in[at:cap(in)], n) {
			return false
		}
		dst = dst[part:]
		at += n
	}
	return s.tree.decode(dst, in[at:cap(in)], len(in)-at)
}

// count reads the number of sequences and the modes of their codes.
func (s *splitter) count(u *unpacking) error {
	if len(u.in) == 0 {
		return broken("no sequences")
	}
	n, width := int(u.in[0]), 1
	switch {
	case n == 255:
		width = 3
	case n >= 128:
		width = 2
	}
	if len(u.in) < width {
		return broken("sequences")
	}
	switch width {
	case 2:
		if n = (n-128)<<8 + int(u.in[1]); n < 128 {
			u.flags |= longCountBit
		}
	case 3:
		n = int(binary.LittleEndian.Uint16(u.in[1:])) + longCount
	}
	u.in = u.in[width:]
	switch {
	case n > maxSequences:
		return broken("too many sequences")
	case n == 0 && width > 1:
		return fmt.Errorf("%w: no sequences, in two bytes", ErrUnsupported)
	case n == 0 && len(u.in) > 0:
		return broken("bytes behind no sequences")
	case n > 0 && (len(u.in) == 0 || u.in[0]&3 != 0):
		return broken("modes of sequences")
	}
	u.sequences = uint32(n)
	if n > 0 {
		u.modes = u.in[0]
		u.in = u.in[1:]
	}
	return nil
}

// longCount is the least number of sequences that takes three bytes.
const longCount = 0x7F00

// codes reads the descriptions of the three codes.
func (s *splitter) codes(u *unpacking) error {
	for i := range kinds {
		k := &kindsOf[i]
		switch u.modes >> k.shift & 3 {
		case modePredefined:
			s.tables[i] = k.predefined
		case modeOne:
			if len(u.in) == 0 || int(u.in[0]) >= k.symbols {
				return broken("code of sequences")
			}
			s.own[i].setOne(u.in[0])
			s.tables[i] = &s.own[i]
			u.in = u.in[1:]
		case modeTable:
			n, ok := s.own[i].read(u.in, k.maxLog, k.symbols)
			if !ok {
				return broken("table of sequences")
			}
			s.tables[i] = &s.own[i]
			u.give(1+i, u.in[:n])
			u.in = u.in[n:]
		case modeRepeat:
			if s.tables[i] == nil {
				return broken("no table of sequences before")
			}
		}
	}
	return nil
}

// sequences decodes all sequences, carries them out, and puts them to work.
func (s *splitter) sequences(u *unpacking) error {
	r, ok := newBitReader(u.in[:cap(u.in)], len(u.in))
	if !ok {
		return broken("sequences")
	}
	ll, of, ml := s.tables[ofLL], s.tables[ofOF], s.tables[ofML]
	atLL, atOF, atML := r.take(ll.log), r.take(of.log), r.take(ml.log)
	end := s.block + maxBlock
	for left, i := u.sequences, 0; ; left, i = left-1, i+1 {
		l, o, m := ll.dec[atLL&(1<<maxStateLog-1)], of.dec[atOF&(1<<maxStateLog-1)], ml.dec[atML&(1<<maxStateLog-1)]
		offset := uint32(1)<<(o.symbol&31) + r.take(o.symbol)
		match := matchLengths[m.symbol].base + r.take(matchLengths[m.symbol].bits)
		run := runLengths[l.symbol].base + r.take(runLengths[l.symbol].bits)
		if r.pos < 0 || int(run) > len(u.literals) || int(run+match) > end-len(s.history) {
			return broken("sequences")
		}
		s.history = append(s.history, u.literals[:run]...)
		u.literals = u.literals[run:]
		d := s.recent.use(offset, run == 0)
		if d > MaxWindow && uint64(d) <= s.header.reach() {
			return fmt.Errorf("%w: match at a distance of %d", ErrUnsupported, d)
		}
		if !s.match(d, int(match)) {
			return broken("match")
		}
		put(s.work[:], i, newSequence(run, match, offset))
		if left == 1 {
			u.note([kinds]*stateTable{ll, of, ml}, [kinds]uint32{atLL, atOF, atML})
			if r.pos > 0 {
				return broken("bits behind the sequences")
			}
			return nil
		}
		atLL = uint32(l.base) + r.take(l.bits)
		atML = uint32(m.base) + r.take(m.bits)
		atOF = uint32(o.base) + r.take(o.bits)
	}
}

// expectTables looks for descriptions of tables that are those expected.
func (s *splitter) expectTables(u *unpacking) {
	n := int(u.sequences)
	for i := range kinds {
		if u.flags&(givenBit<<(1+i)) == 0 {
			continue
		}
		counts := countCodes(s.work[:], n, i)
		last := at(s.work[:], n-1).code(i)
		for _, how := range []uint8{s.own[i].log, s.own[i].log | lowBit} {
			if d, ok := expectTable(nil, counts, uint32(n), last, how); ok && bytes.Equal(d, u.given[1+i]) {
				u.expected(1+i, how)
				break
			}
		}
	}
}

// note notes the states in which encoding began, the last of decoding, unless they are
// those that encoders begin in.
func (u *unpacking) note(tables [kinds]*stateTable, at [kinds]uint32) {
	for i, t := range tables {
		u.starts[i] = uint16(at[i])
		if t.first[t.dec[at[i]].symbol] != uint16(at[i]) {
			u.flags |= statesBit
		}
	}
}

// tell writes the rows of the n sequences.
func (s *splitter) tell(n int) error {
	f, i := &s.finder, s.block
	f.set(s.history, s.block, s.size)
	for k := range n {
		q := at(s.work[:], k)
		i += int(q.run())
		f.enter(i)
		choice, lacks := f.tell(i, q.offset(), int(q.match()), q.run() == 0)
		s.rows = appendRow(s.rows, newSequence(q.run(), uint32(lacks), choice))
		if len(s.rows) >= flushAt {
			if err := s.flush(); err != nil {
				return err
			}
		}
		i += int(q.match())
	}
	return nil
}

// match appends n bytes from distance d; there is room.
func (s *splitter) match(d uint32, n int) bool {
	at := len(s.history)
	if d == 0 || uint64(d) > uint64(at) || uint64(d) > min(s.header.reach(), MaxWindow) {
		return false
	}
	h := s.history[:at+n]
	from := at - int(d)
	for n > 0 {
		c := copy(h[at:at+n], h[from:at])
		at += c
		n -= c
	}
	s.history = h
	return true
}
