package xz_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"updraft/delta/patch/internal/parse/parsetest"
	"updraft/delta/patch/internal/xz"
)

// wrapped returns a stream around chunks: of one block, without check, whose index
// says that it has so many plain bytes.
func wrapped(chunks []byte, plain int) []byte {
	b := []byte("\xfd7zXZ\x00\x00\x00\xff\x12\xd9\x41\x02\x00\x21\x01\x16\x00\x00\x00")
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[12:]))
	b = append(b, chunks...)
	b = append(b, make([]byte, -len(chunks)&3)...)
	index := binary.AppendUvarint([]byte{0, 1}, uint64(12+len(chunks)))
	index = binary.AppendUvarint(index, uint64(plain))
	index = append(index, make([]byte, -len(index)&3)...)
	b = append(b, binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))...)
	foot := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4))
	foot = append(foot, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(foot))
	return append(append(b, foot...), "YZ"...)
}

// FuzzSplit looks for streams that crash Split, make it allocate, or are not joined to
// the same bytes again. With bare, a stream is put around the bytes.
func FuzzSplit(f *testing.F) {
	for _, b := range parsetest.Goldens(f, "testdata/*.xz") {
		f.Add(b, false)
		f.Add(b[24:len(b)-20], true)
	}
	f.Add([]byte{1, 0, 2, 'a', 'b', 'c', 2, 0, 0, 'd', 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, bare bool) {
		const most = 4 << 20
		var plain, parse parsetest.Counted
		split := func() (packed int64, err error) {
			plain, parse = parsetest.Counted{Max: most}, parsetest.Counted{Max: most}
			n := parsetest.Allocated(func() {
				packed, err = xz.Split(bytes.NewReader(b), 0, int64(len(b)), &plain, &parse, nil)
			})
			if n > xz.SplitMemory+4*most+parsetest.Slack {
				t.Errorf("allocated %d bytes", n)
			}
			return packed, err
		}
		if bare {
			chunks := b
			b = wrapped(chunks, 0)
			split()
			b = wrapped(chunks, plain.N)
		}
		packed, err := split()
		if err != nil || plain.N > most || parse.N > most {
			return
		}
		var out bytes.Buffer
		if err := xz.Join(&out, &plain, &parse); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), b[:packed]) {
			t.Errorf("joined % x, want % x", out.Bytes(), b[:packed])
		}
	})
}

// FuzzJoin looks for a parse that crashes Join or makes it allocate.
func FuzzJoin(f *testing.F) {
	for _, b := range parsetest.Goldens(f, "testdata/*.xz") {
		k, err := codec.Take(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(k.Plain, k.Parse)
	}
	f.Fuzz(func(t *testing.T, plain, parse []byte) {
		out, again := parsetest.Counted{Max: 4 << 20}, parsetest.Counted{Max: 4 << 20}
		var err error
		n := parsetest.Allocated(func() { err = xz.Join(&out, bytes.NewReader(plain), bytes.NewReader(parse)) })
		if n > xz.JoinMemory+uint64(4*out.N)+parsetest.Slack {
			t.Errorf("allocated %d bytes", n)
		}
		// Nothing that was coded before may have a part in it.
		if xz.Join(&again, bytes.NewReader(plain), bytes.NewReader(parse)); err == nil && !bytes.Equal(out.Bytes(), again.Bytes()) {
			t.Errorf("makes two streams")
		}
	})
}
