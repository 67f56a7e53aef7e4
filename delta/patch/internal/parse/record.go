// Package parse is what the codecs of frames have in common: how a parse is read and
// written in units, its records, and where the same bytes were before.
//
// A unit is plain bytes and as much of the parse as Join needs for them: an Output
// writes both and says that it is complete, an Input reads the parse first, and then the
// plain bytes. The records of xz and lz4 have heads (Head); rows, of RowSize bytes, are their
// codec's own.
package parse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// RowSize is what all parts of a parse are multiples of, in bytes.
const RowSize = 8

// Head begins a record: kind (1), A (1), B (1), zero (1), N (uint32).
type Head struct {
	Kind, A, B byte
	N          uint32
}

// Append appends the head as a parse has it.
func (h Head) Append(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(append(b, h.Kind, h.A, h.B, 0), h.N)
}

// Input is what Join reads. Its errors are those of its readers; where one ends early, or has
// what cannot be, they wrap Corrupt.
type Input struct {
	Plain, Parse io.Reader
	Corrupt      error
	row          [RowSize]byte
}

// ReadPlain reads all of b from the plain bytes.
func (in *Input) ReadPlain(b []byte) error { return in.read(in.Plain, b, "plain") }

// ReadParse reads all of b from the parse.
func (in *Input) ReadParse(b []byte) error { return in.read(in.Parse, b, "parse") }

func (in *Input) read(r io.Reader, b []byte, name string) error {
	_, err := io.ReadFull(r, b)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %s ends early", in.Corrupt, name)
	}
	return fmt.Errorf("read %s: %w", name, err)
}

// Head reads a head; kinds are 1 to most.
func (in *Input) Head(most byte) (Head, error) {
	b := in.row[:]
	if err := in.ReadParse(b); err != nil {
		return Head{}, err
	}
	h := Head{b[0], b[1], b[2], binary.LittleEndian.Uint32(b[4:])}
	if b[3] != 0 || h.Kind == 0 || h.Kind > most {
		return h, fmt.Errorf("%w: head % x", in.Corrupt, b)
	}
	return h, nil
}

// Number reads a uint64 from the parse.
func (in *Input) Number() (uint64, error) {
	err := in.ReadParse(in.row[:])
	return binary.LittleEndian.Uint64(in.row[:]), err
}

// Output takes what Split writes; fields that are nil take nothing.
type Output struct {
	Plain, Parse io.Writer
	Unit         func() error
}

// WritePlain writes plain bytes.
func (o *Output) WritePlain(b []byte) error { return write(o.Plain, b, "plain") }

// WriteParse writes a part of the parse.
func (o *Output) WriteParse(b []byte) error { return write(o.Parse, b, "parse") }

func write(w io.Writer, b []byte, name string) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// End ends a unit, all of which is written.
func (o *Output) End() error {
	if o.Unit == nil {
		return nil
	}
	return o.Unit()
}
