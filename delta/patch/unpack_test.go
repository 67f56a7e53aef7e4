package patch_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"updraft/delta/patch"
	"updraft/delta/patch/internal/deflate"
)

// level returns zlib's settings.
func level(n uint8) deflate.Params {
	return deflate.Params{Family: deflate.Zlib, Level: n, Memory: 8, Window: 15}
}

// packed returns the raw deflate stream of plain, by a compressor that is known.
func packed(p deflate.Params, plain []byte) []byte {
	var b bytes.Buffer
	w, err := deflate.NewWriter(&b, p, nil)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// gz returns a gzip file.
func gz(p deflate.Params, plain []byte) []byte {
	b := append([]byte("\x1f\x8b\x08\x00\x11\x22\x33\x44\x00\x03"), packed(p, plain)...)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(plain))
	return binary.LittleEndian.AppendUint32(b, uint32(len(plain)))
}

// blocks returns plain as squashfs has it: in zlib streams, or stored where that is
// shorter.
func blocks(size int, plain []byte) []byte {
	out := []byte("hsqs of a kind")
	for ; len(plain) > 0; plain = plain[min(size, len(plain)):] {
		b := plain[:min(size, len(plain))]
		z := append([]byte{0x78, 0xda}, packed(level(9), b)...)
		if z = binary.BigEndian.AppendUint32(z, adler32.Checksum(b)); len(z) >= len(b) {
			z = b
		}
		out = append(out, z...)
	}
	return out
}

// tarred returns a tar archive of files.
func tarred(files ...[]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, f := range files {
		w.WriteHeader(&tar.Header{Name: fmt.Sprint("file-", i), Size: int64(len(f)), Mode: 0o644})
		w.Write(f)
	}
	w.Close()
	return b.Bytes()
}

// zipped returns a zip archive of files.
func zipped(files ...[]byte) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i, f := range files {
		h := &zip.FileHeader{Name: fmt.Sprint("file-", i), Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(f), UncompressedSize64: uint64(len(f))}
		z := packed(level(6), f)
		h.CompressedSize64 = uint64(len(z))
		w2, err := w.CreateRaw(h)
		if err != nil {
			panic(err)
		}
		w2.Write(z)
	}
	w.Close()
	return b.Bytes()
}

// containers are ways to pack the same files.
var containers = map[string]func(files ...[]byte) []byte{
	"gzip":     func(f ...[]byte) []byte { return gz(level(6), tarred(f...)) },
	"gzip -9":  func(f ...[]byte) []byte { p := level(9); p.Family = deflate.Gzip; return gz(p, tarred(f...)) },
	"zip":      zipped,
	"squashfs": func(f ...[]byte) []byte { return blocks(16<<10, bytes.Join(f, nil)) },
	"members":  func(f ...[]byte) []byte { return tarred(gz(level(6), f[0]), gz(level(1), f[1]), gz(level(9), f[2])) },
	"nested":   func(f ...[]byte) []byte { return gz(level(6), tarred(f[0], gz(level(9), f[1]), zipped(f[2]))) },
	"layer": func(f ...[]byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		w.Write(tarred(f...))
		w.Close()
		return out.Bytes()
	},
	"blocks of gzip": func(f ...[]byte) []byte {
		return blocks(16<<10, bytes.Join([][]byte{f[0], gz(level(9), f[1]), f[2]}, nil))
	},
}

// pair returns two versions of a few files.
func pair(seed uint64) (old, fresh [][]byte) {
	r := rand.New(rand.NewPCG(seed, 50))
	for i := range 3 {
		f := append(text(r, 50<<10), random(r, 10<<10)...)
		old = append(old, f)
		if i != 1 || seed%2 == 0 {
			f = append([]byte("new"), f...)
			f[len(f)/2] ^= 1
		}
		fresh = append(fresh, f)
	}
	return old, fresh
}

func TestUnpack(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	for name, pack := range containers {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(2) {
				a, b := pair(seed)
				old, fresh := pack(a...), pack(b...)
				p := create(t, old, fresh, patch.Options{})
				in, err := patch.Inspect(bytes.NewReader(p))
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d of %d bytes, recipe %d, %d streams", len(p), len(fresh), in.RecipeBytes, in.Packed)
				if len(p) > 1200 || in.Packed == 0 || in.Memory > 32<<20 {
					t.Errorf("%d of %d bytes: %+v", len(p), len(fresh), in)
				}
			}
		})
	}
}

