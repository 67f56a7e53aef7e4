package patch_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"updraft/delta/patch"
)

var update = flag.Bool("update", false, "write the golden vectors anew")

// create makes the patch from old to fresh, and checks it.
func create(t testing.TB, old, fresh []byte, o patch.Options) []byte {
	t.Helper()
	var p bytes.Buffer
	if _, err := patch.Create(t.Context(), bytes.NewReader(old), bytes.NewReader(fresh), &p, o); err != nil {
		t.Fatalf("create: %v", err)
	}
	got, err := decode(t.Context(), p.Bytes(), old)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	if !bytes.Equal(got, fresh) {
		t.Fatal("the output differs")
	}
	return p.Bytes()
}

func decode(ctx context.Context, p, old []byte) ([]byte, error) {
	var out bytes.Buffer
	_, err := patch.Decode(ctx, bytes.NewReader(p), bytes.NewReader(old), &out, patch.DecodeOptions{})
	return out.Bytes(), err
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// text is compressible: words of a small vocabulary.
func text(r *rand.Rand, n int) []byte {
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "%x ", r.IntN(500)*7919)
	}
	return b[:n]
}

// edit changes b in count places: bytes, insertions, deletions, moves, and runs
// in which every fourth byte differs, as in moved code.
func edit(r *rand.Rand, b []byte, count int) []byte {
	b = bytes.Clone(b)
	for range count {
		if len(b) < 16 {
			return b
		}
		at, n := r.IntN(len(b)), 1+r.IntN(min(len(b), 3000))
		end := min(at+n, len(b))
		switch r.IntN(6) {
		case 0:
			b[at] ^= byte(1 + r.IntN(255))
		case 1:
			b = append(b[:at:at], append(random(r, n), b[at:]...)...)
		case 2:
			b = append(b[:at:at], b[end:]...)
		case 3:
			run := bytes.Clone(b[at:end])
			b = append(b[:at:at], b[end:]...)
			to := r.IntN(len(b) + 1)
			b = append(b[:to:to], append(run, b[to:]...)...)
		case 4:
			for i := at; i < end; i += 4 {
				b[i] += 12
			}
		case 5:
			b = b[:max(len(b)-n/8, 1)]
		}
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(1, 2))
	big, words := random(r, 3<<20), text(r, 100<<10)
	sparse := make([]byte, 2<<20)
	copy(sparse[1<<20:], "in the middle")
	for _, c := range []struct {
		name       string
		old, fresh []byte
	}{
		{"both empty", nil, nil},
		{"from nothing", nil, words},
		{"to nothing", words, nil},
		{"one byte", []byte{1}, []byte{1}},
		{"another byte", []byte{1}, []byte{2}},
		{"one byte from much", big, []byte{7}},
		{"much from one byte", []byte{7}, big[:100<<10]},
		{"identical", big, big},
		{"truncated", big, big[:1<<20+7]},
		{"tail", big, big[len(big)-12345:]},
		{"front inserted", big, append([]byte("x"), big...)},
		{"swapped halves", big, append(bytes.Clone(big[1<<20:]), big[:1<<20]...)},
		{"doubled", words, append(bytes.Clone(words), words...)},
		{"unlike", words, random(r, 100<<10)},
		{"sparse", make([]byte, 1<<20), sparse},
		{"sparse, emptied", sparse, make([]byte, 2<<20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, o := range []patch.Options{{}, {Profile: patch.Plain}, {SegmentSize: 64 << 10, Jobs: 3}} {
				create(t, c.old, c.fresh, o)
			}
		})
	}
}

func TestRandomEdits(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		old := text(r, r.IntN(40<<10))
		if seed%2 == 0 {
			old = random(r, r.IntN(40<<10))
		}
		create(t, old, edit(r, old, r.IntN(60)), patch.Options{SegmentSize: 1<<10 + r.IntN(30<<10)})
	}
}

