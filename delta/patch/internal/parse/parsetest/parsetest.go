// Package parsetest tests codecs: that what Split makes is joined again, in units, and
// that errors come through.
package parsetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Slack is what a test may allocate besides Split, Join and what they write.
const Slack = 1 << 20

// Sample returns n bytes: words, runs, noise, and repetitions from far back.
func Sample(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	var b []byte
	for len(b) < n {
		switch k := r.IntN(40); {
		case k == 0:
			b = append(b, make([]byte, r.IntN(3000))...)
		case k == 1:
			for range r.IntN(600) {
				b = append(b, byte(r.Uint32()))
			}
		case k < 6 && len(b) > 0:
			from := r.IntN(len(b))
			b = append(b, b[from:from+min(r.IntN(400), len(b)-from)]...)
		default:
			b = append(b, "some of these words come again and again: "[r.IntN(30):]...)
		}
	}
	return b[:n]
}

// Allocated returns how many bytes fn allocates.
func Allocated(fn func()) uint64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	fn()
	runtime.ReadMemStats(&b)
	return b.TotalAlloc - a.TotalAlloc
}

// Goldens returns the files that pattern names, by their names.
func Goldens(t testing.TB, pattern string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	all := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(f)] = b
	}
	return all
}

// Tool gives b to a program, and returns what that writes. Without the program the test is
// skipped.
func Tool(t testing.TB, b []byte, name string, arg ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("no program %s to pack with: %v", name, err)
	}
	cmd := exec.Command(name, arg...)
	cmd.Stdin = bytes.NewReader(b)
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, arg, err, failed.Bytes())
	}
	return out.Bytes()
}

// Counted keeps at most Max bytes, and counts all.
type Counted struct {
	bytes.Buffer
	N, Max int
}

// Write implements io.Writer.
func (c *Counted) Write(b []byte) (int, error) {
	c.N += len(b)
	if c.N <= c.Max {
		c.Buffer.Write(b)
	}
	return len(b), nil
}

// Failing reads and writes nothing.
type Failing struct{ Err error }

// Read implements io.Reader.
func (f Failing) Read([]byte) (int, error) { return 0, f.Err }

// Write implements io.Writer.
func (f Failing) Write([]byte) (int, error) { return 0, f.Err }

// Codec is what is tested.
type Codec struct {
	Split   func(src io.ReaderAt, off, end int64, plain, parse io.Writer, unit func() error) (packed int64, err error)
	Join    func(w io.Writer, plain, parse io.Reader) error
	Corrupt error // Join's
}

// Taken is what Split made of a frame, in units.
type Taken struct {
	Plain, Parse []byte
	Units        [][2]int // plain bytes and parse at the end of each unit
	Packed       int64
}

// Take splits the frame that b begins with.
func (c Codec) Take(b []byte) (Taken, error) {
	var plain, parse bytes.Buffer
	var k Taken
	var err error
	k.Packed, err = c.Split(bytes.NewReader(b), 0, int64(len(b)), &plain, &parse, func() error {
		k.Units = append(k.Units, [2]int{plain.Len(), parse.Len()})
		return nil
	})
	k.Plain, k.Parse = plain.Bytes(), parse.Bytes()
	return k, err
}

// Check splits b, which begins with a frame, joins it, and returns what is between.
func (c Codec) Check(t testing.TB, b []byte) Taken {
	t.Helper()
	k, err := c.Take(b)
	if err != nil {
		t.Fatalf("split: %v", err)
	}
	if len(k.Parse)%8 != 0 {
		t.Errorf("%d bytes of parse", len(k.Parse))
	}
	last := [2]int{}
	for _, u := range k.Units {
		if u[0]-last[0] > 256<<10 || u[1]-last[1] > 257<<10 {
			t.Errorf("unit of %d, %d bytes of parse", u[0]-last[0], u[1]-last[1])
		}
		last = u
	}
	if last != [2]int{len(k.Plain), len(k.Parse)} {
		t.Errorf("last unit ends at %v of %d, %d", last, len(k.Plain), len(k.Parse))
	}
	var out bytes.Buffer
	order := &turns{t: &k}
	if err := c.Join(&out, turnPlain{order}, turnParse{order}); err != nil {
		t.Fatalf("join: %v", err)
	}
	if !bytes.Equal(out.Bytes(), b[:k.Packed]) {
		t.Fatalf("joined %d bytes to others, want %d", out.Len(), k.Packed)
	}
	if order.ahead || order.plain != len(k.Plain) || order.used != len(k.Parse) {
		t.Errorf("read ahead: %v; %d of %d, %d of %d", order.ahead, order.plain, len(k.Plain), order.used, len(k.Parse))
	}
	return k
}

// turns checks that Join reads unit by unit: the parse of one, then its plain bytes.
type turns struct {
	t           *Taken
	plain, used int
	ahead       bool
}

type turnPlain struct{ *turns }
type turnParse struct{ *turns }

func (r turnParse) Read(p []byte) (int, error) {
	n := copy(p, r.t.Parse[r.used:])
	if n == 0 {
		return 0, io.EOF
	}
	r.used += n
	for i, u := range r.t.Units {
		if i > 0 && r.used > r.t.Units[i-1][1] && r.plain < r.t.Units[i-1][0] && u[1] > 0 {
			r.ahead = true
		}
	}
	return n, nil
}

func (r turnPlain) Read(p []byte) (int, error) {
	n := copy(p, r.t.Plain[r.plain:])
	if n == 0 {
		return 0, io.EOF
	}
	r.plain += n
	for i, u := range r.t.Units {
		if i > 0 && r.plain > r.t.Units[i-1][0] && r.used < u[1] {
			r.ahead = true
		}
	}
	return n, nil
}

// Errors checks that what readers and writers report comes through, and that the end of
// either input is what is corrupt. b is a frame.
func (c Codec) Errors(t *testing.T, b []byte) {
	k := c.Check(t, b)
	end, src := int64(len(b)), bytes.NewReader(b)
	stop := errors.New("stop")
	failing := Failing{stop}
	plain := func() io.Reader { return bytes.NewReader(k.Plain) }
	parse := func() io.Reader { return bytes.NewReader(k.Parse) }
	second := func(_ int64, err error) error { return err }
	for name, err := range map[string]error{
		"plain out":  second(c.Split(src, 0, end, failing, nil, nil)),
		"parse out":  second(c.Split(src, 0, end, nil, failing, nil)),
		"unit":       second(c.Split(src, 0, end, nil, nil, func() error { return stop })),
		"packed out": c.Join(failing, plain(), parse()),
		"plain in":   c.Join(io.Discard, failing, parse()),
		"parse in":   c.Join(io.Discard, plain(), failing),
	} {
		if !errors.Is(err, stop) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n, err := c.Split(src, 0, end, nil, nil, nil); err != nil || n != end {
		t.Error(n, err)
	}
	for n := 0; n < len(k.Parse); n += 7 {
		if err := c.Join(io.Discard, plain(), bytes.NewReader(k.Parse[:n])); !errors.Is(err, c.Corrupt) {
			t.Fatal(n, err)
		}
	}
	if err := c.Join(io.Discard, bytes.NewReader(k.Plain[1:]), parse()); !errors.Is(err, c.Corrupt) {
		t.Error(err)
	}
}
