package node

import (
	"context"
	"errors"
	"syscall"
	"testing"
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
