package zstd

import (
	"encoding/binary"
	"math/bits"
)

// limit is where a packed block that is too long is noticed; out has slack behind it.
const limit = maxHeader + 3 + maxBlock

// pack makes a packed block of bytes, sequences and descriptions.
func (j *joiner) pack(b *block) error {
	literals, ok := j.split(b)
	if !ok {
		return corrupt("sequences longer than the block")
	}
	if !j.packLiterals(b, literals) {
		return corrupt("literals")
	}
	if !j.packCount(b) {
		return corrupt("count of sequences")
	}
	if b.sequences == 0 {
		return nil
	}
	if !j.packTables(b) {
		return corrupt("tables of sequences")
	}
	if !j.packSequences(b) {
		return corrupt("sequences")
	}
	return nil
}

// split resolves the sequences, and gathers the literals.
func (j *joiner) split(b *block) ([]byte, bool) {
	f, i, end := &j.finder, j.block, j.block+int(b.size)
	n, w := int(b.sequences), j.work[:]
	literals := int(b.size)
	for k := range n {
		q := at(w, k)
		run := q.run()
		if i += int(run); i > end {
			return nil, false
		}
		f.enter(i)
		offset, match, ok := f.resolve(i, q.offset(), int(q.match()), run == 0)
		if !ok || match > end-i {
			return nil, false
		}
		put(w, k, newSequence(run, uint32(match), offset))
		i += match
		literals -= match
	}
	lit := w[len(w)-literals:]
	to, p := lit, j.bytes
	for k := range n {
		q := at(w, k)
		to = to[copy(to, p[:q.run()]):]
		p = p[q.run()+q.match():]
	}
	copy(to, p)
	return lit, true
}

// packLiterals writes the section of literals.
func (j *joiner) packLiterals(b *block, p []byte) bool {
	way := b.literals & literalsMask
	packed := way >= literalsTree
	width := b.literals & widthMask >> widthShift
	switch expected := expectedWidth(len(p), packed); width {
	case expected:
		return false // it would not have been given
	case 0:
		width = expected
	}
	four := b.literals&fourBit != 0
	if packed {
		return j.packTree(b, p, width, four)
	}
	if four || b.flags&givenBit != 0 || b.logs[0] != 0 {
		return false
	}
	var head uint32
	switch width {
	case 1:
		head = uint32(way) | uint32(len(p))<<3
	case 2:
		head = uint32(way) | 1<<2 | uint32(len(p))<<4
	case 3:
		head = uint32(way) | 3<<2 | uint32(len(p))<<4
	}
	if head>>(8*width) != 0 {
		return false
	}
	binary.LittleEndian.PutUint32(j.out.b[j.out.n:], head)
	j.out.n += int(width)
	if way == literalsRun {
		if !same(p) {
			return false
		}
		p = p[:1]
	}
	if j.out.n+len(p) > limit {
		return false
	}
	j.out.n += copy(j.out.b[j.out.n:], p)
	return true
}

// packTree writes literals that are coded by a tree.
func (j *joiner) packTree(b *block, p []byte, width byte, four bool) bool {
	w := &j.out
	start := w.n
	w.n += int(width) + 2
	first := w.n
	if len(p) == 0 || !j.plant(b, p) {
		return false
	}
	if !j.packStreams(p, four) {
		return false
	}
	format := width
	if !four {
		format = 0
		if width != 1 {
			return false
		}
	}
	n, size := 6+4*width, uint64(w.n-first)
	if uint64(len(p))>>n != 0 || size>>n != 0 {
		return false
	}
	v := uint64(b.literals&literalsMask) | uint64(format)<<2 | uint64(len(p))<<4 | size<<(4+n)
	for i := range int(width) + 2 {
		w.b[start+i] = byte(v >> (8 * i))
	}
	return true
}

// plant makes the tree of the block's literals p, and writes its description.
func (j *joiner) plant(b *block, p []byte) bool {
	given := b.flags&givenBit != 0
	if b.literals&literalsMask == literalsRepeat {
		return j.planted && !given && b.logs[0] == 0
	}
	if given == (b.logs[0] != 0) {
		return false
	}
	d, ok := j.description(0), true
	if !given {
		d, ok = expectTree(j.given[0][:0], countBytes(p), b.logs[0], &j.weights)
	}
	if !ok {
		return false
	}
	var weights [256]uint8
	n, symbols, ok := readWeights(d, &weights, &j.weights)
	if !ok || n != len(d) {
		return false
	}
	j.tree.set(&weights, symbols)
	j.planted = true
	j.out.n += copy(j.out.b[j.out.n:], d)
	return true
}

// packStreams writes literals in one or four streams.
func (j *joiner) packStreams(p []byte, four bool) bool {
	w := &j.out
	if !four {
		return j.tree.encode(w, p, limit)
	}
	sizes := w.n
	w.n += 6
	part := (len(p) + 3) / 4
	if 3*part > len(p) {
		return false
	}
	for i := range 3 {
		start := w.n
		if !j.tree.encode(w, p[:part], limit) || w.n-start > 1<<16-1 {
			return false
		}
		binary.LittleEndian.PutUint16(w.b[sizes+2*i:], uint16(w.n-start))
		p = p[part:]
	}
	return j.tree.encode(w, p, limit)
}

