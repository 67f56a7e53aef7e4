package patch_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"updraft/delta/patch"
	"updraft/delta/patch/internal/deflate"
)

// zst returns a zstd frame.
func zst(level zstd.EncoderLevel, plain []byte) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(plain, nil)
}

// zstBlocks returns plain as squashfs has it: in frames, or stored where that is shorter.
func zstBlocks(size int, plain []byte) []byte {
	out := []byte("hsqs of a kind")
	for ; len(plain) > 0; plain = plain[min(size, len(plain)):] {
		b := plain[:min(size, len(plain))]
		z := zst(zstd.SpeedBetterCompression, b)
		if len(z) >= len(b) {
			z = b
		}
		out = append(out, z...)
	}
	return out
}

// TestParse sees through frames, also within and around deflate streams.
func TestParse(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	for _, c := range []struct {
		name string
		pack func(f ...[]byte) []byte
	}{
		{"zstd", func(f ...[]byte) []byte { return zst(zstd.SpeedDefault, tarred(f...)) }},
		{"zstd fast", func(f ...[]byte) []byte { return zst(zstd.SpeedFastest, tarred(f...)) }},
		{"zstd best", func(f ...[]byte) []byte { return zst(zstd.SpeedBestCompression, tarred(f...)) }},
		{"squashfs", func(f ...[]byte) []byte { return zstBlocks(32<<10, bytes.Join(f, nil)) }},
		{"gzip in zstd", func(f ...[]byte) []byte {
			return zst(zstd.SpeedDefault, tarred(f[0], gz(level(9), f[1]), zipped(f[2])))
		}},
		{"zstd in gzip", func(f ...[]byte) []byte {
			return gz(level(6), tarred(f[0], zst(zstd.SpeedDefault, f[1]), zst(zstd.SpeedFastest, f[2])))
		}},
		{"zstd in zstd", func(f ...[]byte) []byte {
			return zst(zstd.SpeedDefault, tarred(f[0], zst(zstd.SpeedDefault, f[1]), zst(zstd.SpeedFastest, f[2])))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(2) {
				a, b := pair(seed)
				old, fresh := c.pack(a...), c.pack(b...)
				p := create(t, old, fresh, patch.Options{})
				in, err := patch.Inspect(bytes.NewReader(p))
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d of %d bytes, recipe %d, %d streams, memory %d", len(p), len(fresh), in.RecipeBytes, in.Packed, in.Memory)
				if len(p) > 9000 || in.Packed == 0 || in.Memory > 32<<20 {
					t.Errorf("%d of %d bytes: %+v", len(p), len(fresh), in)
				}
			}
		})
	}
}

// TestParseProfiles: short segments and one job or many give the same stream.
func TestParseProfiles(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	a, b := pair(0)
	old, fresh := zst(zstd.SpeedDefault, tarred(a...)), zst(zstd.SpeedDefault, tarred(b...))
	for _, o := range []patch.Options{{Profile: patch.Plain}, {Profile: patch.Dense}, {SegmentSize: 16 << 10}} {
		if p := create(t, old, fresh, o); len(p) > 12000 || patch.Recipe(p) == nil {
			t.Errorf("%+v: %d bytes", o, len(p))
		}
	}
	if !bytes.Equal(create(t, old, fresh, patch.Options{Jobs: 1}), create(t, old, fresh, patch.Options{Jobs: 4})) {
		t.Error("more jobs make another patch")
	}
}

// TestParseOrDense: where seeing through compression takes the memory that dense segments
// would, the patch without it is made as well, and the shorter one is taken.
func TestParseOrDense(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(16, 75))
	noise, words := random(r, 2200<<10), text(r, 2<<10+260<<10)
	side := func(edit string, skip map[int]bool) []byte {
		w := bytes.Clone(words)
		copy(w[1000:], edit)
		copy(w[len(w)-1000:], edit)
		b := noise[:len(noise):len(noise)]
		for _, mach := range []uint16{183, 62, 243} {
			b = append(b, program(mach, skip)...)
		}
		b = append(b, gz(level(6), w[:2<<10])...)
		return append(b, zst(zstd.SpeedBetterCompression, w[2<<10:])...)
	}
	p := create(t, side("old text", nil), side("new text", map[int]bool{7: true, 90: true, 201: true, 202: true, 333: true}), patch.Options{})
	in, err := patch.Inspect(bytes.NewReader(p))
	t.Logf("%d bytes, recipe %d, memory %d", len(p), in.RecipeBytes, in.Memory)
	if err != nil || in.Profile != "dense" {
		t.Errorf("%d bytes, %s: %v", len(p), in.Profile, err)
	}
}

