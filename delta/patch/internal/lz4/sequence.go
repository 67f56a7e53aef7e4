package lz4

import (
	"encoding/binary"
	"fmt"

	"updraft/delta/patch/internal/parse"
)

// sequences reads a unit of the open block, behind its head, and writes it.
func (j *joiner) sequences(h parse.Head) error {
	switch {
	case h.N > unitRows:
		return fmt.Errorf("%w: %d rows", ErrCorrupt, h.N)
	case h.A > wayEnd || h.A != wayRows && !j.told:
		return fmt.Errorf("%w: told by way %d", ErrCorrupt, h.A)
	case h.A != wayRows:
		return j.expected(h)
	}
	j.told = false
	rows := j.rows[:h.N*rowSize]
	if err := j.ReadParse(rows); err != nil {
		return err
	}
	if err := j.measure(rows); err != nil {
		return err
	}
	for ; len(rows) > 0; rows = rows[rowSize:] {
		if err := j.sequence(parseRow(rows)); err != nil {
			return err
		}
	}
	if j.open {
		return nil
	}
	return j.finish()
}

// expected does so with a unit that is told by what is not expected.
func (j *joiner) expected(h parse.Head) error {
	n, err := j.Number()
	if err != nil {
		return err
	}
	if n > unitPlain || n > uint64(j.room) {
		return fmt.Errorf("%w: unit of %d bytes", ErrCorrupt, n)
	}
	rows := j.rows[:h.N*rowSize]
	if err := j.ReadParse(rows); err != nil {
		return err
	}
	if err := j.unit(int(n)); err != nil {
		return err
	}
	j.guess.set(j.buf[:j.n], j.first, h.A == wayEnd)
	beyond, looks := false, 0
	for ; len(rows) > 0; rows = rows[rowSize:] {
		r := parseRow(rows)
		if j.nibble == 0 && r.offset == 0 && r.length == rowSame {
			if err := j.same(r.literals); err != nil {
				return err
			}
			continue
		}
		if j.nibble == 0 && j.open {
			if looks++; looks > unitRows/8 {
				return fmt.Errorf("%w: most of a unit is not expected", ErrCorrupt)
			}
			j.guess.next(j.r)
		}
		if err := j.measure(rows[:rowSize]); err != nil {
			return err
		}
		j.due = uint64(max(0, int(r.literals+r.match())-(j.n-j.r)))
		if j.due > 0 && (len(rows) > rowSize || h.A == wayEnd) {
			return fmt.Errorf("%w: row beyond a unit", ErrCorrupt)
		}
		beyond = j.due > 0
		if err := j.sequence(r); err != nil {
			return err
		}
	}
	// What goes on behind the unit may be the literals that end the block.
	if j.r < j.n || j.open != (h.A == wayOn) && !beyond {
		return fmt.Errorf("%w: unit ends early", ErrCorrupt)
	}
	if j.open {
		return nil
	}
	return j.finish()
}

// unit reads the plain bytes of a unit, behind those that are kept.
func (j *joiner) unit(n int) error {
	j.slide()
	b := j.buf[j.n : j.n+n]
	j.n += n
	j.due = 0
	if err := j.ReadPlain(b); err != nil {
		return err
	}
	if j.has(flgSum) {
		j.content.write(b)
	}
	return nil
}

// slide keeps the last plain bytes, all of which are used.
func (j *joiner) slide() {
	k := max(0, j.n-window)
	copy(j.buf[:], j.buf[k:j.n])
	j.first += k
	j.n -= k
	j.r = j.n
}

// same writes so many sequences that are as expected, or all that are left of the unit
// if it says 0.
func (j *joiner) same(count uint32) error {
	for left := count; ; left-- {
		all := !j.open || !j.guess.ends && j.r == j.n
		if count == 0 && all || count > 0 && left == 0 {
			return nil
		}
		if !j.open {
			return fmt.Errorf("%w: more than is expected", ErrCorrupt)
		}
		r, ok := j.guess.next(j.r)
		if !ok || int(r.literals+r.match()) > j.n-j.r {
			return fmt.Errorf("%w: nothing is expected", ErrCorrupt)
		}
		b := r.append(j.row[:0])
		if err := j.measure(b); err != nil {
			return err
		}
		j.due = 0
		if err := j.sequence(r); err != nil {
			return err
		}
	}
}

