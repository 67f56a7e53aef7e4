package patch

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// letters is n bytes that can be packed, and repeat nowhere.
func letters(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnop"[r.IntN(16)]
	}
	return b
}

func gunzippable(plain []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(plain)
	w.Close()
	return b.Bytes()
}

// freeOf has less unpacked for nothing, so that there is less to do until it is too much.
func freeOf(t *testing.T, n int64) {
	was := unpackFree
	unpackFree = n
	t.Cleanup(func() { unpackFree = was })
}

// scatterer returns a base of compressed members, and a patch that a publisher made whose first plain segment takes
// so many single bytes from all over the base, each of which has something unpacked.
func scatterer(t *testing.T, n int) (old, hostile []byte) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 4 {
		old = fmt.Appendf(old, "gap %d", i)
		old = append(old, gunzippable(letters(r, 512<<10))...)
	}
	fresh := append([]byte("head"), gunzippable(letters(r, 64<<10))...)
	var p bytes.Buffer
	if _, err := Create(t.Context(), bytes.NewReader(old), bytes.NewReader(fresh), &p, Options{Profile: Plain}); err != nil {
		t.Fatal(err)
	}
	o, err := openPatch(bytes.NewReader(p.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	defer o.z.Close()
	view, end, err := o.recipe.view(t.Context(), bytes.NewReader(old), 0, nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	s := &o.segs[0]
	var cs []cover
	for i := range n {
		cs = append(cs, cover{n: int(s.at) + 2*i, o: r.IntN(int(o.baseView) - 1), l: 1})
	}
	w := &worker{old: pages{src: view, size: o.baseView}, new: make([]byte, s.size)}
	payload, err := w.encodePlain(0, cs, piece{kind: kindPlain, lo: int(s.at), hi: int(s.at + s.size)})
	if err != nil {
		t.Fatal(err)
	}
	rest := p.Bytes()[o.off+s.payload:]
	s.kind, s.sum, s.payload = kindPlain, checksum(w.new), int64(len(payload))
	hostile = append(o.header.append(nil), p.Bytes()[o.off-o.header.recipe:o.off]...)
	hostile = append(hostile, payload...)
	return old, append(hostile, rest...)
}

// TestUnpacksWithoutEnd: a patch that would have a decoder unpack the base again and again is given up.
func TestUnpacksWithoutEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	freeOf(t, 16<<20)
	old, p := scatterer(t, 4000)
	_, err := Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, DecodeOptions{})
	if !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrBase) || !bytes.Contains([]byte(err.Error()), []byte("again and again")) {
		t.Errorf("got %v", err)
	}
}

// cancels ends a context with the nth read.
type cancels struct {
	*bytes.Reader
	n, reads int
	cancel   func()
}

func (c *cancels) ReadAt(b []byte, off int64) (int, error) {
	if c.reads++; c.reads == c.n {
		c.cancel()
	}
	return c.Reader.ReadAt(b, off)
}

// TestDecodeStopsWithinASegment: a decoder that has long to do for one segment ends soon after its context.
func TestDecodeStopsWithinASegment(t *testing.T) {
	old, p := scatterer(t, 400)
	for _, n := range []int{1, 5, 50, 300} {
		ctx, cancel := context.WithCancel(t.Context())
		base := &cancels{bytes.NewReader(old), n, 0, cancel}
		_, err := Decode(ctx, bytes.NewReader(p), base, io.Discard, DecodeOptions{})
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrBase) || errors.Is(err, ErrCorrupt) {
			t.Errorf("at read %d: %v", n, err)
		}
		if base.reads > n+20 {
			t.Errorf("%d reads behind the end of the context", base.reads-n)
		}
		cancel()
	}
}

// TestReorderedMembers: where a decoder would have to unpack the base again for every few bytes, the publisher sees
// through nothing; where what is taken lies together, it does.
func TestReorderedMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	freeOf(t, 0)
	const (
		members = 16
		size    = 512 << 10
		part    = 4 << 10
		parts   = 256
	)
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(2, 2))
	var old []byte
	var plain [members][]byte
	for i := range plain {
		plain[i] = letters(r, size)
		old = z.EncodeAll(plain[i], old)
	}
	for _, scattered := range []bool{false, true} {
		var fresh []byte
		for i := range parts {
			m, at := i*members/parts, i%(parts/members)*part
			if scattered {
				m, at = i%members, i/members*part
			}
			fresh = append(fresh, plain[m][at:at+part]...)
		}
		fresh = z.EncodeAll(fresh, nil)
		var p bytes.Buffer
		if _, err := Create(t.Context(), bytes.NewReader(old), bytes.NewReader(fresh), &p, Options{Profile: Plain}); err != nil {
			t.Fatal(err)
		}
		in, err := Decode(t.Context(), bytes.NewReader(p.Bytes()), bytes.NewReader(old), io.Discard, DecodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if seen := in.RecipeBytes > 0; seen == scattered {
			t.Errorf("scattered %v: a recipe of %d bytes in a patch of %d", scattered, in.RecipeBytes, p.Len())
		}
	}
}

// TestRecordsOfManyMembers: dense segments read each cover by itself, so that short ones in turns from more members
// than are kept cost a member each, though plain ones would find their pages at hand. What is made can be decoded.
func TestRecordsOfManyMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and of one goroutine")
	}
	freeOf(t, 0)
	const members, size, record, each = 16, 512 << 10, 256, 16 << 10
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(2, 3))
	var old, fresh []byte
	var plain [members][]byte
	for i := range plain {
		plain[i] = letters(r, size)
		old = z.EncodeAll(plain[i], old)
	}
	for k := 0; k < each; k += record {
		for i := range plain {
			at := i/2*each + k // no two of them in one place of a cache of pages
			fresh = append(fresh, plain[i][at:at+record]...)
			fresh[len(fresh)-record+100] += 3
		}
	}
	fresh = z.EncodeAll(fresh, nil)
	var p bytes.Buffer
	s, err := Create(t.Context(), bytes.NewReader(old), bytes.NewReader(fresh), &p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(t.Context(), bytes.NewReader(p.Bytes()), bytes.NewReader(old), io.Discard, DecodeOptions{}); err != nil {
		t.Errorf("%s, a recipe of %d bytes: %v", s.Profile, s.RecipeBytes, err)
	}
}
