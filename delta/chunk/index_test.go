package chunk_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/ipfs/go-cid"

	"updraft/delta/chunk"
)

func chunks(n int) []chunk.Chunk {
	var list []chunk.Chunk
	var off int64
	for i := range n {
		c := chunk.Chunk{Sum: sha256.Sum256([]byte(fmt.Sprint(i))), Offset: off, Len: 1 + i*7919%chunk.MaxLen}
		off += int64(c.Len)
		list = append(list, c)
	}
	return list
}

func TestIndexRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 257, 600} {
		want := chunks(n)
		b := chunk.AppendIndex(nil, want)
		got, err := chunk.ParseIndex(b)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%d chunks: %v", n, err)
		}
		sums, last := chunk.PageSums(b)
		if len(sums) != (n+255)/256 || n > 0 && last != (n-1)%256+1 || n == 0 && last != 0 {
			t.Errorf("%d chunks: %d pages, %d in the last", n, len(sums), last)
		}
		for i, sum := range sums {
			page := b[i*256*35 : min((i+1)*256*35, len(b))]
			if sha256.Sum256(page) != sum {
				t.Errorf("page %d: wrong digest", i)
			}
			list, err := chunk.ParsePage(page)
			if err != nil || list[0].Offset != 0 || list[0].Sum != want[i*256].Sum {
				t.Errorf("page %d: %v", i, err)
			}
		}
	}
}

func TestRecordVector(t *testing.T) {
	c := chunk.Chunk{Sum: [32]byte{0: 1, 31: 2}, Len: 0x012345}
	want := append(append([]byte{1}, make([]byte, 30)...), 2, 0x45, 0x23, 0x01)
	if got := chunk.AppendRecord(nil, c); !bytes.Equal(got, want) {
		t.Errorf("record % x", got)
	}
}

func TestParsePageRefuses(t *testing.T) {
	zero := make([]byte, 35)
	long := chunk.AppendRecord(nil, chunk.Chunk{Len: chunk.MaxLen + 1})
	for name, b := range map[string][]byte{
		"empty": nil, "cut": zero[:34], "zero length": zero, "too long": long,
		"too many": chunk.AppendIndex(nil, chunks(257)),
	} {
		if _, err := chunk.ParsePage(b); !errors.Is(err, chunk.ErrPage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := chunk.ParseIndex(zero[:34]); !errors.Is(err, chunk.ErrPage) {
		t.Errorf("cut index: %v", err)
	}
}

func TestCID(t *testing.T) {
	sum := sha256.Sum256([]byte("hello"))
	c := chunk.CID(sum)
	if s := c.String(); s != "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq" {
		t.Errorf("CID of hello: %s", s)
	}
	if got, err := chunk.FromCID(c); err != nil || got != sum {
		t.Errorf("back: %v", err)
	}
	other := cid.NewCidV1(cid.DagProtobuf, c.Hash())
	for _, bad := range []cid.Cid{{}, other, cid.NewCidV0(c.Hash())} {
		if _, err := chunk.FromCID(bad); !errors.Is(err, chunk.ErrCID) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func FuzzParsePage(f *testing.F) {
	f.Add(chunk.AppendIndex(nil, chunks(3)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := chunk.ParsePage(b)
		if err != nil {
			return
		}
		if !bytes.Equal(chunk.AppendIndex(nil, list), b) {
			t.Fatal("a page that parses must be written as it was read")
		}
	})
}