// TestOneLayerOrDense: where a second layer takes the memory that dense segments would, the first alone is tried.
func TestOneLayerOrDense(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	words := text(rand.New(rand.NewPCG(16, 76)), 2<<10)
	side := func(edit string, skip map[int]bool) []byte {
		w := bytes.Clone(words)
		copy(w[1000:], edit)
		var b []byte
		for _, mach := range []uint16{183, 62, 243} {
			b = append(b, program(mach, skip)...)
		}
		return zst(zstd.SpeedBetterCompression, append(b, gz(level(6), w)...))
	}
	p := create(t, side("old text", nil), side("new text", map[int]bool{7: true, 90: true, 201: true, 202: true, 333: true}), patch.Options{})
	in, err := patch.Inspect(bytes.NewReader(p))
	t.Logf("%d bytes, recipe %d, memory %d, %d streams", len(p), in.RecipeBytes, in.Memory, in.Packed)
	if err != nil || in.Profile != "dense" || in.Packed != 1 {
		t.Errorf("%d bytes, %s, %d streams: %v", len(p), in.Profile, in.Packed, err)
	}
}

// longFrames returns streams in one frame that is too large to be kept in memory.
func longFrames() (old, fresh []byte) {
	r := rand.New(rand.NewPCG(7, 54))
	f := append(text(r, 6<<20), random(r, 1<<20)...)
	return zst(zstd.SpeedDefault, f), zst(zstd.SpeedDefault, append([]byte("front"), edit(r, f, 30)...))
}

// TestParseLong bounds what a decoder allocates for long frames, garbage included.
func TestParseLong(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("takes a few seconds")
	}
	old, fresh := longFrames()
	p := create(t, old, fresh, patch.Options{})
	in, err := patch.Inspect(bytes.NewReader(p))
	if err != nil || in.File < 7<<20 {
		t.Errorf("%+v, %v", in, err)
	}
	n := allocated(func() {
		if _, err := patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, patch.DecodeOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%d of %d bytes, allocated %d", len(p), len(fresh), n)
	if len(p) > len(fresh)*2/3 || n > 48<<20 {
		t.Errorf("%d of %d bytes, decoding allocated %d bytes", len(p), len(fresh), n)
	}
	_, err = patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, patch.DecodeOptions{Scratch: "/nowhere"})
	if !errors.Is(err, patch.ErrFile) || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, patch.ErrBase) || errors.Is(err, patch.ErrCorrupt) {
		t.Errorf("without a place for temporary files: %v", err)
	}
	_, err = patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, patch.DecodeOptions{File: in.File - 1})
	if !errors.Is(err, patch.ErrFile) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("without room for temporary files: %v", err)
	}
}

// TestParseStrange: where the base tells little of how frames are packed, they cost no more than they take.
func TestParseStrange(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(1, 55))
	plain := text(r, 3<<20)
	for name, old := range map[string][]byte{"another compressor": gz(level(6), plain), "nothing packed": random(r, 2<<20)} {
		fresh := zst(zstd.SpeedBestCompression, append(plain[:1<<20:1<<20], text(r, 1<<20)...))
		p := create(t, old, fresh, patch.Options{})
		t.Logf("%s: %d of %d bytes", name, len(p), len(fresh))
		if len(p) > len(fresh)+300 {
			t.Errorf("%s: %d of %d bytes", name, len(p), len(fresh))
		}
	}
}

// parsePatch returns a small patch with frames.
func parsePatch(t testing.TB) (p, old, fresh []byte) {
	r := rand.New(rand.NewPCG(3, 56))
	words := text(r, 12<<10)
	pack := func(b []byte) []byte {
		p := level(6)
		p.Family = deflate.Zlib
		return zstBlocks(4<<10, bytes.Join([][]byte{b, gz(p, b[:5<<10]), random(rand.New(rand.NewPCG(9, 9)), 300)}, nil))
	}
	old, fresh = pack(words), pack(edit(r, words, 6))
	p = create(t, old, fresh, patch.Options{SegmentSize: 8 << 10})
	if patch.Recipe(p) == nil {
		t.Fatal("no recipe")
	}
	return p, old, fresh
}

// TestParseFlippedBytes damages a patch with frames byte by byte. Some recipes mean the
// same.
func TestParseFlippedBytes(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	p, old, fresh := parsePatch(t)
	r := patch.Recipe(p)
	for i := range r {
		for _, bit := range []byte{1, 0x80} {
			b := bytes.Clone(r)
			b[i] ^= bit
			got, err := decode(t.Context(), patch.WithRecipe(p, b), old)
			if err != nil && !errors.Is(err, patch.ErrCorrupt) || err == nil && !bytes.Equal(got, fresh) {
				t.Errorf("byte %d of the recipe flipped: error %v", i, err)
			}
		}
	}
	for i := 0; i < len(p); i += 5 {
		b := bytes.Clone(p)
		b[i] ^= 0x10
		got, err := decode(t.Context(), patch.FixHeader(b), old)
		if err == nil && !bytes.Equal(got, fresh) {
			t.Errorf("byte %d flipped: another output", i)
		}
	}
	for i := 0; i < len(old); i += 211 {
		b := bytes.Clone(old)
		b[i] ^= 4
		if got, err := decode(t.Context(), p, b); err != nil && !errors.Is(err, patch.ErrBase) || err == nil && !bytes.Equal(got, fresh) {
			t.Errorf("byte %d of the base flipped: error %v, want ErrBase", i, err)
		}
	}
}