// Little must cost little: that is what patches are for.
func TestSizes(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(4, 4))
	old := random(r, 8<<20)
	one := bytes.Clone(old)
	one[5<<20] ^= 1
	for _, c := range []struct {
		name  string
		fresh []byte
		limit int
	}{
		{"identical", old, 150},
		{"one byte", one, 300},
		{"inserted", append([]byte("hello"), old...), 300},
		{"edited", edit(r, old, 20), 40 << 10},
	} {
		if p := create(t, old, c.fresh, patch.Options{}); len(p) > c.limit {
			t.Errorf("%s: %d bytes, want at most %d", c.name, len(p), c.limit)
		}
	}
}

func TestDeterministic(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	old := text(r, 1<<20)
	fresh := edit(r, old, 200)
	one := create(t, old, fresh, patch.Options{Jobs: 1, SegmentSize: 128 << 10})
	for _, jobs := range []int{2, 5} {
		if !bytes.Equal(one, create(t, old, fresh, patch.Options{Jobs: jobs, SegmentSize: 128 << 10})) {
			t.Errorf("%d jobs make another patch", jobs)
		}
	}
}

func TestWrongBase(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	old := random(r, 1<<20)
	p := create(t, old, edit(r, old, 10), patch.Options{})
	other := bytes.Clone(old)
	other[300<<10] ^= 1
	for name, base := range map[string][]byte{"other size": old[1:], "one bit": other, "unlike": random(r, len(old))} {
		if _, err := decode(t.Context(), p, base); !errors.Is(err, patch.ErrBase) {
			t.Errorf("%s: error %v, want ErrBase", name, err)
		}
	}
}

func TestFlippedBytes(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(7, 7))
	old := text(r, 16<<10)
	p := create(t, old, edit(r, old, 12), patch.Options{SegmentSize: 8 << 10})
	for i := range p {
		for _, bit := range []byte{1, 0x80} {
			q := bytes.Clone(p)
			q[i] ^= bit
			if _, err := decode(t.Context(), q, old); err == nil {
				t.Fatalf("byte %d of %d flipped: no error", i, len(p))
			}
		}
	}
	for n := 0; n < len(p); n += 7 {
		if _, err := decode(t.Context(), p[:n], old); err == nil {
			t.Fatalf("cut to %d of %d bytes: no error", n, len(p))
		}
	}
	if _, err := decode(t.Context(), append(bytes.Clone(p), 0), old); !errors.Is(err, patch.ErrCorrupt) {
		t.Errorf("longer by a byte: error %v, want ErrCorrupt", err)
	}
}

// failing fails after some reads or writes.
type failing struct {
	*bytes.Reader
	left int
	then func()
}

var errBroken = errors.New("broken")

func (f *failing) ReadAt(b []byte, off int64) (int, error) {
	if f.left--; f.left < 0 {
		if f.then != nil {
			f.then()
		} else {
			return 0, errBroken
		}
	}
	return f.Reader.ReadAt(b, off)
}

func (f *failing) Write(b []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errBroken
	}
	return len(b), nil
}

// TestCreateBrokenBase: a base that cannot be read while a patch is made is said to be just
// that; there is no patch yet that could name another.
func TestCreateBrokenBase(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	old, fresh := program(183, nil), program(183, map[int]bool{7: true})
	for left := 0; ; left += 1 + left/16 {
		_, err := patch.Create(t.Context(), &failing{Reader: bytes.NewReader(old), left: left}, bytes.NewReader(fresh), io.Discard, patch.Options{Jobs: 1})
		if err == nil {
			return
		}
		if !errors.Is(err, errBroken) || errors.Is(err, patch.ErrBase) {
			t.Fatalf("the base breaks after %d reads: error %v", left, err)
		}
	}
}

