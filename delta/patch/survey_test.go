package patch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(b); err != nil {
		panic(err)
	}
	return b
}

// TestSurvey shuffles pieces of a base that is longer than a window, and puts new bytes between them.
func TestSurvey(t *testing.T) {
	const piece, pieces = 300 << 10, 40
	old := random(1, piece*pieces)
	var fresh []byte
	same := 0
	for i, k := range rand.New(rand.NewPCG(2, 2)).Perm(pieces) {
		if i%4 == 0 { // not in the new stream
			fresh = append(fresh, random(byte(i+2), 10<<10)...)
			continue
		}
		fresh = append(fresh, old[k*piece:(k+1)*piece]...)
		same += piece
	}
	spans, err := survey(context.Background(), old, newWindow(bytes.NewReader(fresh)))
	if err != nil {
		t.Fatal(err)
	}
	n, last := 0, -1
	for _, s := range spans {
		if s.lo <= last || s.hi > len(old) || s.hi-s.lo < sameLen {
			t.Fatalf("%+v behind %d", s, last)
		}
		// A span may be of several pieces that meet in the base, each wherever it is in the new stream.
		for at := s.lo; at < s.hi; {
			end := min(s.hi, (at/piece+1)*piece)
			if !bytes.Contains(fresh, old[at:end]) {
				t.Fatalf("old[%d:%d] is not in the new stream", at, end)
			}
			at = end
		}
		n, last = n+s.hi-s.lo, s.hi
	}
	if n < same*98/100 || n > same {
		t.Errorf("found %d bytes of %d", n, same)
	}
}

// TestImagesAcrossWindows looks for programs whose marks lie around the end of a window.
func TestImagesAcrossWindows(t *testing.T) {
	var want []int64
	b := make([]byte, 3*windowSize)
	for i, at := range []int{8, windowSize - 2, 2*windowSize - 1<<10, 2*windowSize + 1<<10, len(b) - 256} {
		le, h := binary.LittleEndian, b[at:]
		copy(h, "\x7fELF\x02\x01")
		le.PutUint16(h[18:], machX86)
		le.PutUint64(h[32:], 64) // one program header, behind this one
		le.PutUint16(h[56:], 1)
		p := h[64:]
		le.PutUint32(p, 1)
		le.PutUint64(p[16:], uint64(i+1)<<20)
		le.PutUint64(p[32:], 200)
		le.PutUint64(p[40:], 200)
		want = append(want, int64(at))
	}
	ims, err := findImages(t.Context(), bytes.NewReader(b))
	if err != nil || len(ims) != len(want) {
		t.Fatalf("%d programs of %d: %v", len(ims), len(want), err)
	}
	for i, im := range ims {
		if im.off != want[i] || im.end != want[i]+200 {
			t.Errorf("program %d from %d to %d, at %d", i, im.off, im.end, want[i])
		}
	}
}

// counting counts what is read of a stream.
type counting struct {
	*bytes.Reader
	n int64
}

func (c *counting) ReadAt(b []byte, off int64) (int, error) {
	c.n += int64(len(b))
	return c.Reader.ReadAt(b, off)
}

// TestManyMarks: what is full of the marks of programs, and holds none, is given up, and
// when the context ends.
func TestManyMarks(t *testing.T) {
	le := binary.LittleEndian
	far := make([]byte, headLen64)
	copy(far, "\x7fELF\x02\x01")
	le.PutUint16(far[18:], machX86)
	le.PutUint64(far[32:], 1<<20)
	le.PutUint16(far[56:], 64)
	huge := make([]byte, kernelHead)
	copy(huge, "MZ")
	le.PutUint64(huge[16:], 1<<62)
	copy(huge[56:], kernelMark)
	for name, mark := range map[string][]byte{"bare": far[:4], "headers far away": far, "huge kernels": huge} {
		b := bytes.Repeat(mark, 2<<20/len(mark))
		src := &counting{Reader: bytes.NewReader(b)}
		ims, err := findImages(t.Context(), src)
		if err != nil || len(ims) > 0 {
			t.Errorf("%s: %d programs, %v", name, len(ims), err)
		}
		if most := 64<<20 + 8*int64(len(b)); src.n > most || src.n < int64(len(b)) {
			t.Errorf("%s: %d bytes of %d are read", name, src.n, len(b))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := findImages(ctx, src); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// truncated is a stream that ends before its size.
type truncated struct{ *bytes.Reader }

func (s truncated) Size() int64 { return s.Reader.Size() + 1 }

// TestStreamEndsEarly has both streams end before the size they say.
func TestStreamEndsEarly(t *testing.T) {
	b := random(1, 100<<10)
	for _, p := range [][2]Source{{bytes.NewReader(b), truncated{bytes.NewReader(b)}}, {truncated{bytes.NewReader(b)}, bytes.NewReader(b)}} {
		if _, err := Create(context.Background(), p[0], p[1], io.Discard, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	}
}

// TestIndexMemory: the index takes about what it may at most, whatever comes again.
func TestIndexMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	old := random(1, 8<<20)
	for _, memory := range []int64{1 << 20, 4 << 20, 12 << 20, 64 << 20} {
		for _, same := range [][]span{nil, {{0, 4 << 20}}, {{1 << 20, 2 << 20}, {3 << 20, 8 << 20}}} {
			x := newIndex(old, same, memory)
			if n := int64(4 * (len(x.first) + len(x.places))); n > memory {
				t.Errorf("%d bytes of %d with %v", n, memory, same)
			}
			at := 5<<20 + 64*x.unit // a seed, whatever the strides
			if pos, l := x.search(old[at:at+4000], -1); pos != at || l != 4000 {
				t.Errorf("found %d bytes at %d with %d bytes", l, pos, memory)
			}
		}
	}
}
