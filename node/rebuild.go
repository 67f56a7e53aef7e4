package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"updraft/delta/chunk"
	"updraft/delta/patch"
	"updraft/delta/tree"
	"updraft/node/install"
)

// rebuilder takes the artifact's bytes in stream order, as a decoder makes them:
// it writes them to their place, finds the chunks anew (chunking is
// deterministic, so the index need not come over the uplink) and gives each
// finished page to the swarm.
type rebuilder struct {
	live func() error // nil while the work goes on
	a    *assembly
	cut  *chunk.Cutter
	off  int64 // of the next byte to come
	from int64 // where writing begins: what lies before is there already
	page []byte
	no   int // of the page under way
}

// newRebuilder continues after the pages of a that are complete. The decoder may
// begin earlier: start is where.
func newRebuilder(ctx context.Context, a *assembly) *rebuilder {
	r := &rebuilder{live: ctx.Err, a: a}
	for _, p := range a.snapshot() {
		if p.missing() > 0 {
			break
		}
		last := p.chunks[len(p.chunks)-1]
		r.from = p.off + last.Offset + int64(last.Len)
		r.no++
	}
	r.cut = chunk.NewCutter(chunk.Default(), r.chunk)
	return r
}

// Write implements io.Writer.
func (r *rebuilder) Write(b []byte) (int, error) {
	total := len(b)
	if skip := r.from - r.off; skip > 0 {
		n := min(skip, int64(len(b)))
		b = b[n:]
		r.off += n
	}
	for len(b) > 0 {
		part := b
		if ls := r.a.art.ListingSize; r.off < ls {
			part = b[:min(int64(len(b)), ls-r.off)]
		}
		if err := r.take(part); err != nil {
			return 0, err
		}
		b = b[len(part):]
	}
	return total, nil
}

func (r *rebuilder) take(b []byte) error {
	if err := r.live(); err != nil {
		return err
	}
	if r.off+int64(len(b)) > r.a.art.Size {
		return fmt.Errorf("%w: more bytes than %d", errDigest, r.a.art.Size)
	}
	if err := r.write(b, r.off); err != nil {
		err = fmt.Errorf("node: write rebuilt bytes: %w", err)
		r.a.fail(err)
		return err
	}
	r.off += int64(len(b))
	if _, err := r.cut.Write(b); err != nil {
		return err
	}
	if r.off == r.a.art.ListingSize {
		if err := r.cut.Boundary(); err != nil {
			return err
		}
		return r.listed()
	}
	return nil
}

// write puts b to its place at off, but for the chunks that are there.
func (r *rebuilder) write(b []byte, off int64) error {
	for len(b) > 0 {
		n, there := r.a.run(off, int64(len(b)))
		if !there {
			if err := r.a.writeAt(b[:n], off); err != nil {
				return err
			}
			r.a.loose(off, off+n)
		}
		b, off = b[n:], off+n
	}
	return nil
}

// listed opens the tree as soon as its listing has been rebuilt, so that its contents
// are not written twice; its chunks are checked against the index like all others when
// their page is full. A tree that was opened with a listing that proves wrong then is
// given up in the end, see treeStream.finish.
func (r *rebuilder) listed() error {
	if r.a.opened.Load() {
		return nil
	}
	err := r.a.st.(*treeStream).open()
	switch {
	case errors.Is(err, tree.ErrListing), errors.Is(err, tree.ErrCollision):
		return nil // so it is however the artifact comes, or the listing is wrong: openTree will know
	case err != nil:
		return err
	}
	r.a.opened.Store(true)
	return nil
}

func (r *rebuilder) chunk(c chunk.Chunk, _ []byte) error {
	r.page = chunk.AppendRecord(r.page, c)
	if len(r.page) == pageBytes {
		return r.flush()
	}
	return nil
}

func (r *rebuilder) flush() error {
	a, k := r.a, r.no
	if k >= len(a.art.Pages) || sha256.Sum256(r.page) != a.art.Pages[k] {
		return fmt.Errorf("%w: %s differs in index page %d", errDigest, a.art.Name, k)
	}
	if err := a.reg.putIndex(a, k, r.page); err != nil {
		return err
	}
	r.page = r.page[:0]
	r.no++
	if err := a.advance(); err != nil {
		return err
	}
	a.reg.sw.Inject(a.indexID, k, nil)
	pages := a.snapshot()
	if k >= len(pages) {
		return fmt.Errorf("%w: page %d before those in front of it", errDigest, k)
	}
	p := pages[k]
	for i := range p.chunks {
		p.mark(i)
		a.reg.sw.Inject(p.id, i, nil)
	}
	a.reg.share(p)
	a.signal()
	return nil
}

// finish ends the last chunk and page.
func (r *rebuilder) finish() error {
	if err := r.cut.Close(); err != nil {
		return err
	}
	if len(r.page) > 0 {
		if err := r.flush(); err != nil {
			return err
		}
	}
	if r.off != r.a.art.Size {
		return fmt.Errorf("%w: %s has %d bytes, not %d", errDigest, r.a.art.Name, r.off, r.a.art.Size)
	}
	return nil
}

// rebuild makes a's bytes from base with the patch in p, whose blocks may still
// be arriving. With no patch base is the artifact itself.
func (a *assembly) rebuild(ctx context.Context, p, base patch.Source, scratch string, memory int64) error {
	a.setMode(false, true)
	r := newRebuilder(ctx, a)
	var err error
	if p == nil {
		_, err = io.CopyBuffer(struct{ io.Writer }{r}, io.NewSectionReader(base, 0, base.Size()), make([]byte, 256<<10))
	} else {
		_, err = patch.Decode(ctx, p, base, r, patch.DecodeOptions{Scratch: scratch, Memory: memory, File: roomIn(scratch)})
	}
	if err == nil {
		err = r.finish()
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = errors.Join(cause, err)
		}
		a.setMode(true, false)
		return fmt.Errorf("node: rebuild %s: %w", a.art.Name, err)
	}
	a.setMode(false, false)
	return nil
}

// roomIn returns how many bytes a decoder may put into a temporary file in dir.
func roomIn(dir string) int64 {
	free, err := install.Free(dir)
	if err != nil {
		return 0 // any: writing will tell
	}
	return max(free, 1)
}

// isBase reports whether err says that the base, not the patch, is at fault.
func isBase(err error) bool { return errors.Is(err, patch.ErrBase) }
