package layer_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
)

// erofs returns an image that mkfs.erofs 1.5 made (-zlz4): two files that are packed and two
// that are stored.
func erofs(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("../../testdata/lz4.erofs")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEROFS(t *testing.T) {
	b := erofs(t)
	found, plain := blocks(t, b)
	t.Logf("%d blocks, %d bytes, %d plain", len(found), len(b), len(plain))
	if len(found) != 8 || len(plain) != 44309 {
		t.Error("other blocks")
	}
	for _, m := range found {
		if (m.Off+m.Packed)%4096 != 0 {
			t.Errorf("a block from %d to %d", m.Off, m.Off+m.Packed)
		}
	}
	in := append(text(7, 1001), append(b, erofs(t)...)...)
	if twice, _ := blocks(t, in); len(twice) != 2*len(found) {
		t.Errorf("%d blocks in two images", len(twice))
	}
	for i := range 160 {
		c := bytes.Clone(b)
		if i < 128 {
			c[1024+i] ^= 0x41
		} else {
			c[len(c)-1-(i-128)*1499] ^= 0x41
		}
		blocks(t, c)
	}
	for n := 0; n < len(b); n += 3989 {
		blocks(t, b[:n])
	}
	binary.LittleEndian.PutUint32(b[1024+80:], 0) // no padding: packed bytes may end anywhere
	if found, _ := blocks(t, b); len(found) > 0 {
		t.Errorf("%d blocks in an image without padding", len(found))
	}
}

// FuzzEROFS looks for blocks that crash Find or are not made again.
func FuzzEROFS(f *testing.F) {
	b := erofs(f)
	for at := 4096; at < len(b); at += 4096 {
		f.Add(b[1024:1152], b[at:at+4096])
	}
	f.Fuzz(func(t *testing.T, super, block []byte) {
		b := make([]byte, 8192)
		copy(b[1024:1152], super)
		copy(b[1024:], "\xe2\xe1\xf5\xe0")
		blocks(t, append(b, block...))
	})
}
