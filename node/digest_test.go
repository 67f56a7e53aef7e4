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

// TestCheck changes a byte behind the back of an assembly: who wrote each chunk after it was checked does not look again,
// who took anything else for a part of it does.
func TestCheck(t *testing.T) {
	b := random(1, 3<<20)
	art, index := artifactOf(t, b, 0)
	receive := func(t *testing.T, a *assembly) {
		learn(t, a, index)
		for _, p := range a.snapshot() {
			for i := range p.chunks {
				if !p.Has(i) {
					bring(t, a, p, i, b)
				}
			}
		}
	}
	for _, c := range []struct {
		name  string
		make  func(t *testing.T) *assembly
		looks bool
	}{
		{"received", func(t *testing.T) *assembly {
			a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
			receive(t, a)
			return a
		}, false},
		{"found on disk in part", func(t *testing.T) *assembly {
			dir, reg := t.TempDir(), loneRegistry(t)
			a := assemblyOf(t, reg, dir, art)
			learn(t, a, index)
			bring(t, a, a.snapshot()[0], 1, b)
			if err := a.forget(); err != nil {
				t.Fatal(err)
			}
			a = assemblyOf(t, reg, dir, art)
			receive(t, a)
			return a
		}, true},
		{"rebuilt", func(t *testing.T) *assembly {
			a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
			if err := a.rebuild(t.Context(), nil, inMemory(b), t.TempDir(), 0); err != nil {
				t.Fatal(err)
			}
			return a
		}, true},
		{"looked through", func(t *testing.T) *assembly {
			a := assemblyOf(t, loneRegistry(t), t.TempDir(), art)
			receive(t, a)
			a.reverify()
			return a
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := c.make(t)
			a.settle(t.Context())
			if err := a.check(t.Context()); err != nil || !a.complete() {
				t.Fatalf("%d of %d bytes: %v", a.progress(), art.Size, err)
			}
			if _, err := a.st.WriteAt([]byte{^b[9]}, 9); err != nil {
				t.Fatal(err)
			}
			if err := a.check(t.Context()); errors.Is(err, errDigest) != c.looks {
				t.Errorf("check: %v", err)
			}
		})
	}
}
