package lz4

import (
	"encoding/binary"
	"fmt"
)

// sequences reads n rows of the open block, and writes them.
func (j *joiner) sequences(n uint32) error {
	if n > unitRows {
		return fmt.Errorf("%w: %d rows", ErrCorrupt, n)
	}
	rows := j.rows[:n*rowSize]
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
		if j.held && len(j.out) > 4+int(j.max) {
			return fmt.Errorf("%w: block of more than %d bytes", ErrCorrupt, j.max)
		}
	}
	if j.open {
		return nil
	}
	return j.finish()
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
	j.token = r.offset == 0
	if r.offset == 0 {
		return nil
	}
	j.out = append(j.out, byte(r.offset), byte(r.offset>>8))
	j.length(r.length - minMatch)
	return j.skip(r.length)
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
	j.r, j.n = 0, int(min(j.due, uint64(len(j.buf))))
	j.due -= uint64(j.n)
	if err := j.ReadPlain(j.buf[:j.n]); err != nil {
		return err
	}
	if j.has(flgSum) {
		j.content.write(j.buf[:j.n])
	}
	return nil
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
