package zstd_test

import (
	"bytes"
	"testing"

	packer "github.com/klauspost/compress/zstd"

	"updraft/delta/patch/internal/parse/parsetest"
	"updraft/delta/patch/internal/zstd"
)

// FuzzSplit looks for frames that crash Split or make it allocate, or that Join does not
// make again.
func FuzzSplit(f *testing.F) {
	for _, level := range levels {
		f.Add(pack(f, text(1, 2000), packer.WithEncoderLevel(level)))
	}
	f.Add(stream(f, text(1, 3000), packer.WithWindowSize(1<<10)))
	f.Add(pack(f, nil, packer.WithZeroFrames(true)))
	f.Add(raw("\x00\x00", blockOf(1, 9, "a")))
	f.Fuzz(func(t *testing.T, packed []byte) {
		var plain, parse limited
		var n int64
		var err error
		if n := parsetest.Allocated(func() {
			n, err = zstd.Split(bytes.NewReader(packed), 0, int64(len(packed)), &plain, &parse, nil)
		}); n > zstd.SplitMemory+16*limit {
			t.Errorf("Split allocated %d bytes", n)
		}
		if err != nil {
			return
		}
		var made bytes.Buffer
		if err := zstd.Join(&made, bytes.NewReader(plain.Bytes()), bytes.NewReader(parse.Bytes())); err != nil {
			t.Errorf("Join: %v", err)
		} else if !bytes.Equal(made.Bytes(), packed[:n]) {
			t.Errorf("Join makes %d bytes, others than the %d of the frame", made.Len(), n)
		}
	})
}

// FuzzJoin looks for plain bytes and parses that crash Join or make it allocate. What it
// makes of them without error Split need not take, but if it does, Join makes it again.
func FuzzJoin(f *testing.F) {
	for _, level := range levels {
		plain, parse := whole(split(f, pack(f, text(1, 2000), packer.WithEncoderLevel(level))))
		f.Add(plain, parse)
	}
	plain, parse := whole(split(f, stream(f, text(1, 3000), packer.WithWindowSize(1<<10))))
	f.Add(plain, parse)
	plain, parse = whole(split(f, raw("\x00\x00", blockOf(1, 9, "a"))))
	f.Add(plain, parse)
	f.Fuzz(func(t *testing.T, plain, parse []byte) {
		var made limited
		var err error
		if n := parsetest.Allocated(func() {
			err = zstd.Join(&made, bytes.NewReader(plain), bytes.NewReader(parse))
		}); n > zstd.JoinMemory+16*limit {
			t.Errorf("Join allocated %d bytes", n)
		}
		if err != nil {
			return
		}
		// A parse may tell the same in another way than Split would, and may name a
		// match that is none.
		var again, p, q bytes.Buffer
		src := bytes.NewReader(made.Bytes())
		n, err := zstd.Split(src, 0, src.Size(), &p, &q, nil)
		if err != nil {
			return
		}
		if err := zstd.Join(&again, &p, &q); err != nil || !bytes.Equal(again.Bytes(), made.Bytes()[:n]) {
			t.Errorf("made again: %d bytes of %d: %v", again.Len(), n, err)
		}
	})
}

// limit bounds what fuzzing keeps of an output: a few bytes may stand for many.
const limit = 1 << 20

// limited is a buffer that fails above limit.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > limit {
		return 0, errFailed
	}
	return l.Buffer.Write(b)
}
