package zstd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	packer "github.com/klauspost/compress/zstd"

	"updraft/delta/patch/internal/parse/parsetest"
	"updraft/delta/patch/internal/zstd"
)

// raw makes a frame of a header (behind the magic number) and blocks.
func raw(header string, blocks ...string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0xFD2FB528)
	b = append(b, header...)
	for _, s := range blocks {
		b = append(b, s...)
	}
	return b
}

// blockOf makes a last block.
func blockOf(kind, size int, content string) string {
	h := 1 | kind<<1 | size<<3
	return string([]byte{byte(h), byte(h >> 8), byte(h >> 16)}) + content
}

func TestSplitRefuses(t *testing.T) {
	good := pack(t, text(1, 3000), packer.WithEncoderCRC(true))
	damaged := bytes.Clone(good)
	damaged[len(damaged)-1] ^= 1
	const small = "\x00\x00" // no size, window of 1 KiB
	again := append(noise(1, 100_000), bytes.Repeat([]byte{1}, zstd.MaxWindow)...)
	far := pack(t, append(again, again[:100_000]...), packer.WithWindowSize(16<<20), packer.WithEncoderLevel(packer.SpeedBestCompression))
	for _, c := range []struct {
		name   string
		packed []byte
		want   error
	}{
		{"nothing", nil, zstd.ErrFormat},
		{"no magic", []byte("hello, hello, hello"), zstd.ErrFormat},
		{"skippable", append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00"), "abcd"...), zstd.ErrFormat},
		{"header cut", good[:5], zstd.ErrFormat},
		{"cut", good[:len(good)/2], zstd.ErrFormat},
		{"checksum cut", good[:len(good)-2], zstd.ErrFormat},
		{"checksum", damaged, zstd.ErrFormat},
		{"dictionary", raw("\x01\x00\x07", blockOf(0, 1, "a")), zstd.ErrUnsupported},
		{"reserved", raw("\x08\x00", blockOf(0, 1, "a")), zstd.ErrUnsupported},
		{"window", far, zstd.ErrUnsupported},
		{"segment", raw("\xa0\x00\x00\x00\x40", blockOf(0, 1, "a")), zstd.ErrFormat},
		{"size", raw("\x20\x02", blockOf(0, 1, "a")), zstd.ErrFormat},
		{"less than size", raw("\x20\x00", blockOf(0, 1, "a")), zstd.ErrFormat},
		{"reserved block", raw(small, blockOf(3, 1, "a")), zstd.ErrFormat},
		{"long block", raw(small, blockOf(1, 128<<10+1, "a")), zstd.ErrFormat},
		{"empty run", raw(small, blockOf(1, 0, "a")), zstd.ErrUnsupported},
		{"empty block", raw(small, blockOf(2, 0, "")), zstd.ErrFormat},
		{"empty run of literals", raw(small, blockOf(2, 3, "\x01a\x00")), zstd.ErrUnsupported},
		{"many literals", raw(small, blockOf(2, 3, "\xfc\xff\xff")), zstd.ErrFormat},
		{"no tree", raw(small, blockOf(2, 7, "\x13\x40\x00a\x00\x00\x00")), zstd.ErrFormat},
		{"behind no sequences", raw(small, blockOf(2, 4, "\x08a\x00\x00")), zstd.ErrFormat},
		{"reserved modes", raw(small, blockOf(2, 5, "\x08a\x01\x01\x01")), zstd.ErrFormat},
		{"no table before", raw(small, blockOf(2, 5, "\x08a\x01\xc0\x01")), zstd.ErrFormat},
		{"no end of bits", raw(small, blockOf(2, 5, "\x08a\x01\x00\x00")), zstd.ErrFormat},
		{"bits remain", raw(small, blockOf(2, 9, "\x08a\x01\x00\xff\xff\xff\xff\xff")), zstd.ErrFormat},
		{"sequences", raw(small, blockOf(2, 5, "\x08a\xff\xff\xff")), zstd.ErrFormat},
	} {
		if _, err := zstd.Split(bytes.NewReader(c.packed), 0, int64(len(c.packed)), nil, nil, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := zstd.Split(bytes.NewReader(good), 0, int64(len(good))+9, nil, nil, nil); err != nil {
		t.Errorf("with an end behind the source's: %v", err)
	}
	if _, err := zstd.Split(bytes.NewReader(good), 9, 3, nil, nil, nil); !errors.Is(err, zstd.ErrFormat) {
		t.Errorf("with an end in front of the beginning: %v", err)
	}
}

// failing fails after some bytes.
type failing struct{ left int }

var errFailed = errors.New("failed")

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFailed
	}
	return len(b), nil
}

func (f *failing) Read(b []byte) (int, error)            { return f.Write(b[:min(len(b), max(f.left, 1))]) }
func (f *failing) ReadAt(b []byte, _ int64) (int, error) { return f.Write(b) }

// TestErrorsPass checks that errors of what is read and written come out.
func TestErrorsPass(t *testing.T) {
	plain := text(1, 200_000)
	packed := pack(t, plain)
	_, parse := whole(split(t, packed))
	src := bytes.NewReader(packed)
	end := int64(len(packed))
	for name, err := range map[string]error{
		"src":        second(zstd.Split(&failing{}, 0, end, nil, nil, nil)),
		"plain out":  second(zstd.Split(src, 0, end, &failing{100}, nil, nil)),
		"parse out":  second(zstd.Split(src, 0, end, nil, &failing{100}, nil)),
		"unit":       second(zstd.Split(src, 0, end, nil, nil, func() error { return errFailed })),
		"plain in":   zstd.Join(io.Discard, &failing{100}, bytes.NewReader(parse)),
		"parse in":   zstd.Join(io.Discard, bytes.NewReader(plain), io.MultiReader(bytes.NewReader(parse[:100]), &failing{})),
		"packed out": zstd.Join(&failing{100}, bytes.NewReader(plain), bytes.NewReader(parse)),
	} {
		if !errors.Is(err, errFailed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second(_ int64, err error) error { return err }

// TestJoinReadsUnits checks that a block's parse and then its plain bytes are read, and
// nothing ahead of them: what is to come is not there yet.
func TestJoinReadsUnits(t *testing.T) {
	plain := inputs(t)["mixed"]
	packed := pack(t, plain, packer.WithEncoderCRC(true))
	units := split(t, packed)
	if len(units) < 4 {
		t.Fatalf("%d units", len(units))
	}
	var made bytes.Buffer
	var now [2]bytes.Reader // plain, parse
	next := 0
	feed := func(which int) readerFunc {
		return func(b []byte) (int, error) {
			if now[0].Len() == 0 && now[1].Len() == 0 && next < len(units) {
				now[0].Reset(units[next].plain)
				now[1].Reset(units[next].parse)
				next++
			}
			if which == 0 && now[1].Len() > 0 {
				t.Errorf("unit %d: plain bytes are read with %d bytes of parse left", next, now[1].Len())
			}
			return now[which].Read(b)
		}
	}
	if err := zstd.Join(&made, feed(0), feed(1)); err != nil || !bytes.Equal(made.Bytes(), packed) {
		t.Errorf("%d bytes of %d: %v", made.Len(), len(packed), err)
	}
}

type readerFunc func(b []byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestJoinRefuses changes single bytes of a parse, and cuts both ends: Join fails or
// makes a frame of the same plain bytes, or one that is none.
func TestJoinRefuses(t *testing.T) {
	plain := text(1, 5000)
	packed := pack(t, plain)
	_, parse := whole(split(t, packed))
	for n := range len(parse) {
		if n%8 == 0 {
			if err := zstd.Join(io.Discard, bytes.NewReader(plain), bytes.NewReader(parse[:n])); !errors.Is(err, zstd.ErrCorrupt) {
				t.Fatalf("%d bytes of parse: %v", n, err)
			}
		}
	}
	if err := zstd.Join(io.Discard, bytes.NewReader(plain[:len(plain)-1]), bytes.NewReader(parse)); !errors.Is(err, zstd.ErrCorrupt) {
		t.Errorf("a plain byte less: %v", err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	refused := 0
	for at := range parse {
		wrong := bytes.Clone(parse)
		wrong[at] ^= 1 << r.IntN(8)
		var b bytes.Buffer
		err := zstd.Join(&b, bytes.NewReader(plain), bytes.NewReader(wrong))
		switch {
		case err != nil && !errors.Is(err, zstd.ErrCorrupt):
			t.Errorf("byte %d: %v", at, err)
		case err != nil:
			refused++
		case bytes.Equal(b.Bytes(), packed):
			t.Errorf("byte %d changes nothing", at)
		}
	}
	if refused < len(parse)/4 {
		t.Errorf("of %d wrong parses only %d are refused", len(parse), refused)
	}
}

// TestMemory checks that frames cost what is in them, not what they say, and no more
// than is promised when the state is not there yet.
func TestMemory(t *testing.T) {
	plain := text(1, 100_000)
	packed := pack(t, plain, packer.WithWindowSize(8<<20))
	_, parse := whole(split(t, packed))
	runtime.GC()
	runtime.GC() // empties pools
	if n := parsetest.Allocated(func() { split0(t, packed) }); n > 3<<19 {
		t.Errorf("Split of a small frame allocates %d bytes", n)
	}
	if n := parsetest.Allocated(func() {
		if err := zstd.Join(io.Discard, bytes.NewReader(plain), bytes.NewReader(parse)); err != nil {
			t.Error(err)
		}
	}); n > zstd.JoinMemory {
		t.Errorf("Join allocates %d bytes", n)
	}
	packed = pack(t, bytes.Repeat(noise(1, 100_000), 300), packer.WithWindowSize(8<<20))
	runtime.GC()
	runtime.GC()
	if n := parsetest.Allocated(func() { split0(t, packed) }); n > zstd.SplitMemory {
		t.Errorf("Split of a large frame allocates %d bytes", n)
	}
}

func split0(t *testing.T, packed []byte) {
	if _, err := zstd.Split(bytes.NewReader(packed), 0, int64(len(packed)), nil, nil, nil); err != nil {
		t.Error(err)
	}
}
