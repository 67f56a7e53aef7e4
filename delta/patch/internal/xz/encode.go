package xz

import (
	"encoding/binary"
	"fmt"

	"updraft/delta/patch/internal/parse"
)

// chunkHeader is the longest header of a chunk but for the properties.
const chunkHeader = 5

// chunk begins a compressed chunk.
func (j *joiner) chunk(h parse.Head) error {
	if h.A > resetDictionary || h.A < resetProperties && h.B != 0 {
		return fmt.Errorf("%w: reset %d, properties %02x", ErrCorrupt, h.A, h.B)
	}
	if j.ready = j.ready || h.A >= resetProperties; !j.ready {
		return fmt.Errorf("%w: chunk without properties", ErrCorrupt)
	}
	j.inChunk, j.first, j.from, j.size = true, h, len(j.enc.out), 0
	j.enc.out = append(j.enc.out, make([]byte, chunkHeader)...)
	if h.A == resetDictionary {
		j.pos = 0
	}
	if h.A >= resetProperties {
		j.enc.out = append(j.enc.out, h.B)
		if err := j.properties(h.B); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if h.A >= resetState {
		j.model.reset()
		j.forget()
	}
	j.enc.begin()
	return nil
}

// chunkEnd ends a compressed chunk.
func (j *joiner) chunkEnd() error {
	j.inChunk = false
	j.enc.end()
	packed := j.packed()
	if j.size == 0 || j.size > chunkPlain || packed > chunkPacked {
		return fmt.Errorf("%w: chunk of %d bytes from %d", ErrCorrupt, packed, j.size)
	}
	b := j.enc.out[j.from:]
	b[0] = controlLZMA | j.first.A<<5 | byte((j.size-1)>>16)
	binary.BigEndian.PutUint16(b[1:], uint16(j.size-1))
	binary.BigEndian.PutUint16(b[3:], uint16(packed-1))
	return j.spill()
}

// packed is how many bytes the chunk has behind its header.
func (j *joiner) packed() int {
	n := len(j.enc.out) - j.from - chunkHeader
	if j.first.A >= resetProperties {
		n--
	}
	return n
}

// stored writes a chunk that is not compressed.
func (j *joiner) stored(h parse.Head) error {
	if h.N == 0 || h.N > chunkPacked || h.A != controlFresh && h.A != controlPlain {
		return fmt.Errorf("%w: stored chunk of %d, control %d", ErrCorrupt, h.N, h.A)
	}
	if h.A == controlFresh {
		j.pos, j.ready = 0, false
	}
	b, err := j.read(int(h.N))
	if err != nil {
		return err
	}
	j.pos += uint64(h.N)
	j.at += len(b)
	j.learn(j.buf[:j.at], max(j.next, j.at-3))
	j.enc.out = append(j.enc.out, h.A, byte((h.N-1)>>8), byte(h.N-1))
	j.enc.out = append(j.enc.out, b...)
	return j.spill()
}

// read reads n plain bytes to buf[at:].
func (j *joiner) read(n int) ([]byte, error) {
	if len(j.buf)-j.at < n {
		k := j.at - keep
		copy(j.buf[:], j.buf[k:j.at])
		j.at = keep
		j.slide(k)
	}
	b := j.buf[j.at : j.at+n]
	if err := j.ReadPlain(b); err != nil {
		return nil, err
	}
	if !j.header.filtered() {
		j.check.write(b)
	}
	j.total += uint64(n)
	return b, nil
}

// unit reads n rows and their plain bytes, and writes them.
func (j *joiner) unit(n uint32) error {
	if n > unitRows {
		return fmt.Errorf("%w: %d rows", ErrCorrupt, n)
	}
	plain, err := j.size64()
	if err != nil {
		return err
	}
	if j.size += int(min(plain, chunkPlain)); plain > unitPlain || j.size > chunkPlain {
		return fmt.Errorf("%w: unit of %d, chunk of %d", ErrCorrupt, plain, j.size)
	}
	rows := j.rows[:n*rowSize]
	if err := j.ReadParse(rows); err != nil {
		return err
	}
	if _, err := j.read(int(plain)); err != nil {
		return err
	}
	to := j.at + int(plain)
	if err := j.resolve(rows, j.buf[:to], j.at, to, j.pos); err != nil {
		return err
	}
	for ; len(rows) > 0; rows = rows[rowSize:] {
		if err := j.row(parseRow(rows)); err != nil {
			return err
		}
		if j.packed() > chunkPacked {
			return fmt.Errorf("%w: chunk of more than %d packed", ErrCorrupt, chunkPacked)
		}
	}
	return nil
}

// row writes r, the plain bytes of which begin at buf[at].
func (j *joiner) row(r row) error {
	for i := range r.literals {
		prev := byte(0)
		if j.pos > 0 {
			prev = j.buf[j.at-1]
		}
		probs := j.literals(uint32(j.pos), prev)
		c := j.buf[j.at]
		if i == 0 && j.behindMatch() {
			if j.reps[0] < keep {
				far := j.at - 1 - int(j.reps[0])
				if far < 0 {
					return fmt.Errorf("%w: match from %d back", ErrCorrupt, j.reps[0])
				}
				r.with = j.buf[far]
			}
			j.enc.bit(&j.isMatch[j.state][uint32(j.pos)&j.posMask], 0)
			j.enc.matched(probs, c, r.with)
		} else {
			j.enc.bit(&j.isMatch[j.state][uint32(j.pos)&j.posMask], 0)
			j.enc.literal(probs, c)
		}
		j.after(afterLiteral)
		j.at++
		j.pos++
	}
	if r.kind == rowLiterals {
		return nil
	}
	j.matched(r)
	n := r.plain() - r.literals
	j.at += int(n)
	j.pos += uint64(n)
	return nil
}

// matched writes what is behind the literals of r.
func (j *joiner) matched(r row) {
	at := uint32(j.pos) & j.posMask
	j.enc.bit(&j.isMatch[j.state][at], 1)
	if r.kind == rowMatch {
		j.enc.bit(&j.isRep[j.state], 0)
		j.enc.length(&j.match, r.length, at)
		j.enc.distance(&j.model, r.distance-1, r.length)
		j.push(r.distance - 1)
		j.after(afterMatch)
		return
	}
	j.enc.bit(&j.isRep[j.state], 1)
	switch r.kind {
	case rowShort:
		j.enc.bit(&j.notRep0[j.state], 0)
		j.enc.bit(&j.longRep0[j.state][at], 0)
		j.after(afterShort)
		return
	case rowRep:
		j.enc.bit(&j.notRep0[j.state], 0)
		j.enc.bit(&j.longRep0[j.state][at], 1)
	default:
		k := uint32(r.kind - rowRep)
		j.enc.bit(&j.notRep0[j.state], 1)
		j.enc.bit(&j.notRep1[j.state], min(k-1, 1))
		if k > 1 {
			j.enc.bit(&j.notRep2[j.state], k-2)
		}
		j.repeat(int(k))
	}
	j.enc.length(&j.rep, r.length, at)
	j.after(afterRep)
}
