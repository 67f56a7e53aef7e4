package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"updraft/delta/release"
	"updraft/delta/tree"
)

// TestDigestFollows hashes a stream while its chunks come in any order, and finds what changed behind it.
func TestDigestFollows(t *testing.T) {
	ctx := context.Background()
	for _, name := range []string{"right", "changed and repaired", "changed"} {
		t.Run(name, func(t *testing.T) {
			b := image(t, 3<<20)
			art, index := artifactOf(t, b, 0)
			a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
			learn(t, a, index)
			last := int64(-1)
			for _, p := range a.snapshot() {
				for k := range p.chunks {
					i := k ^ 1 // each second before the first
					if i >= len(p.chunks) {
						i = k
					}
					bring(t, a, p, i, b)
					if err := a.hash(ctx, a.there()); err != nil || a.hashed.off < last || a.hashed.off > a.there() {
						t.Fatalf("hashed %d of %d: %v", a.hashed.off, a.there(), err)
					}
					last = a.hashed.off
				}
			}
			if last != art.Size {
				t.Fatalf("hashed %d of %d bytes", last, art.Size)
			}
			if name != "right" {
				a.hashed.h.Write([]byte("x")) // what was read then is not what is there now
			}
			if name == "changed" {
				if _, err := a.st.WriteAt([]byte{b[7] ^ 1}, 7); err != nil {
					t.Fatal(err)
				}
			}
			err := a.digest(ctx)
			if wrong := errors.Is(err, errDigest); wrong != (name == "changed") || err != nil && !wrong {
				t.Error(err)
			}
		})
	}
}

// TestWriteFailsAtTheEnd: the disk is full for a moment while a stream is hashed, so that nobody is told before the last
// chunk is there after all.
func TestWriteFailsAtTheEnd(t *testing.T) {
	b := random(1, 3<<20)
	art, index := artifactOf(t, b, 0)
	a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
	learn(t, a, index)
	p := a.snapshot()[0]
	last := len(p.chunks) - 1
	for i := range last {
		bring(t, a, p, i, b)
	}
	a.settle(t.Context())
	full := &fullStream{stream: a.st}
	a.st = full
	if err := p.Put(last, b[p.offs[last]:]); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	a.st = full.stream
	bring(t, a, p, last, b)
	if !a.complete() {
		t.Fatal("not complete")
	}
	if err := setBackUpdate(t, a).await(t.Context(), a); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("await: %v", err)
	}
}

// fullStream takes no bytes.
type fullStream struct{ stream }

func (*fullStream) WriteAt([]byte, int64) (int, error) { return 0, syscall.ENOSPC }

// misread reads what change makes of what is there.
type misread struct {
	stream
	change func(b []byte, off int64)
}

func (s *misread) ReadAt(b []byte, off int64) (int, error) {
	n, err := s.stream.ReadAt(b, off)
	s.change(b[:n], off)
	return n, err
}

