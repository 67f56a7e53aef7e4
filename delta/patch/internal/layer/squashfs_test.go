package layer_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"testing"

	"updraft/delta/patch/internal/layer"
)

// image returns an image of squashfs that mksquashfs 4.5.1 made (-comp lz4 -b 4096), with
// inodes of all kinds but sockets, fragments, a hole, blocks that are stored, and extended
// attributes.
func image(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("../../testdata/lz4-old.squashfs")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// blocks returns the blocks of lz4 that are found in b, and their plain bytes.
func blocks(t testing.TB, b []byte) ([]layer.Found, []byte) {
	found, spools := find(t, b, nil)
	plain, err := io.ReadAll(io.NewSectionReader(spools.Plain, 0, spools.Plain.Size()))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found {
		if m.Wrap != layer.LZ4Block {
			t.Errorf("member of kind %d", m.Wrap)
		}
		var made bytes.Buffer
		parse := io.NewSectionReader(spools.Parse, m.ParseAt, m.Parse)
		if err := m.Wrap.Join(&made, bytes.NewReader(plain[m.Spool:m.Spool+m.Plain]), parse); err != nil || !bytes.Equal(made.Bytes(), b[m.Off:m.Off+m.Packed]) {
			t.Errorf("the block at %d is not made again: %v", m.Off, err)
		}
	}
	return found, plain
}

func TestSquashfs(t *testing.T) {
	b := image(t)
	found, plain := blocks(t, b)
	packed := int64(0)
	for _, m := range found {
		packed += m.Packed
	}
	t.Logf("%d blocks, %d of %d bytes, %d plain", len(found), packed, len(b), len(plain))
	if len(found) != 12 || len(plain) != 28298 {
		t.Error("other blocks")
	}
	in := append(text(7, 1001), append(b, image(t)...)...)
	if twice, _ := blocks(t, in); len(twice) != 2*len(found) {
		t.Errorf("%d blocks in two images", len(twice))
	}
	for i := range 200 {
		c := bytes.Clone(b)
		if i < 96 {
			c[i] ^= 0x41
		} else {
			c[len(c)-1-(i-96)*11] ^= 0x41
		}
		blocks(t, c)
	}
	for n := 0; n < len(b); n += 97 {
		blocks(t, b[:n])
	}
	b[20] = 3 // lzo
	if found, _ := blocks(t, b); len(found) > 0 {
		t.Errorf("%d blocks in an image with lzo", len(found))
	}
}

// FuzzSquashfs looks for images that crash Find, or have blocks that are not made again.
// One of those that it begins with has no data, its metadata follows the first bytes.
func FuzzSquashfs(f *testing.F) {
	b := image(f)
	f.Add(b[:96], b[96:])
	at := binary.LittleEndian.Uint64(b[64:])
	head := bytes.Clone(b[:96])
	for _, i := range []int{40, 48, 56, 64, 72, 80, 88} {
		binary.LittleEndian.PutUint64(head[i:], binary.LittleEndian.Uint64(head[i:])-at+96)
	}
	f.Add(head, b[at:])
	f.Fuzz(func(t *testing.T, head, tail []byte) {
		b := make([]byte, 96)
		copy(b, head)
		blocks(t, append(b, tail...))
	})
}