func TestBrokenEnds(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(8, 8))
	old := text(r, 256<<10)
	fresh := edit(r, old, 50)
	p := create(t, old, fresh, patch.Options{SegmentSize: 32 << 10})
	for left := range 6 {
		_, err := patch.Decode(t.Context(), &failing{Reader: bytes.NewReader(p), left: left}, bytes.NewReader(old), io.Discard, patch.DecodeOptions{})
		if !errors.Is(err, errBroken) {
			t.Errorf("patch breaks after %d reads: error %v", left, err)
		}
		_, err = patch.Decode(t.Context(), bytes.NewReader(p), &failing{Reader: bytes.NewReader(old), left: left}, io.Discard, patch.DecodeOptions{})
		if !errors.Is(err, errBroken) {
			t.Errorf("base breaks after %d reads: error %v", left, err)
		}
		_, err = patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), &failing{left: left}, patch.DecodeOptions{})
		if !errors.Is(err, errBroken) {
			t.Errorf("output breaks after %d writes: error %v", left, err)
		}
	}
	for _, s := range [][2]patch.Source{{&failing{Reader: bytes.NewReader(old)}, bytes.NewReader(fresh)}, {bytes.NewReader(old), &failing{Reader: bytes.NewReader(fresh)}}} {
		if _, err := patch.Create(t.Context(), s[0], s[1], io.Discard, patch.Options{}); !errors.Is(err, errBroken) {
			t.Errorf("create from a broken source: error %v", err)
		}
	}
	if _, err := patch.Create(t.Context(), bytes.NewReader(old), bytes.NewReader(fresh), &failing{}, patch.Options{}); !errors.Is(err, errBroken) {
		t.Errorf("create to a broken sink: error %v", err)
	}
}

func TestCancel(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	old := text(r, 1<<20)
	fresh := edit(r, old, 50)
	p := create(t, old, fresh, patch.Options{SegmentSize: 64 << 10})
	ctx, cancel := context.WithCancel(t.Context())
	src := &failing{Reader: bytes.NewReader(p), left: 4, then: cancel}
	if _, err := patch.Decode(ctx, src, bytes.NewReader(old), io.Discard, patch.DecodeOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("decode: error %v, want Canceled", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	told := func(int64, int64) { cancel() }
	if _, err := patch.Create(ctx, bytes.NewReader(old), bytes.NewReader(fresh), io.Discard, patch.Options{Progress: told}); !errors.Is(err, context.Canceled) {
		t.Errorf("create: error %v, want Canceled", err)
	}
}

// arriving lets a read wait until its bytes have come.
type arriving struct {
	*bytes.Reader
	upTo chan int64 // how much has come, more each time
	have int64
}

func (a *arriving) ReadAt(b []byte, off int64) (int, error) {
	for a.have < off+int64(len(b)) {
		a.have = <-a.upTo
	}
	return a.Reader.ReadAt(b, off)
}

// TestArriving decodes a patch while it arrives: what can be made is made before
// the rest is there.
func TestArriving(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 10))
	old := text(r, 256<<10)
	fresh := edit(r, old, 50)
	p := create(t, old, fresh, patch.Options{Profile: patch.Plain, SegmentSize: 32 << 10})
	in, err := patch.Inspect(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	src := &arriving{Reader: bytes.NewReader(p), upTo: make(chan int64)}
	rd, wr := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := patch.Decode(context.Background(), src, bytes.NewReader(old), wr, patch.DecodeOptions{})
		done <- errors.Join(err, wr.Close())
	}()
	off := in.HeaderBytes
	var out []byte
	for _, s := range in.Segments {
		off += s.Bytes
		src.upTo <- off
		b := make([]byte, s.Size)
		if _, err := io.ReadFull(rd, b); err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	if err := <-done; err != nil || !bytes.Equal(out, fresh) {
		t.Errorf("error %v, output right: %v", err, bytes.Equal(out, fresh))
	}
}

func TestInspect(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	old := text(r, 1<<20)
	fresh := edit(r, old, 100)
	p := create(t, old, fresh, patch.Options{Profile: patch.Plain, SegmentSize: 128 << 10})
	in, err := patch.Inspect(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	if in.BaseSize != int64(len(old)) || in.NewSize != int64(len(fresh)) || in.BaseSum != sha256.Sum256(old) || in.NewSum != sha256.Sum256(fresh) {
		t.Errorf("sizes or digests are wrong: %+v", in)
	}
	bytesIn, off := in.HeaderBytes, int64(0)
	for i, s := range in.Segments {
		if s.Offset != off {
			t.Errorf("segment %d is at %d, want %d", i, s.Offset, off)
		}
		off += s.Size
		bytesIn += s.Bytes
	}
	if off != in.NewSize || bytesIn != int64(len(p)) {
		t.Errorf("segments give %d of %d bytes from %d of %d", off, in.NewSize, bytesIn, len(p))
	}
	if in.Memory > 32<<20 || in.Work > in.NewSize {
		t.Errorf("memory %d, work %d", in.Memory, in.Work)
	}
	_, err = patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, patch.DecodeOptions{Memory: 1000})
	if !errors.Is(err, patch.ErrTooLarge) {
		t.Errorf("with 1000 bytes of memory: error %v, want ErrTooLarge", err)
	}
}

func TestVersions(t *testing.T) {
	p := create(t, []byte("a"), []byte("b"), patch.Options{})
	p[7]++
	if _, err := patch.Inspect(bytes.NewReader(p)); !errors.Is(err, patch.ErrVersion) {
		t.Errorf("later version: error %v", err)
	}
	p[0]++
	if _, err := patch.Inspect(bytes.NewReader(p)); !errors.Is(err, patch.ErrCorrupt) {
		t.Errorf("not a patch: error %v", err)
	}
}

// TestDenseMemory: what does not compress beside dense segments leaves them the memory.
func TestDenseMemory(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(14, 12))
	old := append(random(r, 1000), program(183, nil)...)
	fresh := append(random(r, patch.MaxSegment), program(183, map[int]bool{7: true, 90: true, 333: true})...)
	in, err := patch.Inspect(bytes.NewReader(create(t, old, fresh, patch.Options{})))
	if err != nil || in.Profile != "dense" || in.Memory > 32<<20 {
		t.Errorf("%s, %d bytes of memory: %v", in.Profile, in.Memory, err)
	}
}

