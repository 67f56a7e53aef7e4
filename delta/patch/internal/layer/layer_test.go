package layer_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"updraft/delta/patch/internal/deflate"
	"updraft/delta/patch/internal/layer"
	split "updraft/delta/patch/internal/zstd"
)

// text is compressible.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "%x ", r.IntN(3000)*7919)
	}
	return b[:n]
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

// level6 is what zlib does by itself.
var level6 = deflate.Params{Family: deflate.Zlib, Level: 6, Memory: 8, Window: 15}

// pack returns the member that a Writer makes of plain.
func pack(t testing.TB, c *layer.Class, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	given := false
	w := layer.NewWriter(&b, func() (layer.Output, bool) {
		if given {
			return layer.Output{}, false
		}
		given = true
		return layer.Output{Plain: int64(len(plain)), Class: c}, true
	})
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sample is a stream with members, its view, and how to make it.
type sample struct {
	stream, view []byte // the view without parses
	parse        []byte
	members      []layer.Member
	outputs      []layer.Output
}

// whole returns the view with the parses.
func (s *sample) whole() []byte { return append(bytes.Clone(s.view), s.parse...) }

// raw appends bytes that are in no member.
func (s *sample) raw(b []byte) {
	s.stream = append(s.stream, b...)
	s.view = append(s.view, b...)
}

func (s *sample) member(t testing.TB, c *layer.Class, plain []byte) {
	s.add(c, pack(t, c, plain), plain, nil)
}

// frame appends a zstd frame.
func (s *sample) frame(t testing.TB, level zstd.EncoderLevel, plain []byte) {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level))
	if err != nil {
		t.Fatal(err)
	}
	packed := w.EncodeAll(plain, nil)
	var parse bytes.Buffer
	if _, err := split.Split(bytes.NewReader(packed), 0, int64(len(packed)), nil, &parse, nil); err != nil {
		t.Fatal(err)
	}
	s.add(&layer.Class{Wrap: layer.Zstd}, packed, plain, parse.Bytes())
}

func (s *sample) add(c *layer.Class, packed, plain, parse []byte) {
	gap := int64(len(s.stream))
	if n := len(s.members); n > 0 {
		gap -= s.members[n-1].Off + s.members[n-1].Packed
	}
	s.members = append(s.members, layer.Member{Off: int64(len(s.stream)), Packed: int64(len(packed)), Plain: int64(len(plain)), Parse: int64(len(parse)), Wrap: c.Wrap})
	s.outputs = append(s.outputs, layer.Output{Gap: gap, Plain: int64(len(plain)), Parse: int64(len(parse)), Class: c})
	s.stream = append(s.stream, packed...)
	s.view = append(s.view, plain...)
	s.parse = append(s.parse, parse...)
}

