package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
)

// prefix is the beginning of a stream that has been hashed. A release is hashed while it comes, when what was written
// is still in memory, so that little is left to do when its last chunk is there.
type prefix struct {
	h   hash.Hash
	off int64 // bytes in h
	buf []byte
}

// there returns how many bytes from the beginning of the stream are there.
func (a *assembly) there() int64 {
	if !a.opened.Load() {
		return 0
	}
	for _, p := range a.snapshot() {
		p.mu.Lock()
		for i, h := range p.have {
			if !h {
				p.mu.Unlock()
				return p.offs[i]
			}
		}
		p.mu.Unlock()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.next
}

// hash reads on to byte end.
func (a *assembly) hash(ctx context.Context, end int64) error {
	if a.hashed == nil {
		a.hashed = &prefix{h: sha256.New(), buf: make([]byte, 256<<10)}
	}
	f := a.hashed
	for f.off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := f.buf[:min(int64(len(f.buf)), end-f.off)]
		if _, err := a.readAt(b, f.off); err != nil {
			return fmt.Errorf("node: read %s: %w", a.art.Name, err)
		}
		f.h.Write(b)
		f.off += int64(len(b))
		a.leave(f.off)
	}
	return nil
}

// leave lets go of the memory of what has been written up to byte end.
func (a *assembly) leave(end int64) {
	if s, ok := a.st.(*fileStream); ok {
		a.trail.upTo(s.f, end)
	}
}

// settle does what can be done already about what is there from the beginning on.
func (a *assembly) settle(ctx context.Context) {
	_ = a.hash(ctx, a.there()) // what cannot be read is found at the end
}

// wrongDigest says what an artifact was read as that is not what the manifest says. It is errDigest.
type wrongDigest struct {
	name string
	sum  [32]byte // of all of it, read at once
	lost int64    // chunks that had been given up by then
}

func (e *wrongDigest) Error() string { return fmt.Sprintf("%v: %s", errDigest, e.name) }

func (e *wrongDigest) Unwrap() error { return errDigest }

// confirms reports whether what was read, after another time before it, is what was published: it was the same both
// times, and all chunks were right in between.
func (e *wrongDigest) confirms(before *wrongDigest) bool {
	return e.sum == before.sum && e.lost == before.lost
}

// digest checks the whole stream against the manifest: *wrongDigest. What was hashed while it came counts if it was right.
func (a *assembly) digest(ctx context.Context) error {
	early := a.hashed != nil && a.hashed.off > 0
	defer func() { a.hashed = nil }()
	for {
		if err := a.hash(ctx, a.art.Size); err != nil {
			return err
		}
		sum := [32]byte(a.hashed.h.Sum(nil))
		if sum == a.art.Sum {
			return nil
		}
		if !early { // or a chunk has changed since
			return &wrongDigest{a.art.Name, sum, a.lost.Load()}
		}
		early, a.hashed = false, nil
	}
}