// allocated returns the bytes that fn allocates.
func allocated(fn func()) uint64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	fn()
	runtime.ReadMemStats(&b)
	return b.TotalAlloc - a.TotalAlloc
}

// TestMemory bounds all that a decoder ever allocates, garbage included.
func TestMemory(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(12, 12))
	old := append(text(r, 6<<20), random(r, 6<<20)...)
	p := create(t, old, edit(r, old, 100), patch.Options{})
	n := allocated(func() {
		if _, err := patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, patch.DecodeOptions{}); err != nil {
			t.Error(err)
		}
	})
	if n > 32<<20 {
		t.Errorf("decoding allocated %d bytes", n)
	}
}

func TestGolden(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 13))
	old := text(r, 40<<10)
	fresh := edit(r, old, 40)
	golden(t, "testdata/golden-plain.patch", create(t, old, fresh, patch.Options{Profile: patch.Plain, SegmentSize: 16 << 10}), old, fresh)
}

// TestDenseGolden has references of all machines.
func TestDenseGolden(t *testing.T) {
	var old, fresh []byte
	for _, mach := range []uint16{3, 40, 62, 183, 243} {
		old = append(old, program(mach, nil)...)
		fresh = append(fresh, program(mach, map[int]bool{7: true, 90: true, 201: true, 202: true, 333: true})...)
	}
	p := create(t, old, fresh, patch.Options{SegmentSize: 64 << 10})
	if n := patch.Kinds(p); n[3] < 4 || n[2]+n[5] > 0 {
		t.Errorf("segments of kinds %v", n)
	}
	golden(t, "testdata/golden-dense.patch", p, old, fresh)
}