// TestMisreadIsNotPublishedSo: a release is refused for good if it was published with a digest that it does not have,
// not if the storage reads it wrong, be it twice.
func TestMisreadIsNotPublishedSo(t *testing.T) {
	b := random(1, 3<<20)
	for name, c := range map[string]struct {
		spoil  func(*release.Artifact)
		change func(round byte, whole bool, b []byte, off int64)
		want   error
	}{
		"published so": {spoil: func(art *release.Artifact) { art.Sum[0] ^= 1 }, want: errDigest},
		"once":         {change: func(round byte, whole bool, b []byte, _ int64) { flip(b, whole && round == 1, round) }},
		"otherwise each time": {
			change: func(round byte, whole bool, b []byte, _ int64) { flip(b, whole, round) },
			want:   errMisread,
		},
		"a part each time": { // which is found, brought, written and read as before
			change: func(_ byte, _ bool, b []byte, off int64) { flip(b, off == 0, 1) },
			want:   errMisread,
		},
		"published so, and a part once": {
			spoil:  func(art *release.Artifact) { art.Sum[0] ^= 1 },
			change: func(round byte, _ bool, b []byte, off int64) { flip(b, off == 0 && round == 1, 1) },
			want:   errMisread,
		},
	} {
		t.Run(name, func(t *testing.T) {
			art, index := artifactOf(t, b, 0)
			if c.spoil != nil {
				c.spoil(art)
			}
			a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
			learn(t, a, index)
			p := a.snapshot()[0]
			for i := range p.chunks {
				bring(t, a, p, i, b)
			}
			var round atomic.Int32
			if c.change != nil {
				a.st = &misread{a.st, func(b []byte, off int64) {
					whole := len(b) == 256<<10 // as digest reads
					if whole && off == 0 {
						round.Add(1)
					}
					c.change(byte(round.Load()), whole, b, off)
				}}
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			wg.Go(func() { // others have what was given up
				for sleep(ctx, time.Millisecond) {
					for _, i := range a.reg.sw.Missing(p.id) {
						if err := p.Put(i, b[p.offs[i]:][:p.chunks[i].Len]); err != nil {
							t.Error(err)
						}
						a.reg.sw.Inject(p.id, i, nil)
					}
				}
			})
			err := setBackUpdate(t, a).await(ctx, a)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || errors.Is(err, errDigest) != (c.want == errDigest) {
				t.Errorf("await: %v, want %v", err, c.want)
			}
		})
	}
}

// flip changes the first byte, if there is one and so is wanted.
func flip(b []byte, wanted bool, by byte) {
	if wanted && len(b) > 0 {
		b[0] ^= by
	}
}

// misreadListing is a listing, of one chunk, that reads wrong by change(n) the nth time: to be checked if n is odd, then
// to be used.
type misreadListing struct {
	*os.File
	change func(n byte) (by byte)
	n      byte
}

func (f *misreadListing) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	if fi, e := f.Stat(); e == nil && off == 0 && int64(len(b)) == fi.Size() {
		f.n++
		flip(b[:n], true, f.change(f.n))
	}
	return n, err
}

// TestMisreadListing: the same for a tree whose listing is malformed.
func TestMisreadListing(t *testing.T) {
	good, size := treeOf(t, 5000, 70000)
	bad := append([]byte{good[0] ^ 0xff}, good[1:]...)
	for name, c := range map[string]struct {
		b      []byte
		change func(n byte) byte
		want   error
	}{
		"right":               {good, func(byte) byte { return 0 }, nil},
		"published so":        {bad, func(byte) byte { return 0 }, tree.ErrListing},
		"once":                {good, func(n byte) byte { return flipAt(n, n == 2) }, nil},
		"otherwise each time": {good, func(n byte) byte { return flipAt(n, n%2 == 0) }, errMisread},
	} {
		art, index := artifactOf(t, c.b, size)
		dir := t.TempDir()
		a := treeAssembly(t, dir, art)
		st := a.st.(*treeStream)
		st.head = &misreadListing{File: st.head.(*os.File), change: c.change}
		if err := a.start(true); err != nil {
			t.Fatal(err)
		}
		learn(t, a, index)
		p := a.snapshot()[0]
		var err error
		for i := range p.chunks {
			off := p.offs[i]
			if e := p.Put(i, c.b[off:off+int64(p.chunks[i].Len)]); e != nil {
				err = e
				break
			}
		}
		if !errors.Is(err, c.want) || errors.Is(err, tree.ErrListing) != (c.want == tree.ErrListing) || a.opened.Load() != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func flipAt(n byte, wanted bool) byte {
	if !wanted {
		return 0
	}
	return 0xff - n
}

// treeAssembly makes the assembly of a tree in dir.
func treeAssembly(t *testing.T, dir string, art *release.Artifact) *assembly {
	t.Helper()
	index, err := os.OpenFile(filepath.Join(dir, "index"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	a := newAssembly(art, loneRegistry(t), newTree(t, dir, int(art.ListingSize), int(art.Size)), index)
	t.Cleanup(func() { _ = a.forget() })
	return a
}