// TestParseGolden pins patches with frames.
func TestParseGolden(t *testing.T) {
	p, old, fresh := parsePatch(t)
	golden(t, "testdata/golden-parse.patch", p, old, fresh)
	// Parses have been coded as other dense segments.
	dense, err := os.ReadFile("testdata/golden-parse-dense.patch")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decode(t.Context(), dense, old); err != nil || !bytes.Equal(got, fresh) {
		t.Errorf("%d bytes, want %d: %v", len(got), len(fresh), err)
	}
}

// squashPatch returns a patch of images of squashfs that mksquashfs 4.5.1 packed with lz4.
func squashPatch(t testing.TB) (p, old, fresh []byte) {
	t.Helper()
	var images [2][]byte
	for i, name := range []string{"old", "new"} {
		b, err := os.ReadFile("testdata/lz4-" + name + ".squashfs")
		if err != nil {
			t.Fatal(err)
		}
		images[i] = b
	}
	return create(t, images[0], images[1], patch.Options{}), images[0], images[1]
}

// TestParseBlocks sees through blocks of lz4 that have no frames, and pins the patch.
func TestParseBlocks(t *testing.T) {
	p, old, fresh := squashPatch(t)
	in, err := patch.Inspect(bytes.NewReader(p))
	if err != nil || in.Packed < 10 || len(p) > 2000 {
		t.Errorf("%d of %d bytes: %+v, %v", len(p), len(fresh), in, err)
	}
	golden(t, "testdata/golden-blocks.patch", p, old, fresh)
}

// TestParseLZ4 sees through a frame of lz4, and pins the patch.
func TestParseLZ4(t *testing.T) {
	var b [2][]byte
	for i, name := range []string{"old.lz4", "new.lz4"} {
		var err error
		if b[i], err = os.ReadFile("testdata/" + name); err != nil {
			t.Fatal(err)
		}
	}
	p := create(t, b[0], b[1], patch.Options{})
	if len(p) > 1500 {
		t.Errorf("%d of %d bytes", len(p), len(b[1]))
	}
	golden(t, "testdata/golden-lz4.patch", p, b[0], b[1])
}

// TestParseSquashfs makes images with the real tool.
func TestParseSquashfs(t *testing.T) {
	for _, comp := range []string{"zstd", "xz", "lz4"} {
		parseImages(t, 10, func(dir, out string) *exec.Cmd {
			return exec.Command("mksquashfs", dir, out, "-comp", comp, "-all-root", "-mkfs-time", "0", "-all-time", "0", "-b", "32768")
		})
	}
}

// TestParseEROFS makes images with the real tool.
func TestParseEROFS(t *testing.T) {
	for _, comp := range []string{"lz4", "lz4hc"} {
		parseImages(t, 4, func(dir, out string) *exec.Cmd {
			return exec.Command("mkfs.erofs", "-z"+comp, "-T0", "--all-root", "-U6b1f3c1e-0a51-4a53-9c62-5d2b8a8e7f10", out, dir)
		})
	}
}

// parseImages makes images of two directories with a command, and looks for a patch
// of less than a share of the image.
func parseImages(t *testing.T, share int, command func(dir, out string) *exec.Cmd) {
	t.Helper()
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	a, b := pair(0)
	old, fresh := imageOf(t, a, command), imageOf(t, b, command)
	p := create(t, old, fresh, patch.Options{})
	t.Logf("%v: %d of %d bytes", command("", "").Args, len(p), len(fresh))
	if len(p) > len(fresh)/share {
		t.Errorf("%v: %d of %d bytes", command("", "").Args, len(p), len(fresh))
	}
}

// imageOf makes an image of a directory with these files by a command.
func imageOf(t *testing.T, files [][]byte, command func(dir, out string) *exec.Cmd) []byte {
	t.Helper()
	dir := t.TempDir()
	for i, f := range files {
		os.WriteFile(filepath.Join(dir, fmt.Sprint("file-", i)), f, 0o644)
	}
	out := filepath.Join(t.TempDir(), "image")
	c := command(dir, out)
	if m, err := c.CombinedOutput(); err != nil {
		t.Skipf("%v: %v: %s", c, err, m)
	}
	m, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