func newSample(t testing.TB, long int) *sample {
	if testing.Short() {
		long /= 8 // the race detector makes it slow
	}
	s := &sample{}
	z := &layer.Class{Wrap: layer.Zlib, Head: [2]byte{0x78, 0x9c}, Params: level6}
	g := &layer.Class{Wrap: layer.Gzip, Params: level6}
	s.raw(noise(1, 1000))
	s.member(t, z, text(2, 5000))
	s.member(t, z, text(3, 70000))
	s.raw([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"))
	s.member(t, g, append(text(4, long), noise(5, long/4)...))
	s.raw(text(6, 3000))
	s.frame(t, zstd.SpeedDefault, text(8, 300<<10))
	s.member(t, z, text(7, 900))
	s.frame(t, zstd.SpeedBetterCompression, append(text(9, long/2), noise(9, 3000)...))
	return s
}

func (s *sample) next() func() (layer.Output, bool) {
	left := s.outputs
	return func() (o layer.Output, ok bool) {
		if len(left) == 0 {
			return o, false
		}
		o, left = left[0], left[1:]
		return o, true
	}
}

func find(t testing.TB, b []byte, known []layer.Member) ([]layer.Found, *layer.Spools) {
	t.Helper()
	spools := layer.NewSpools(t.TempDir())
	t.Cleanup(func() { spools.Close() })
	ms, err := layer.Find(t.Context(), bytes.NewReader(b), known, spools, 1000, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return ms, spools
}

func TestFind(t *testing.T) {
	s := newSample(t, 6<<20)
	ms, spools := find(t, s.stream, nil)
	if len(ms) != len(s.members) {
		t.Fatalf("found %d members, want %d", len(ms), len(s.members))
	}
	for i, m := range ms {
		if m.Member != s.members[i] {
			t.Errorf("member %d: %+v, want %+v", i, m.Member, s.members[i])
		}
	}
	v, err := layer.NewSpooled(bytes.NewReader(s.stream), ms, spools, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(v, 0, v.Size()))
	if err != nil || !bytes.Equal(got, s.whole()) || v.Main() != int64(len(s.view)) {
		t.Errorf("view of %d bytes, want %d and %d: %v", len(got), len(s.view), len(s.parse), err)
	}
	ms, _ = find(t, s.stream, s.members[1:3])
	if len(ms) != 4 || ms[0].Member != s.members[0] || ms[1].Member != s.members[3] {
		t.Errorf("with known ones: found %d members", len(ms))
	}
}

// TestFindFiles finds what usual programs write.
func TestFindFiles(t *testing.T) {
	plain := text(1, 100<<10)
	write := func(open func(io.Writer) io.WriteCloser) []byte {
		var b bytes.Buffer
		w := open(&b)
		w.Write(plain)
		w.Close()
		return b.Bytes()
	}
	gz := write(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
	named := write(func(w io.Writer) io.WriteCloser {
		z := gzip.NewWriter(w)
		z.Name, z.Comment, z.Extra = "a name", "a comment", []byte("extra")
		return z
	})
	zl := write(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) })
	var archive bytes.Buffer
	zw := zip.NewWriter(&archive)
	for i := range 3 {
		w, _ := zw.Create(fmt.Sprint("file", i))
		w.Write(plain[i:])
	}
	zw.Close()
	damaged := bytes.Clone(gz)
	damaged[len(damaged)-6] ^= 1
	for _, c := range []struct {
		name string
		b    []byte
		want int
	}{
		{"gzip", gz, 1}, {"gzip with a name", named, 1}, {"zlib", zl, 1}, {"zip", archive.Bytes(), 3},
		{"two", append(bytes.Clone(gz), zl...), 2}, {"behind a piece", append(noise(3, 1<<20-5), gz...), 1},
		{"damaged", damaged, 0}, {"cut short", gz[:len(gz)-9], 0}, {"cut in the checksum", gz[:len(gz)-2], 0},
		{"header alone", gz[:12], 0}, {"noise", noise(4, 1<<20), 0}, {"empty", nil, 0},
		{"false starts", bytes.Repeat([]byte("x\x9c"), 10000), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			ms, _ := find(t, c.b, nil)
			if len(ms) != c.want {
				t.Errorf("found %d members, want %d", len(ms), c.want)
			}
		})
	}
}

// TestFindGivesUp: what looks like members again and again does not take forever.
func TestFindGivesUp(t *testing.T) {
	if testing.Short() {
		t.Skip("inflates 64 MiB")
	}
	one := pack(t, &layer.Class{Wrap: layer.Zlib, Head: [2]byte{0x78, 0x9c}, Params: level6}, make([]byte, 4<<20))
	one[len(one)-1] ^= 1
	spools := layer.NewSpools(t.TempDir())
	defer spools.Close()
	ms, err := layer.Find(t.Context(), bytes.NewReader(bytes.Repeat(one, 200)), nil, spools, 1000, 1<<30)
	if err != nil || len(ms) != 0 || spools.Size() != 0 {
		t.Errorf("found %d, %d bytes in the spools: %v", len(ms), spools.Size(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := layer.Find(ctx, bytes.NewReader(one), nil, spools, 1000, 1<<30); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestFindLittleRoom: what inflates to more than there is room for stays packed.
func TestFindLittleRoom(t *testing.T) {
	s := newSample(t, 1<<20)
	spools := layer.NewSpools(t.TempDir())
	defer spools.Close()
	ms, err := layer.Find(t.Context(), bytes.NewReader(s.stream), nil, spools, 1000, 200<<10)
	if err != nil || spools.Size() > 200<<10 {
		t.Errorf("%d bytes in the spools: %v", spools.Size(), err)
	}
	found, small := map[int64]bool{}, 0
	for _, m := range ms {
		found[m.Off] = true
	}
	for i, m := range s.members {
		switch n := m.Plain + m.Parse; {
		case n > 200<<10 && found[m.Off]:
			t.Errorf("member %d of %d bytes is found", i, n)
		case n < 80<<10:
			small++
			if !found[m.Off] {
				t.Errorf("member %d of %d bytes is not found", i, n)
			}
		}
	}
	if small < 3 {
		t.Errorf("%d small members", small)
	}
}

func TestView(t *testing.T) {
	s := newSample(t, 6<<20)
	for _, points := range []int64{0, 30 << 10, 1 << 20} {
		v, err := layer.NewView(t.Context(), bytes.NewReader(s.stream), s.members, 1<<30, points, 0, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		all := s.whole()
		if v.Size() != int64(len(all)) || v.Main() != int64(len(s.view)) {
			t.Fatalf("view of %d bytes, want %d", v.Size(), len(all))
		}
		defer v.Close()
		r := rand.New(rand.NewPCG(1, 1))
		for range 40 {
			off := r.IntN(len(all))
			b := make([]byte, 1+r.IntN(100<<10))
			n, err := v.ReadAt(b, int64(off))
			want := all[off:min(off+len(b), len(all))]
			if !bytes.Equal(b[:n], want) || n < len(b) != (err != nil) {
				t.Fatalf("%d bytes at %d: got %d, %v", len(b), off, n, err)
			}
		}
	}
}

// counting counts the bytes read.
type counting struct {
	*bytes.Reader
	n int64
}

func (c *counting) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.Reader.ReadAt(b, off)
	c.n += int64(n)
	return n, err
}

// TestViewPoints: reading a long member here and there does not inflate all of it
// each time.
func TestViewPoints(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	s := newSample(t, 8<<20)
	src := &counting{Reader: bytes.NewReader(s.stream)}
	v, err := layer.NewView(t.Context(), src, s.members, 1<<30, 1<<20, 0, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	for off := v.Main() - 200; off > 0; off -= v.Size() / 20 {
		if _, err := v.ReadAt(b, off); err != nil || !bytes.Equal(b, s.view[off:off+100]) {
			t.Fatalf("at %d: %v", off, err)
		}
	}
	if most := 4 * int64(len(s.stream)); src.n > most {
		t.Errorf("read %d bytes of %d", src.n, len(s.stream))
	}
}

// TestViewMemory: frames take what PartsOf says, whatever their headers say.
func TestViewMemory(t *testing.T) {
	s := &sample{}
	for i := range uint64(3) {
		s.frame(t, zstd.SpeedDefault, text(20+i, 900<<10))
	}
	w, err := zstd.NewWriter(nil, zstd.WithWindowSize(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer // without its size in front
	w.Reset(&b)
	plain := text(30, 1000<<10)
	w.Write(plain)
	w.Flush()
	w.Close()
	var parse bytes.Buffer
	if _, err := split.Split(bytes.NewReader(b.Bytes()), 0, int64(b.Len()), nil, &parse, nil); err != nil {
		t.Fatal(err)
	}
	s.add(&layer.Class{Wrap: layer.Zstd}, b.Bytes(), plain, parse.Bytes())
	v, err := layer.NewView(t.Context(), bytes.NewReader(s.stream), s.members, 1<<30, 0, 0, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if _, err := io.Copy(io.Discard, io.NewSectionReader(v, 0, v.Size())); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.GC() // pools keep what they have for one more
	runtime.ReadMemStats(&after)
	if n, p := int64(after.HeapAlloc)-int64(before.HeapAlloc), layer.PartsOf(s.members); n > p.Memory {
		t.Errorf("a view keeps %d bytes, want %d at most", n, p.Memory)
	}
	runtime.KeepAlive(v)
}

func TestViewOfOtherBase(t *testing.T) {
	s := newSample(t, 1<<20)
	for i := 1010; i < len(s.stream); i += 29999 {
		b := bytes.Clone(s.stream)
		b[i] ^= 0x41
		v, err := layer.NewView(t.Context(), bytes.NewReader(b), s.members, 1<<30, 1<<20, 0, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		// A flipped bit may give other bytes; what it must not give is another error.
		if _, err := io.Copy(io.Discard, io.NewSectionReader(v, 0, v.Size())); err != nil && !errors.Is(err, layer.ErrCorrupt) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	longer := append([]layer.Member(nil), s.members...)
	longer[1].Plain++
	v, err := layer.NewView(t.Context(), bytes.NewReader(s.stream), longer, 1<<30, 1<<20, 0, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, io.NewSectionReader(v, 0, v.Size())); !errors.Is(err, layer.ErrCorrupt) {
		t.Errorf("member that is shorter: %v", err)
	}
}

func TestMembersThatCannotBe(t *testing.T) {
	src := bytes.NewReader(make([]byte, 1000))
	for name, ms := range map[string][]layer.Member{
		"behind the end":    {{Off: 990, Packed: 20, Plain: 1}},
		"far behind":        {{Off: 2000, Packed: 20, Plain: 1}},
		"one over another":  {{Off: 0, Packed: 20, Plain: 1}, {Off: 19, Packed: 20, Plain: 1}},
		"nothing but wrap":  {{Off: 0, Packed: 6, Plain: 1, Wrap: layer.Zlib}},
		"no plain bytes":    {{Off: 0, Packed: 20}},
		"too many of them":  {{Off: 0, Packed: 20, Plain: 1 << 41}},
		"together too many": {{Off: 0, Packed: 20, Plain: 1 << 39}, {Off: 20, Packed: 20, Plain: 1 << 39}},
		"unknown wrap":      {{Off: 0, Packed: 20, Plain: 1, Wrap: layer.LZ4Block + 1}},
		"no parse":          {{Off: 0, Packed: 20, Plain: 1, Wrap: layer.Zstd}},
		"negative parse":    {{Off: 0, Packed: 20, Plain: 1, Parse: -1, Wrap: layer.Zstd}},
		"parse of deflate":  {{Off: 0, Packed: 20, Plain: 1, Parse: 1}},
		"too much parse":    {{Off: 0, Packed: 20, Plain: 1 << 38, Parse: 1 << 38, Wrap: layer.Zstd}, {Off: 20, Packed: 20, Plain: 1 << 38, Parse: 1 << 38, Wrap: layer.Zstd}},
	} {
		if _, err := layer.NewView(t.Context(), src, ms, 1<<39, 0, 0, nil, ""); !errors.Is(err, layer.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWriter(t *testing.T) {
	s := newSample(t, 1<<20)
	for _, piece := range []int{1 << 30, 50000, 333} {
		var out bytes.Buffer
		w := layer.NewWriter(&out, s.next())
		w.Queue.Write(s.parse)
		for off := 0; off < len(s.view); off += piece {
			if _, err := w.Write(s.view[off:min(off+piece, len(s.view))]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil || !bytes.Equal(out.Bytes(), s.stream) {
			t.Errorf("in pieces of %d: %d bytes, want %d: %v", piece, out.Len(), len(s.stream), err)
		}
	}
	w := layer.NewWriter(io.Discard, s.next())
	w.Queue.Write(s.parse)
	w.Write(s.view[:len(s.view)-1])
	if err := w.Close(); !errors.Is(err, layer.ErrCorrupt) {
		t.Errorf("closed early: %v", err)
	}
	w = layer.NewWriter(io.Discard, s.next())
	w.Queue.Write(s.parse[:len(s.parse)-8])
	if _, err := w.Write(s.view); !errors.Is(err, layer.ErrCorrupt) {
		t.Errorf("parse is cut short: %v", err)
	}
	w.Stop()
	w = layer.NewWriter(io.Discard, s.next())
	w.Queue.Write(append(s.parse, 0))
	w.Write(s.view)
	if err := w.Close(); !errors.Is(err, layer.ErrCorrupt) {
		t.Errorf("parse is too long: %v", err)
	}
	if _, err := w.Queue.Write(make([]byte, 3<<20)); !errors.Is(err, layer.ErrCorrupt) {
		t.Errorf("a parse of 3 MiB waits: %v", err)
	}
	for i := range s.outputs {
		was := s.outputs[i].Corrections
		s.outputs[i].Corrections = []byte{200, 200, 200}
		w = layer.NewWriter(io.Discard, s.next())
		w.Queue.Write(s.parse)
		if _, err := w.Write(s.view); !errors.Is(err, layer.ErrCorrupt) {
			t.Errorf("bad corrections of member %d: %v", i, err)
		}
		w.Stop()
		s.outputs[i].Corrections = was
	}
}

// full takes some bytes and no more.
type full struct{ left int }

var errFull = errors.New("full")

func (f *full) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestWriterToFullDisk(t *testing.T) {
	s := newSample(t, 100<<10)
	times := 50
	if testing.Short() {
		times = 8
	}
	for left := 0; left < len(s.stream); left += 1 + len(s.stream)/times {
		w := layer.NewWriter(&full{left}, s.next())
		w.Queue.Write(s.parse)
		_, err := w.Write(s.view)
		if err == nil {
			err = w.Close()
		}
		w.Stop()
		if !errors.Is(err, errFull) {
			t.Errorf("after %d bytes: %v", left, err)
		}
	}
}

func TestSpool(t *testing.T) {
	s := layer.NewSpools(t.TempDir()).Plain
	defer s.Close()
	want := noise(1, 9<<20)
	for off := 0; off < len(want); off += 1 << 20 {
		n := s.Size()
		s.Write(noise(2, 700<<10))
		s.Truncate(n)
		if _, err := s.Write(want[off:min(off+1<<20, len(want))]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d: %v", len(got), len(want), err)
	}
}

// FuzzView looks for members that crash a view.
func FuzzView(f *testing.F) {
	s := newSample(f, 300<<10)
	for _, m := range s.members {
		f.Add(m.Off, m.Packed, m.Plain, m.Parse, byte(m.Wrap), int64(100), s.stream[m.Off:m.Off+min(m.Packed, 2000)])
	}
	f.Fuzz(func(t *testing.T, off, packed, plain, parse int64, wrap byte, at int64, tail []byte) {
		b := append(bytes.Clone(s.stream[:5000]), tail...)
		v, err := layer.NewView(t.Context(), bytes.NewReader(b), []layer.Member{{Off: off, Packed: packed, Plain: plain, Parse: parse, Wrap: layer.Wrap(wrap)}}, 4<<20, 100<<10, 0, nil, "")
		if err != nil {
			return
		}
		defer v.Close()
		v.ReadAt(make([]byte, 10000), at)
		io.Copy(io.Discard, io.NewSectionReader(v, 0, v.Size()))
	})
}
