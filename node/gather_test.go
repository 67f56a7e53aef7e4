package node

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func gatherOf(t *testing.T, size int64) (*gather, string, *atomic.Int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	var wrote atomic.Int64
	g := newGather(f, size, func(n int) { wrote.Add(int64(n)) })
	t.Cleanup(func() { _ = g.Close() })
	return g, path, &wrote
}

// TestGather has several write chunks in about their order, each reading back what it wrote and what lies around it.
func TestGather(t *testing.T) {
	want := random(1, 20*gatherPiece+12345)
	g, path, wrote := gatherOf(t, int64(len(want)))
	var chunks []span
	for off, r := 0, rand.New(rand.NewPCG(1, 1)); off < len(want); {
		n := min(1+r.IntN(gatherPiece*3/2), len(want)-off)
		chunks = append(chunks, span{int64(off), int64(n)})
		off += n
	}
	for i, r := 0, rand.New(rand.NewPCG(2, 2)); i < len(chunks); i++ {
		j := min(i+r.IntN(6), len(chunks)-1)
		chunks[i], chunks[j] = chunks[j], chunks[i]
	}
	work := make(chan span)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			buf := make([]byte, 2*gatherPiece)
			for s := range work {
				b := want[s.off : s.off+s.n]
				if n, err := g.WriteAt(b, s.off); n != len(b) || err != nil {
					t.Errorf("WriteAt %v: %d, %v", s, n, err)
				}
				got := buf[:s.n]
				if n, err := g.ReadAt(got, s.off); n != len(b) || err != nil || !bytes.Equal(got, b) {
					t.Errorf("ReadAt %v: %d, %v, same %v", s, n, err, bytes.Equal(got, b))
				}
				// What nobody has written yet reads as zeros.
				from := max(0, s.off-1000)
				got = buf[:min(int64(len(want)), s.off+s.n+1000)-from]
				if _, err := g.ReadAt(got, from); err != nil {
					t.Errorf("ReadAt around %v: %v", s, err)
				}
				for i, c := range got {
					if c != 0 && c != want[from+int64(i)] {
						t.Errorf("byte %d is not what was written", from+int64(i))
						break
					}
				}
			}
		})
	}
	for _, s := range chunks {
		work <- s
	}
	close(work)
	wg.Wait()
	if err := g.sync(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file differs: %v", err)
	}
	if n := wrote.Load(); n != int64(len(want)) {
		t.Errorf("wrote %d bytes of %d", n, len(want))
	}
	if _, err := g.ReadAt(make([]byte, 10), int64(len(want)-5)); err == nil {
		t.Error("a read beyond the end is no error")
	}
}

// TestGatherRewrites: the last of several writes is what counts, whether the first is in the file by then or not.
func TestGatherRewrites(t *testing.T) {
	want := make([]byte, 6*gatherPiece)
	g, path, _ := gatherOf(t, int64(len(want)))
	r := rand.New(rand.NewPCG(3, 3))
	for i := range 300 {
		n := 1 + r.IntN(gatherPiece/2)
		if i%20 == 0 {
			n = gatherPiece + r.IntN(gatherPiece)
		}
		off := r.IntN(len(want) - n)
		copy(want[off:], random(uint64(i), n))
		if _, err := g.WriteAt(want[off:off+n], int64(off)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := g.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("after write %d: read %v, same %v", i, err, bytes.Equal(got, want))
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file differs: %v", err)
	}
}

// TestGatherRests: what no longer grows is written, and its memory given back.
func TestGatherRests(t *testing.T) {
	g, path, _ := gatherOf(t, gatherPiece)
	want := random(4, 1000)
	if _, err := g.WriteAt(want, 5000); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		g.mu.Lock()
		left := len(g.pieces)
		g.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("still in memory")
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got[5000:6000], want) {
		t.Errorf("the file differs: %v", err)
	}
}

// TestGatherManyFiles: what is gathered of many files together is bounded, and all of it is written.
func TestGatherManyFiles(t *testing.T) {
	const files, size = 3 * gatherAll, 2*gatherPiece + 1000
	var gs []*gather
	var paths []string
	var bufs [][]byte
	for i := range files {
		g, path, _ := gatherOf(t, size)
		gs, paths, bufs = append(gs, g), append(paths, path), append(bufs, random(uint64(i), size))
	}
	before := gathering.Load()
	for off := 0; off < size; off += 50_000 {
		for i, g := range gs {
			b := bufs[i][off:min(size, off+50_000)]
			if n, err := g.WriteAt(b, int64(off)); n != len(b) || err != nil {
				t.Fatalf("file %d: %d, %v", i, n, err)
			}
			got := make([]byte, off+len(b))
			if _, err := g.ReadAt(got, 0); err != nil || !bytes.Equal(got, bufs[i][:len(got)]) {
				t.Fatalf("file %d differs up to %d: %v", i, len(got), err)
			}
		}
		if n := gathering.Load(); n > gatherAll {
			t.Fatalf("%d pieces in memory", n)
		}
	}
	for i, g := range gs {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(paths[i]); err != nil || !bytes.Equal(got, bufs[i]) {
			t.Errorf("file %d differs: %v", i, err)
		}
	}
	if n := gathering.Load(); n > before {
		t.Errorf("%d pieces stay", n)
	}
}

// TestGatherFails: an error of the disk is told, and nothing is forgotten.
func TestGatherFails(t *testing.T) {
	_, path, _ := gatherOf(t, 2*gatherPiece)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	g := newGather(f, 2*gatherPiece, func(int) {}) // which cannot be written to
	want := random(5, gatherPiece)
	if _, err := g.WriteAt(want[:gatherPiece/2], 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := g.WriteAt(want[gatherPiece/2:], gatherPiece/2); err == nil {
			t.Fatal("no error")
		}
		got := make([]byte, gatherPiece)
		if _, err := g.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %v, same %v", err, bytes.Equal(got, want))
		}
	}
	if g.sync() == nil || g.Close() == nil {
		t.Error("no error at the end")
	}
}

// TestGatherCloses: what cannot be written keeps nothing else from it, and nothing is taken for written later.
func TestGatherCloses(t *testing.T) {
	g, path, _ := gatherOf(t, 2*gatherPiece)
	g.size = 1<<62 + gatherPiece
	want := random(6, 1000)
	for _, off := range []int64{1 << 62, gatherPiece} { // the first is more than a file may have
		if _, err := g.WriteAt(want, off); err != nil {
			t.Fatal(err)
		}
	}
	if g.Close() == nil {
		t.Error("no error")
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got[gatherPiece:gatherPiece+1000], want) {
		t.Errorf("the file differs: %v", err)
	}
	if _, err := g.WriteAt(want, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a write after the end: %v", err)
	}
}

// TestGatherRestsAgain: what could not be written is tried again without being asked.
func TestGatherRestsAgain(t *testing.T) {
	g, path, _ := gatherOf(t, gatherPiece)
	ill, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ill.Close() })
	g.mu.Lock()
	well := g.f
	g.f = ill
	g.mu.Unlock()
	if _, err := g.WriteAt(random(7, 10), 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(gatherWait + gatherWait/2)
	g.mu.Lock()
	g.f = well
	left := len(g.pieces)
	g.mu.Unlock()
	if left != 1 {
		t.Fatalf("%d pieces are left", left)
	}
	for end := time.Now().Add(time.Minute); left > 0; time.Sleep(10 * time.Millisecond) {
		g.mu.Lock()
		left = len(g.pieces)
		g.mu.Unlock()
		if time.Now().After(end) {
			t.Fatal("still in memory")
		}
	}
}