// measure checks rows of the open block; their plain bytes are due then.
func (j *joiner) measure(rows []byte) error {
	for ; len(rows) > 0; rows = rows[rowSize:] {
		r := parseRow(rows)
		// Neither is above 2^24.
		k := r.literals + r.match()
		bad := j.nibble > 0 && (r.literals > 0 || r.offset == 0 || min(r.length-minMatch, 15)+1 != j.nibble)
		if bad || !r.valid() || k > j.room || !j.open {
			return fmt.Errorf("%w: row % x", ErrCorrupt, rows[:rowSize])
		}
		j.room -= k
		j.due += uint64(k)
		j.nibble = 0
		if r.offset == 0 {
			j.nibble = r.length
			j.open = r.length > 0
		}
	}
	return nil
}

// sequence writes a row that measure has checked.
func (j *joiner) sequence(r row) error {
	match := min(r.length-minMatch, 15)
	switch {
	case r.offset > 0:
	case r.length == 0:
		match = 0
	default:
		match = r.length - 1
	}
	if !j.token {
		j.out = append(j.out, byte(min(r.literals, 15)<<4|match))
		j.length(r.literals)
		if err := j.literals(r.literals); err != nil {
			return err
		}
	}
	if j.token = r.offset == 0; !j.token {
		j.out = append(j.out, byte(r.offset), byte(r.offset>>8))
		j.length(r.length - minMatch)
		if err := j.skip(r.length); err != nil {
			return err
		}
	}
	if j.held && len(j.out) > 4+int(j.max) {
		return fmt.Errorf("%w: block of more than %d bytes", ErrCorrupt, j.max)
	}
	return nil
}

// length writes what extends the half of a token.
func (j *joiner) length(n uint32) {
	if n < 15 {
		return
	}
	for n -= 15; n >= 255; n -= 255 {
		j.out = append(j.out, 255)
	}
	j.out = append(j.out, byte(n))
}

// literals writes n plain bytes.
func (j *joiner) literals(n uint32) error {
	for n > 0 {
		if err := j.fill(); err != nil {
			return err
		}
		k := min(int(n), j.n-j.r)
		j.out = append(j.out, j.buf[j.r:j.r+k]...)
		j.r += k
		n -= uint32(k)
		if err := j.spill(); err != nil {
			return err
		}
	}
	return j.spill()
}

// skip passes n plain bytes.
func (j *joiner) skip(n uint32) error {
	for n > 0 {
		if err := j.fill(); err != nil {
			return err
		}
		k := min(int(n), j.n-j.r)
		j.r += k
		n -= uint32(k)
	}
	return nil
}

// fill reads plain bytes of the unit, if all of those in buf are used.
func (j *joiner) fill() error {
	if j.r < j.n {
		return nil
	}
	if !j.told {
		j.n = 0
	}
	n := min(j.due, inputSize)
	j.due -= n
	due := j.due
	err := j.unit(int(n))
	j.due = due
	return err
}

// spill writes packed bytes if there are many, and they need not wait for their size.
func (j *joiner) spill() error {
	if j.held || len(j.out) < flushAt {
		return nil
	}
	return j.flush()
}

func (j *joiner) flush() error {
	if len(j.out) == 0 {
		return nil
	}
	if j.has(flgBlockSum) {
		j.check.write(j.out)
	}
	_, err := j.w.Write(j.out)
	j.written += int64(len(j.out))
	j.out = j.out[:0]
	return wrote(err)
}

// finish ends a compressed block, all rows of which are written.
func (j *joiner) finish() error {
	j.token = false
	if j.held {
		b := j.out[4:]
		if len(b) > int(j.max) {
			return fmt.Errorf("%w: block of %d bytes", ErrCorrupt, len(b))
		}
		binary.LittleEndian.PutUint32(j.out, uint32(len(b)))
		j.held = false
		_, err := j.w.Write(j.out[:4])
		j.out = j.out[:copy(j.out, b)]
		if err != nil {
			return wrote(err)
		}
	}
	if err := j.flush(); err != nil {
		return err
	}
	if j.sized && j.written != j.packed {
		return fmt.Errorf("%w: block of %d bytes, not %d", ErrCorrupt, j.written, j.packed)
	}
	return j.sum()
}

// sum writes what follows a block.
func (j *joiner) sum() error {
	if err := j.flush(); err != nil || !j.has(flgBlockSum) {
		return err
	}
	j.out = binary.LittleEndian.AppendUint32(j.out, j.check.sum())
	return nil
}