// packCount writes the number of sequences and the modes of their codes.
func (j *joiner) packCount(b *block) bool {
	w, n := &j.out, int(b.sequences)
	if w.n > limit {
		return false
	}
	long := b.flags&longCountBit != 0
	if long && (n >= 128 || n == 0) || n == 0 && b.modes != 0 {
		return false
	}
	if n == 0 && (b.flags&^givenBit != 0 || b.logs[1]|b.logs[2]|b.logs[3] != 0) {
		return false
	}
	switch {
	case n < 128 && !long:
		w.b[w.n] = byte(n)
		w.n++
	case n < longCount:
		w.b[w.n], w.b[w.n+1] = byte(n>>8+128), byte(n)
		w.n += 2
	default:
		w.b[w.n] = 255
		binary.LittleEndian.PutUint16(w.b[w.n+1:], uint16(n-longCount))
		w.n += 3
	}
	if n > 0 {
		w.b[w.n] = b.modes
		w.n++
	}
	return true
}

// packTables makes the three codes and writes their descriptions.
func (j *joiner) packTables(b *block) bool {
	for i := range kinds {
		k := &kindsOf[i]
		mode := b.modes >> k.shift & 3
		given := b.flags&(givenBit<<(1+i)) != 0
		if how := b.logs[1+i]; mode != modeTable && (given || how != 0) || mode == modeTable && given == (how != 0) {
			return false
		}
		switch mode {
		case modePredefined:
			j.tables[i] = k.predefined
		case modeOne:
			c := at(j.work[:], 0).code(i)
			j.own[i].setOne(c)
			j.tables[i] = &j.own[i]
			j.out.b[j.out.n] = c
			j.out.n++
		case modeTable:
			d, ok := j.description(1+i), true
			if !given {
				n, last := int(b.sequences), at(j.work[:], int(b.sequences)-1).code(i)
				d, ok = expectTable(j.given[1+i][:0], countCodes(j.work[:], n, i), uint32(n), last, b.logs[1+i])
			}
			if !ok {
				return false
			}
			n, ok := j.own[i].read(d, k.maxLog, k.symbols)
			if !ok || n != len(d) || j.out.n+n > limit+maxTreeBytes {
				return false
			}
			j.tables[i] = &j.own[i]
			j.out.n += copy(j.out.b[j.out.n:], d)
		case modeRepeat:
			if j.tables[i] == nil {
				return false
			}
		}
	}
	return true
}

// code returns one of a sequence's three codes.
func (q sequence) code(kind int) uint8 {
	switch kind {
	case ofLL:
		return runCode(q.run())
	case ofML:
		return matchCode(q.match())
	}
	return uint8(bits.Len32(q.offset())) - 1
}

// packSequences writes the sequences for reading backwards: the last comes first.
func (j *joiner) packSequences(b *block) bool {
	w := &j.out
	ll, of, ml := j.tables[ofLL], j.tables[ofOF], j.tables[ofML]
	var first [kinds]uint32
	if !j.begin(b, &first) {
		return false
	}
	atLL, atOF, atML := first[ofLL], first[ofOF], first[ofML]
	last := int(b.sequences) - 1
	for i := last; i >= 0; i-- {
		q := at(j.work[:], i)
		run, match, offset := q.run(), q.match(), q.offset()
		l, m, o := runCode(run), matchCode(match), uint8(bits.Len32(offset)-1)
		if i != last {
			if w.n > limit || !ll.has(l) || !of.has(o) || !ml.has(m) {
				return false
			}
			atOF = of.step(w, atOF, o)
			atML = ml.step(w, atML, m)
			atLL = ll.step(w, atLL, l)
			w.flush()
		}
		w.add(uint64(run-runLengths[l].base), runLengths[l].bits)
		w.add(uint64(match-matchLengths[m].base), matchLengths[m].bits)
		w.flush()
		w.add(uint64(offset)&(1<<o-1), o)
	}
	w.flush()
	w.add(uint64(atML&(1<<ml.log-1)), ml.log)
	w.add(uint64(atOF&(1<<of.log-1)), of.log)
	w.add(uint64(atLL&(1<<ll.log-1)), ll.log)
	w.close()
	return true
}

// begin sets the states that encoding begins with: those of the last sequence.
func (j *joiner) begin(b *block, first *[kinds]uint32) bool {
	given := b.flags&statesBit != 0
	if given && !zeros(j.states[6:]) {
		return false
	}
	usual := true
	for i, t := range j.tables {
		c := at(j.work[:], int(b.sequences)-1).code(i)
		if !t.has(c) {
			return false
		}
		s := t.first[c]
		if given {
			v := binary.LittleEndian.Uint16(j.states[2*i:])
			if int(v) >= 1<<t.log || t.spread[v] != c {
				return false
			}
			usual = usual && v == s
			s = v
		}
		first[i] = 1<<t.log + uint32(s)
	}
	return !given || !usual
}