// TestUnpackStays: what cannot be made again, or is in both, stays as it is.
func TestUnpackStays(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(1, 51))
	plain := text(r, 50<<10)
	strange := func(b []byte) []byte {
		var out bytes.Buffer
		w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
		w.Write(b)
		w.Close()
		return out.Bytes()
	}
	same := gz(level(6), plain)
	for _, c := range []struct {
		name       string
		old, fresh []byte
	}{
		{"foreign", strange(plain), strange(append(plain[:25<<10:25<<10], "other"...))},
		{"the same", append([]byte("old"), same...), append([]byte("new"), same...)},
		{"only in the base", same, random(r, 10<<10)},
	} {
		in, err := patch.Inspect(bytes.NewReader(create(t, c.old, c.fresh, patch.Options{})))
		if err != nil {
			t.Fatal(err)
		}
		if in.RecipeBytes != 0 {
			t.Errorf("%s: %+v", c.name, in)
		}
	}
	// From nothing, and with one that is known beside one that is not.
	create(t, nil, same, patch.Options{})
	create(t, append(strange(plain), gz(level(6), plain)...), append(strange(plain[1:]), gz(level(6), plain[1:])...), patch.Options{})
}

func TestUnpackProfiles(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	a, b := pair(0)
	old, fresh := containers["nested"](a...), containers["nested"](b...)
	for _, o := range []patch.Options{{Profile: patch.Plain}, {Profile: patch.Dense}, {SegmentSize: 16 << 10}} {
		if p := create(t, old, fresh, o); len(p) > 2000 {
			t.Errorf("%+v: %d bytes", o, len(p))
		}
	}
	one := create(t, old, fresh, patch.Options{Jobs: 1})
	if !bytes.Equal(one, create(t, old, fresh, patch.Options{Jobs: 4})) {
		t.Error("more jobs make another patch")
	}
}

// unpackPatch returns a small patch with a recipe.
func unpackPatch(t testing.TB) (p, old, fresh []byte) {
	r := rand.New(rand.NewPCG(3, 52))
	words := text(r, 12<<10)
	pack := func(b []byte) []byte {
		return blocks(4<<10, bytes.Join([][]byte{b, gz(level(6), b[:5<<10]), random(rand.New(rand.NewPCG(9, 9)), 300)}, nil))
	}
	old, fresh = pack(words), pack(edit(r, words, 6))
	p = create(t, old, fresh, patch.Options{SegmentSize: 8 << 10})
	if patch.Recipe(p) == nil {
		t.Fatal("no recipe")
	}
	return p, old, fresh
}

func TestUnpackWrongBase(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	p, old, fresh := unpackPatch(t)
	for i := 20; i < len(old); i += 101 {
		b := bytes.Clone(old)
		b[i] ^= 4
		// Checksums of streams that are unpacked, for one, do not matter.
		if got, err := decode(t.Context(), p, b); err != nil && !errors.Is(err, patch.ErrBase) || err == nil && !bytes.Equal(got, fresh) {
			t.Errorf("byte %d: error %v, want ErrBase", i, err)
		}
	}
}

func TestUnpackBrokenEnds(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	p, old, _ := unpackPatch(t)
	for left := range 6 {
		_, err := patch.Decode(t.Context(), &failing{Reader: bytes.NewReader(p), left: left}, bytes.NewReader(old), io.Discard, patch.DecodeOptions{})
		if !errors.Is(err, errBroken) {
			t.Errorf("patch breaks after %d reads: error %v", left, err)
		}
		_, err = patch.Decode(t.Context(), bytes.NewReader(p), &failing{Reader: bytes.NewReader(old), left: left}, io.Discard, patch.DecodeOptions{})
		if !errors.Is(err, errBroken) || !errors.Is(err, patch.ErrBase) {
			t.Errorf("base breaks after %d reads: error %v", left, err)
		}
		_, err = patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), &failing{left: left}, patch.DecodeOptions{})
		if !errors.Is(err, errBroken) {
			t.Errorf("output breaks after %d writes: error %v", left, err)
		}
	}
}

func TestUnpackGolden(t *testing.T) {
	p, old, fresh := unpackPatch(t)
	golden(t, "testdata/golden-unpack.patch", p, old, fresh)
}

// golden checks that the file has p, and that it makes fresh of old.
func golden(t *testing.T, name string, p, old, fresh []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decode(t.Context(), want, old); err != nil || !bytes.Equal(got, fresh) {
		t.Errorf("%s no longer decodes: %v", name, err)
	}
	if !bytes.Equal(p, want) {
		t.Errorf("%s: the encoder makes another patch (-update when that is meant)", name)
	}
}

