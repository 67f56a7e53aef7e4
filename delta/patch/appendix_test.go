package patch_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"updraft/delta/patch"
)

// repeated returns a base, and an output with so many copies of the same n new bytes, edited each, between parts of the
// base.
func repeated(seed uint64, n, copies int) (old, fresh []byte) {
	r := rand.New(rand.NewPCG(seed, 61))
	old = text(r, 40<<10+1000) // it ends within a page
	added := append(text(r, n-2000), old[len(old)-2000:]...)
	for i := n - 2000; i < n; i += 90 {
		added[i] ^= 2
	}
	at := 0
	for range copies {
		fresh = append(append(fresh, old[at:at+8<<10]...), added...)
		added = bytes.Clone(added)
		added[n/3] ^= 1
		at += 8 << 10
	}
	return old, append(fresh, old[at:]...)
}

// TestAppendix: what is new and comes several times is in the patch once, in whatever segments it is.
func TestAppendix(t *testing.T) {
	for _, profile := range []patch.Profile{patch.Auto, patch.Plain, patch.Dense} {
		o := patch.Options{Profile: profile, SegmentSize: 16 << 10}
		old, once := repeated(1, 12<<10, 1)
		_, fresh := repeated(1, 12<<10, 4)
		p := create(t, old, fresh, o)
		if n := len(create(t, old, once, o)); len(p) > n+n/8 {
			t.Errorf("%s: %d bytes, %d with one copy", profile, len(p), n)
		}
		in, err := patch.Inspect(bytes.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		shared, bytesOf := int64(0), int64(0)
		for i, s := range in.Segments {
			if s.Shared {
				if i > 0 && !in.Segments[i-1].Shared || s.Offset != in.NewSize+shared {
					t.Errorf("%s: segment %d is %+v", profile, i, s)
				}
				shared += s.Size
				bytesOf += s.Bytes
			}
		}
		if shared < 8<<10 || shared > 13<<10 || in.File != 0 {
			t.Errorf("%s: an appendix of %d bytes, and a file of %d", profile, shared, in.File)
		}
		told := int64(0)
		_, err = patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, patch.DecodeOptions{Account: func(c patch.Cost) {
			if c.Part == patch.Shared {
				told += c.Bytes
				if c.Size != 0 {
					t.Errorf("%s: %+v", profile, c)
				}
			}
		}})
		if err != nil || told != bytesOf {
			t.Errorf("%s: of %d bytes for what is shared %d are told of: %v", profile, bytesOf, told, err)
		}
		if underRace {
			continue // one goroutine: nothing for the race detector
		}
		for i := 0; i < len(p); i += 61 {
			b := bytes.Clone(p)
			b[i] ^= 16
			if got, err := decode(t.Context(), b, old); err == nil && !bytes.Equal(got, fresh) {
				t.Errorf("%s: byte %d changed: a wrong output", profile, i)
			}
		}
		for i := 0; i < len(old); i += 997 {
			b := bytes.Clone(old)
			b[i] ^= 16
			if got, err := decode(t.Context(), p, b); !errors.Is(err, patch.ErrBase) && !bytes.Equal(got, fresh) {
				t.Errorf("%s: byte %d of the base changed: %v", profile, i, err)
			}
		}
	}
}

// TestAppendixIsNew: what the base has as it is, is not in the appendix if it is long.
func TestAppendixIsNew(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 61))
	old := random(r, 256<<10)
	part := slices.Concat(text(r, 8<<10), old[100<<10:200<<10], text(r, 8<<10))
	fresh := slices.Concat(old[:50<<10], part, old[50<<10:100<<10], part)
	in, err := patch.Inspect(bytes.NewReader(create(t, old, fresh, patch.Options{SegmentSize: 64 << 10})))
	if err != nil {
		t.Fatal(err)
	}
	if n := sharedIn(in); n < 14<<10 || n > 20<<10 {
		t.Errorf("an appendix of %d bytes", n)
	}
}

