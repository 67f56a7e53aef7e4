package node

import (
	"context"
	"errors"
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