// TestUnpackFlippedBytes damages a recipe byte by byte. Some recipes mean the same.
func TestUnpackFlippedBytes(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	p, old, fresh := unpackPatch(t)
	r := patch.Recipe(p)
	if got, err := decode(t.Context(), patch.WithRecipe(p, r), old); err != nil || !bytes.Equal(got, fresh) {
		t.Fatalf("the same recipe: %v", err)
	}
	for i := range r {
		for _, bit := range []byte{1, 0x80} {
			b := bytes.Clone(r)
			b[i] ^= bit
			got, err := decode(t.Context(), patch.WithRecipe(p, b), old)
			if err != nil && !errors.Is(err, patch.ErrCorrupt) || err == nil && !bytes.Equal(got, fresh) {
				t.Errorf("byte %d of %d flipped: error %v", i, len(r), err)
			}
		}
	}
	for n := range r {
		if _, err := decode(t.Context(), patch.WithRecipe(p, r[:n]), old); !errors.Is(err, patch.ErrCorrupt) {
			t.Errorf("cut to %d of %d bytes: error %v", n, len(r), err)
		}
	}
	if _, err := decode(t.Context(), patch.WithRecipe(p, append(bytes.Clone(r), 0)), old); !errors.Is(err, patch.ErrCorrupt) {
		t.Errorf("longer by a byte: error %v", err)
	}
}

// TestUnpackMemory bounds what a decoder allocates for long members, garbage included.
func TestUnpackMemory(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("takes a few seconds")
	}
	r := rand.New(rand.NewPCG(5, 53))
	files := [][]byte{append(text(r, 5<<20), random(r, 2<<20)...), text(r, 1<<20), text(r, 1<<20)}
	old := containers["nested"](files...)
	files[0], files[1] = append([]byte("front"), edit(r, files[0], 30)...), edit(r, files[1], 10)
	fresh := containers["nested"](files[0], files[2], files[1])
	p := create(t, old, fresh, patch.Options{})
	n := allocated(func() {
		if _, err := patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, patch.DecodeOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%d of %d bytes, allocated %d", len(p), len(fresh), n)
	if n > 40<<20 {
		t.Errorf("decoding allocated %d bytes", n)
	}
}

// TestUnpackSquashfs makes images with the real tool.
func TestUnpackSquashfs(t *testing.T) {
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip(err)
	}
	a, b := pair(0)
	image := func(dir, out string) *exec.Cmd {
		return exec.Command("mksquashfs", dir, out, "-comp", "gzip", "-all-root", "-mkfs-time", "0", "-all-time", "0", "-b", "32768")
	}
	old, fresh := imageOf(t, a, image), imageOf(t, b, image)
	p := create(t, old, fresh, patch.Options{})
	t.Logf("%d of %d bytes", len(p), len(fresh))
	if len(p) > 2500 {
		t.Errorf("%d of %d bytes", len(p), len(fresh))
	}
}

// FuzzRecipe looks for recipes that crash the decoder or make it allocate.
func FuzzRecipe(f *testing.F) {
	p, old, _ := unpackPatch(f)
	frames, oldFrames, _ := parsePatch(f)
	f.Add(patch.Recipe(p), false)
	f.Add(patch.Recipe(frames), true)
	f.Fuzz(func(t *testing.T, r []byte, framed bool) {
		if len(r) > 1<<16 {
			return
		}
		if framed {
			tame(t, frames, r, oldFrames)
		} else {
			tame(t, p, r, old)
		}
	})
}

// FuzzBlocks does so with blocks of lz4.
func FuzzBlocks(f *testing.F) {
	p, old, _ := squashPatch(f)
	f.Add(patch.Recipe(p))
	f.Fuzz(func(t *testing.T, r []byte) {
		if len(r) <= 1<<16 {
			tame(t, p, r, old)
		}
	})
}

// tame checks that p with the recipe r makes something of old or is corrupt, in little memory.
func tame(t *testing.T, p, r, old []byte) {
	t.Helper()
	p = patch.WithRecipe(p, r)
	if n := allocated(func() {
		_, err := patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, patch.DecodeOptions{})
		if err != nil && !errors.Is(err, patch.ErrCorrupt) {
			t.Error(err)
		}
	}); n > maxAlloc {
		t.Errorf("allocated %d bytes", n)
	}
}
