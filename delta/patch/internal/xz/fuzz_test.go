package xz_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"path/filepath"
	"runtime"
	"testing"

	"updraft/delta/patch/internal/xz"
)

// slack is what a test may allocate besides Split, Join and what they write.
const slack = 1 << 20

func allocated(fn func()) uint64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	fn()
	runtime.ReadMemStats(&b)
	return b.TotalAlloc - a.TotalAlloc
}

func goldens(f testing.TB) (all [][]byte) {
	files, err := filepath.Glob("testdata/*.xz")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		all = append(all, golden(f, filepath.Base(name[:len(name)-3])))
	}
	return all
}

// counted passes at most max bytes on, and counts them.
type counted struct {
	bytes.Buffer
	n, max int
}

func (c *counted) Write(b []byte) (int, error) {
	c.n += len(b)
	if c.n <= c.max {
		c.Buffer.Write(b)
	}
	return len(b), nil
}

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
	for _, b := range goldens(f) {
		f.Add(b, false)
		f.Add(b[24:len(b)-20], true)
	}
	f.Add([]byte{1, 0, 2, 'a', 'b', 'c', 2, 0, 0, 'd', 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, bare bool) {
		const most = 4 << 20
		var plain, parse counted
		split := func() (packed int64, err error) {
			plain, parse = counted{max: most}, counted{max: most}
			n := allocated(func() {
				packed, err = xz.Split(bytes.NewReader(b), 0, int64(len(b)), &plain, &parse, nil)
			})
			if n > xz.SplitMemory+4*most+slack {
				t.Errorf("allocated %d bytes", n)
			}
			return packed, err
		}
		if bare {
			chunks := b
			b = wrapped(chunks, 0)
			split()
			b = wrapped(chunks, plain.n)
		}
		packed, err := split()
		if err != nil || plain.n > most || parse.n > most {
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
	for _, b := range goldens(f) {
		k, err := split(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(k.plain, k.parse)
	}
	f.Fuzz(func(t *testing.T, plain, parse []byte) {
		out, again := counted{max: 4 << 20}, counted{max: 4 << 20}
		var err error
		n := allocated(func() { err = xz.Join(&out, bytes.NewReader(plain), bytes.NewReader(parse)) })
		if n > xz.JoinMemory+uint64(4*out.n)+slack {
			t.Errorf("allocated %d bytes", n)
		}
		// Nothing that was coded before may have a part in it.
		if xz.Join(&again, bytes.NewReader(plain), bytes.NewReader(parse)); err == nil && !bytes.Equal(out.Bytes(), again.Bytes()) {
			t.Errorf("makes two streams")
		}
	})
}
