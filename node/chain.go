package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"

	"updraft/delta/patch"
	"updraft/delta/release"
	"updraft/node/install"
)

// A chain of patches makes artifacts that nobody asked for on its way to the one that
// is wanted. Each lies in a file without a name below the scratch directory while the
// next is made from it: it is gone when it is closed, and after a crash. What a crash
// leaves of a chain are its patches, so that nothing is fetched twice.

// errScratch reports that what lies between the patches of a chain could not be written
// or read.
var errScratch = errors.New("node: scratch file of a chain")

// errStep reports a patch that leads elsewhere than the release says.
var errStep = errors.New("node: patch is not the one of this step")

// stepError is a failure on the way, before the last patch.
type stepError struct {
	sum   [32]byte // of the patch to be blamed
	first bool     // it starts from the base
	err   error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// between makes what lies between base and a on the way w, whose patches are in files,
// and returns the last of it: what the last patch starts from, to be closed with done.
// For a single patch that is base.
func (u *update) between(ctx context.Context, a *assembly, w release.Way, files []*patchFile, base source) (last source, done func(), err error) {
	if len(w) == 1 {
		return base, func() {}, nil
	}
	select {
	case u.chain <- struct{}{}:
	case <-ctx.Done():
		return source{}, nil, context.Cause(ctx)
	}
	defer u.explain(a.art, "")
	var f *os.File // what the next step starts from; nil: base
	for i := range w[:len(w)-1] {
		u.explain(a.art, fmt.Sprintf("%s: patch %d of %d on the way from %s to %s, makes %s", a.art.Name, i+1, len(w), w.BaseVersion(), u.m.Version, w[i+1].BaseVersion))
		next, err := u.goStep(ctx, a, &w[i], files[i], base)
		discard(f)
		if err != nil {
			<-u.chain
			at := &stepError{sum: w[i].Sum, first: i == 0, err: err}
			if isLocal(err) {
				at.sum = w.Name() // the patch may be good for others
			}
			return source{}, nil, fmt.Errorf("node: make %s on the way to %s: %w", w[i+1].BaseVersion, u.m.Version, errors.Join(at, context.Cause(ctx)))
		}
		f, base = next, u.counted(next, w[i].TargetSize)
	}
	return base, func() { discard(f); <-u.chain }, nil
}

// discard closes a file of which nothing is kept; nil: none.
func discard(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}

// goStep makes the target of s from base in a file that is gone when it is closed.
func (u *update) goStep(ctx context.Context, a *assembly, s *release.Step, pf *patchFile, base source) (*os.File, error) {
	p := pf.reader(ctx)
	in, err := patch.Inspect(p)
	if err != nil {
		return nil, err
	}
	if in.BaseSum != s.Base || in.NewSum != s.Target || in.NewSize != s.TargetSize {
		return nil, fmt.Errorf("%w: it makes %d bytes with digest %x", errStep, in.NewSize, in.NewSum[:6])
	}
	f, err := os.CreateTemp(u.n.paths.scratch(), "chain-*")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errScratch, err)
	}
	err = os.Remove(f.Name())
	if err == nil {
		err = u.decodeStep(ctx, a, p, base, f)
	} else {
		err = fmt.Errorf("%w: %w", errScratch, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// decodeStep writes what p makes of base to f; the decoder checks its digest.
func (u *update) decodeStep(ctx context.Context, a *assembly, p, base patch.Source, f *os.File) error {
	w := bufio.NewWriterSize(scratchWriter{ctx.Err, f, &a.written}, 256<<10)
	_, err := patch.Decode(ctx, p, base, w, patch.DecodeOptions{Scratch: u.n.paths.scratch(), Memory: u.n.cfg.Memory, File: roomIn(u.n.paths.scratch())})
	if err == nil {
		err = w.Flush()
	}
	return err
}

// onTheWay returns the bytes that the site's plan makes on its way to art.
func (u *update) onTheWay(art *release.Artifact) int64 {
	u.mu.Lock()
	name := u.chosen[art.Sum]
	u.mu.Unlock()
	if w := u.way(art, name); w != nil {
		return w.Between()
	}
	return 0
}

// scratchWriter counts what goes to flash and tells its failures from those of a patch.
type scratchWriter struct {
	live    func() error // nil while the work goes on
	w       io.Writer
	written *counter
}

func (s scratchWriter) Write(b []byte) (int, error) {
	if err := s.live(); err != nil {
		return 0, err
	}
	n, err := s.w.Write(b)
	s.written.Add(int64(n))
	if err != nil {
		err = fmt.Errorf("%w: %w", errScratch, err)
	}
	return n, err
}

// fits reports whether a device with so much memory for a decoder (0: any) and so much
// room for what lies between the patches of a chain can go w.
func fits(w release.Way, memory, room int64) bool {
	return (memory == 0 || w.Memory() <= memory) && (len(w) == 1 || w.Room()+w.Size() <= room)
}

// room returns how many bytes are free for the patches of a chain and what it makes on
// its way: what an update leaves, or all that is free when there is none.
func (n *Node) room() int64 {
	n.mu.Lock()
	u := n.upd
	n.mu.Unlock()
	if u != nil {
		return u.room.Load()
	}
	free, err := install.Free(n.cfg.Data)
	if err != nil {
		return 0
	}
	return coarse(free)
}

// coarse rounds a number of bytes down to three binary digits: others are not told of
// every block.
func coarse(n int64) int64 {
	if n <= 0 {
		return 0
	}
	drop := max(0, bits.Len64(uint64(n))-3)
	return n >> drop << drop
}
