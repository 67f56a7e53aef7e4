package parse_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"updraft/delta/patch/internal/parse"
)

var errCorrupt = errors.New("corrupt")

func TestHead(t *testing.T) {
	h := parse.Head{Kind: 3, A: 1, B: 2, N: 0x01020304}
	b := h.Append([]byte("x"))[1:]
	if !bytes.Equal(b, []byte{3, 1, 2, 0, 4, 3, 2, 1}) {
		t.Errorf("% x", b)
	}
	for _, c := range []struct {
		b    []byte
		most byte
		want error
	}{
		{b, 3, nil}, {b, 2, errCorrupt}, {make([]byte, 8), 3, errCorrupt}, {b[:7], 3, errCorrupt}, {nil, 3, errCorrupt},
		{[]byte{3, 1, 2, 1, 4, 3, 2, 1}, 3, errCorrupt},
	} {
		in := parse.Input{Parse: bytes.NewReader(c.b), Corrupt: errCorrupt}
		got, err := in.Head(c.most)
		if !errors.Is(err, c.want) || err == nil && got != h {
			t.Errorf("% x: %v, %v", c.b, got, err)
		}
	}
}

// TestOutput: what is not wanted is not written.
func TestOutput(t *testing.T) {
	var o parse.Output
	if err := errors.Join(o.WritePlain([]byte{1}), o.WriteParse([]byte{1}), o.End()); err != nil {
		t.Error(err)
	}
	var b bytes.Buffer
	o = parse.Output{Plain: &b, Parse: io.Discard, Unit: func() error { return errCorrupt }}
	if err := o.WritePlain([]byte{1}); err != nil || b.Len() != 1 || !errors.Is(o.End(), errCorrupt) {
		t.Error(err, b.Len())
	}
}

func TestChain(t *testing.T) {
	var c parse.Chain
	for _, at := range []uint32{1 << 20, 1<<20 + 5, 1<<20 + 5 + 65535, 1<<20 + 5 + 2*65536} {
		c.Enter(7, at)
	}
	at := c.Last(7)
	if at != 1<<20+5+2*65536 || c.Step(at) != 0 || c.Step(1<<20+5+65535) != 65535 || c.Last(8) != 0 {
		t.Errorf("last %d, steps %d, %d; other %d", at, c.Step(at), c.Step(1<<20+5+65535), c.Last(8))
	}
	if c.Reset(); c.Last(7) != 0 {
		t.Error("not reset")
	}
}

func TestAgree(t *testing.T) {
	a, b := make([]byte, 40), make([]byte, 40)
	for n := range a {
		b[n] = 1
		for most := range 40 {
			if got := parse.Agree(a, b, most); got != min(n, most) {
				t.Errorf("%d of %d: %d", n, most, got)
			}
		}
		b[n] = 0
	}
}
