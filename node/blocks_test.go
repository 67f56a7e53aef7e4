package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"updraft/delta/release"
)

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	if _, err := r.Read(b); err != nil {
		panic(err)
	}
	return b
}

// patchOf describes b as a patch of blocks.
func patchOf(b []byte, block int) *release.Patch {
	p := &release.Patch{Sum: sha256.Sum256(b), Size: int64(len(b)), BlockSize: block}
	if len(b) > block {
		for off := 0; off < len(b); off += block {
			p.Blocks = append(p.Blocks, sha256.Sum256(b[off:min(len(b), off+block)]))
		}
	}
	return p
}

func openTestPatch(t *testing.T, path string, p *release.Patch) *patchFile {
	t.Helper()
	pf, err := openPatch(path, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pf.f.Close() })
	return pf
}

func block(p *release.Patch, b []byte, i int) []byte {
	return b[i*p.BlockSize : min(len(b), (i+1)*p.BlockSize)]
}

func TestPatchFileResumes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p")
	data := random(1, 2500)
	p := patchOf(data, 1000)
	pf := openTestPatch(t, path, p)
	for i := range 3 {
		if pf.Has(i) {
			t.Errorf("block %d of an empty file", i)
		}
	}
	for _, i := range []int{2, 0, 0} {
		if err := pf.Put(i, block(p, data, i)); err != nil {
			t.Fatal(err)
		}
	}
	pf = openTestPatch(t, path, p)
	for i, want := range []bool{true, false, true} {
		if pf.Has(i) != want {
			t.Errorf("block %d after a restart: %v", i, pf.Has(i))
		}
	}
	if b, err := pf.Get(2, make([]byte, 0, 4000)); err != nil || !bytes.Equal(b, data[2000:]) {
		t.Errorf("the last block: %d bytes, %v", len(b), err)
	}
	if o := pf.object(); o.ID != pf.id || len(o.Sums) != 3 || o.Sizes[2] != 500 || o.Sums[1] != p.Blocks[1] {
		t.Errorf("object %+v", o)
	}
}

// TestPatchFileChecks takes nothing for a block that does not have its digest.
func TestPatchFileChecks(t *testing.T) {
	data := random(2, 2500)
	p := patchOf(data, 1000)
	for name, c := range map[string]struct {
		file []byte
		want []bool
	}{
		"changed":   {append(append(bytes.Clone(data[:1500]), ^data[1500]), data[1501:]...), []bool{true, false, true}},
		"cut short": {data[:2499], []bool{true, true, false}},
		"other":     {random(3, 2500), []bool{false, false, false}},
		"longer":    {append(bytes.Clone(data), 1, 2, 3), []bool{true, true, true}},
	} {
		path := filepath.Join(t.TempDir(), "p")
		if err := os.WriteFile(path, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		pf := openTestPatch(t, path, p)
		for i, want := range c.want {
			if pf.Has(i) != want {
				t.Errorf("%s: block %d: %v", name, i, pf.Has(i))
			}
		}
		for i := range c.want {
			if err := pf.Put(i, block(p, data, i)); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, 3000)
		n, err := pf.reader(t.Context()).ReadAt(got, 0)
		if !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], data) {
			t.Errorf("%s: mended file has %d bytes, %v", name, n, err)
		}
	}
}

func TestPatchOfOneBlock(t *testing.T) {
	data := random(4, 700)
	p := patchOf(data, 1000)
	pf := openTestPatch(t, filepath.Join(t.TempDir(), "p"), p)
	if o := pf.object(); len(o.Sums) != 1 || o.Sums[0] != p.Sum || o.Sizes[0] != 700 {
		t.Errorf("object %+v", o)
	}
	if err := pf.Put(0, data); err != nil || !pf.Has(0) {
		t.Error(err)
	}
}

// TestReaderWaits reads a patch whose blocks come in the worst order.
func TestReaderWaits(t *testing.T) {
	data := random(5, 5300)
	p := patchOf(data, 1000)
	pf := openTestPatch(t, filepath.Join(t.TempDir(), "p"), p)
	type result struct {
		b   []byte
		err error
	}
	read := func(ctx context.Context, off int64, n int) <-chan result {
		out := make(chan result, 1)
		go func() {
			b := make([]byte, n)
			n, err := pf.reader(ctx).ReadAt(b, off)
			out <- result{b[:n], err}
		}()
		return out
	}
	part, whole := read(t.Context(), 1500, 1000), read(t.Context(), 0, len(data))
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := read(ctx, 3000, 1)
	cancel(errOtherPlan)
	if r := <-stopped; !errors.Is(r.err, errOtherPlan) || len(r.b) > 0 {
		t.Errorf("a reader that was stopped: %d bytes, %v", len(r.b), r.err)
	}
	for _, i := range []int{5, 4, 2, 1} {
		if err := pf.Put(i, block(p, data, i)); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-part; r.err != nil || !bytes.Equal(r.b, data[1500:2500]) {
		t.Errorf("a part: %d bytes, %v", len(r.b), r.err)
	}
	select {
	case r := <-whole:
		t.Fatalf("read %d bytes, %v before they were there", len(r.b), r.err)
	default:
	}
	for _, i := range []int{3, 0} {
		if err := pf.Put(i, block(p, data, i)); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-whole; r.err != nil || !bytes.Equal(r.b, data) {
		t.Errorf("the whole: %d bytes, %v", len(r.b), r.err)
	}
	// What is there is read by a reader that is being stopped as well.
	if r := <-read(ctx, 5000, 300); r.err != nil || !bytes.Equal(r.b, data[5000:]) {
		t.Errorf("what is there: %d bytes, %v", len(r.b), r.err)
	}
	for _, off := range []int64{-1, p.Size + 1} {
		if r := <-read(t.Context(), off, 1); r.err == nil {
			t.Errorf("read at %d", off)
		}
	}
	if r := <-read(t.Context(), p.Size, 1); !errors.Is(r.err, io.EOF) {
		t.Errorf("read at the end: %v", r.err)
	}
}