// TestAppendixOfPeriods: of what comes again and again the appendix has one.
func TestAppendixOfPeriods(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 61))
	old, fresh := random(r, 10<<10), bytes.Repeat(random(r, 4093), 200)
	in, err := patch.Inspect(bytes.NewReader(create(t, old, fresh, patch.Options{Profile: patch.Plain, SegmentSize: 32 << 10})))
	if err != nil {
		t.Fatal(err)
	}
	if n := sharedIn(in); n > 3*4093 {
		t.Errorf("an appendix of %d bytes", n)
	}
}

func sharedIn(in patch.Info) (n int64) {
	for _, s := range in.Segments {
		if s.Shared {
			n += s.Size
		}
	}
	return n
}

// TestAppendixMemory: what a decoder keeps of it in memory counts where segments are cut to what there is.
func TestAppendixMemory(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("long; runs without the race detector")
	}
	r := rand.New(rand.NewPCG(7, 61))
	words, again, seg := make([]byte, 600<<10), random(r, 300<<10), 1280<<10
	for i := range words {
		words[i] = byte(r.IntN(3))
	}
	for _, last := range []int{1160 << 10, 1185 << 10} {
		fresh := slices.Concat(words, again, random(r, seg-len(words)-len(again)), random(r, seg-len(again)), again, random(r, last))
		in, err := patch.Inspect(bytes.NewReader(create(t, random(r, 4<<10), fresh, patch.Options{Profile: patch.Dense, SegmentSize: seg})))
		if err != nil {
			t.Fatal(err)
		}
		if in.Memory > 32<<20 || sharedIn(in) == 0 || in.File != sharedIn(in) {
			t.Errorf("%d bytes of memory, an appendix of %d", in.Memory, sharedIn(in))
		}
	}
}

// TestAppendixInFile: a large one is not in memory.
func TestAppendixInFile(t *testing.T) {
	old, fresh := repeated(2, 700<<10, 2)
	p := create(t, old, fresh, patch.Options{Profile: patch.Plain, SegmentSize: 256 << 10})
	in, err := patch.Inspect(bytes.NewReader(p))
	if err != nil || in.File < 600<<10 {
		t.Fatalf("%+v, %v", in, err)
	}
	run := func(o patch.DecodeOptions) error {
		_, err := patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, o)
		return err
	}
	if err := run(patch.DecodeOptions{File: in.File}); err != nil {
		t.Error(err)
	}
	if err := run(patch.DecodeOptions{File: in.File - 1}); !errors.Is(err, patch.ErrFile) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("too little room: %v", err)
	}
	if err := run(patch.DecodeOptions{Scratch: filepath.Join(t.TempDir(), "missing")}); !errors.Is(err, patch.ErrFile) || errors.Is(err, patch.ErrCorrupt) || errors.Is(err, patch.ErrBase) {
		t.Errorf("no directory: %v", err)
	}
}

// TestAppendixGolden has dense segments and an appendix.
func TestAppendixGolden(t *testing.T) {
	old, fresh := repeated(3, 6<<10, 3)
	golden(t, "testdata/golden-appendix.patch", create(t, old, fresh, patch.Options{SegmentSize: 8 << 10}), old, fresh)
}

// TestAppendixOfProgram: a program that is there twice, changed alike, is not torn: its references are still predicted.
func TestAppendixOfProgram(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(4, 61))
	sep := random(r, 3<<20)
	both := func(skip map[int]bool) []byte {
		return slices.Concat(program(183, skip), sep, program(183, skip))
	}
	skip := map[int]bool{7: true, 90: true, 201: true, 202: true, 333: true}
	once := create(t, program(183, nil), program(183, skip), patch.Options{Profile: patch.Dense})
	twice := create(t, both(nil), both(skip), patch.Options{Profile: patch.Dense, SegmentSize: 1 << 20})
	if len(twice) > 2*len(once)+200 {
		t.Errorf("%d bytes for two, %d for one", len(twice), len(once))
	}
}
