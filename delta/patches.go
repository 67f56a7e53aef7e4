package delta

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"updraft/delta/patch"
	"updraft/delta/release"
	"updraft/delta/tree"
)

// BlockSize is the length in bytes of the blocks in which a patch is exchanged.
const BlockSize = 256 << 10

// A patch is kept when it is smaller than keepNum/keepDen of what the chunks cost
// that it makes unnecessary.
const keepNum, keepDen = 9, 10

// EmptyVersion is what stands for the base's version in a patch from the empty
// stream.
const EmptyVersion = "empty"

// pair is a patch to be made: from an artifact of an earlier release.
type pair struct {
	from *release.Manifest
	base *release.Artifact
}

// pairs returns the patches to be made of artifact i: from the newest releases that have
// one to start from, from those named, and from nothing.
func (b *builder) pairs(i int) []pair {
	a := &b.m.Artifacts[i]
	if a.Size == 0 {
		return nil
	}
	var list []pair
	done := map[[32]byte]bool{a.Sum: true} // the same bytes need no patch
	made := 0
	for _, m := range b.o.Previous {
		base := findBase(m, a)
		if base == nil {
			continue
		}
		if made++; made > b.o.Deltas && !slices.Contains(b.o.Bases, m.Version) {
			continue
		}
		if done[base.Sum] || base.Size == 0 {
			continue
		}
		done[base.Sum] = true
		list = append(list, pair{m, base})
	}
	if b.o.Full {
		list = append(list, pair{&release.Manifest{Version: EmptyVersion}, &release.Artifact{Kind: a.Kind, Sum: sha256.Sum256(nil)}})
	}
	return list
}

// patches makes the patches of artifact i, as many as a manifest holds.
func (b *builder) patches(ctx context.Context, i int) error {
	a := &b.m.Artifacts[i]
	for _, p := range b.pairs(i) {
		if len(a.Patches) >= release.MaxPatches {
			return nil
		}
		if err := b.patch(ctx, i, p); err != nil {
			return fmt.Errorf("patch of %s from %s: %w", a.Name, p.from.Version, err)
		}
	}
	return nil
}

// findBase returns the artifact of an earlier release to start from: the one of
// the same name and kind, or else the only one of that kind.
func findBase(m *release.Manifest, a *release.Artifact) *release.Artifact {
	var only *release.Artifact
	of := 0
	for i := range m.Artifacts {
		c := &m.Artifacts[i]
		if c.Kind != a.Kind {
			continue
		}
		if c.Name == a.Name {
			return c
		}
		only = c
		of++
	}
	if of != 1 {
		return nil
	}
	return only
}

// patch makes one patch and keeps it when it is worth it, unless an interrupted Build
// has done that.
func (b *builder) patch(ctx context.Context, i int, p pair) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	cost, err := b.missingCost(i, p.base)
	if absent(err) {
		return nil // the earlier release is no longer at the origin
	}
	if err != nil {
		return err
	}
	stats, ok := b.again(i, p, cost)
	if !ok {
		if stats, err = b.makePatch(ctx, i, p, cost); errors.Is(err, patch.ErrTooLarge) {
			return nil // chunks will do
		} else if err != nil {
			return err
		}
	}
	s := &b.stats.Artifacts[i]
	s.Patches = append(s.Patches, stats)
	size := b.sources[i].Size()
	b.report(Progress{Stage: StagePatch, Artifact: s.Name, Base: p.from.Version, Done: size, Total: size, Patch: &stats})
	return nil
}

// worth reports whether a patch is kept, of so many bytes, that makes chunks unnecessary
// which cost so many.
func worth(size, cost int64) bool { return size < cost*keepNum/keepDen }

// makePatch makes a patch, and keeps it or not.
func (b *builder) makePatch(ctx context.Context, i int, p pair, cost int64) (PatchStats, error) {
	stats := PatchStats{BaseVersion: p.from.Version, Chunks: cost}
	f, err := b.rebuild(ctx, i, p)
	if err != nil {
		return stats, err
	}
	defer f.Close()
	old := io.NewSectionReader(f, 0, p.base.Size)
	w, err := newObject(b.o.Out, PatchDir)
	if err != nil {
		return stats, err
	}
	defer w.discard()
	if err := b.encode(ctx, i, p, old, w); err != nil {
		return stats, err
	}
	stats.Size, stats.Kept = w.size, worth(w.size, cost)
	if !stats.Kept {
		return stats, b.note(b.patchKey(i, p.base), outcome{w.sum(), w.size, false})
	}
	if err := b.check(ctx, old, w); err != nil {
		return stats, err
	}
	return stats, b.keep(i, p, w)
}

// missingCost returns the stored bytes of the chunks that a device with the base
// lacks.
func (b *builder) missingCost(i int, base *release.Artifact) (int64, error) {
	chunks, err := ReadIndex(b.o.Origin, base)
	if err != nil {
		return 0, err
	}
	have := make(map[[32]byte]bool, len(chunks))
	for _, c := range chunks {
		have[c.Sum] = true
	}
	var cost int64
	for _, c := range b.sources[i].chunks {
		if !have[c.Sum] {
			have[c.Sum] = true
			cost += int64(b.known.at[c.Sum].Len)
		}
	}
	return cost, nil
}

// rebuild writes the base's stream to a file that is gone when it is closed, and
// checks it.
func (b *builder) rebuild(ctx context.Context, i int, p pair) (*os.File, error) {
	s, err := OpenArtifact(b.o.Origin, p.from, p.base)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	f, err := os.CreateTemp(b.scratch, "base-*")
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	os.Remove(f.Name())
	r := &meter{ctx: ctx.Err, r: io.NewSectionReader(s, 0, s.Size()), report: func(n int64) {
		b.report(Progress{Stage: StageBase, Artifact: b.sources[i].name, Base: p.from.Version, Done: n, Total: p.base.Size})
	}}
	w := bufio.NewWriterSize(f, readSize)
	err = CheckStream(io.TeeReader(r, w), p.base)
	if ferr := w.Flush(); err == nil {
		err = ferr
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// meter reports how far a stream has been read.
type meter struct {
	ctx    func() error
	r      io.Reader
	n      int64
	said   int64
	report func(n int64)
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.n-m.said >= readSize || errors.Is(err, io.EOF) {
		m.said = m.n
		m.report(m.n)
	}
	return n, err
}

// encode runs the engine.
func (b *builder) encode(ctx context.Context, i int, p pair, old patch.Source, w *objectWriter) error {
	src := b.sources[i]
	o := b.o.Patch
	o.Jobs, o.Scratch = b.o.Jobs, b.scratch
	o.OldListing, o.NewListing = p.base.ListingSize, src.listing
	o.Progress = func(done, total int64) {
		b.report(Progress{Stage: StagePatch, Artifact: src.name, Base: p.from.Version, Done: done, Total: total})
	}
	out := bufio.NewWriterSize(w, BlockSize)
	if _, err := patch.Create(ctx, old, src, out, o); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	return nil
}

// check decodes the patch as a device does; the decoder compares the digest of what
// comes out with the one in the patch, and keep that with the artifact's.
func (b *builder) check(ctx context.Context, old patch.Source, w *objectWriter) error {
	_, err := patch.Decode(ctx, io.NewSectionReader(w.f, 0, w.size), old, io.Discard, patch.DecodeOptions{Scratch: b.scratch})
	return err
}

// keep describes the patch in the manifest and publishes it. It is noted first: a note
// of what is not there does no harm, and what is there without one would stay.
func (b *builder) keep(i int, p pair, w *objectWriter) error {
	d, err := b.describe(i, p, io.NewSectionReader(w.f, 0, w.size))
	if err != nil {
		return err
	}
	if err := b.note(b.patchKey(i, p.base), outcome{w.sum(), w.size, true}); err != nil {
		return err
	}
	if d.Sum, err = w.publish(); err != nil {
		return err
	}
	b.m.Artifacts[i].Patches = append(b.m.Artifacts[i].Patches, d)
	return nil
}

// describe returns what the manifest says of a patch, but its digest.
func (b *builder) describe(i int, p pair, f patch.Source) (release.Patch, error) {
	info, err := patch.Inspect(f)
	if err != nil {
		return release.Patch{}, err
	}
	if info.NewSum != b.m.Artifacts[i].Sum || info.BaseSum != p.base.Sum {
		return release.Patch{}, fmt.Errorf("%w: %w: %s", ErrInput, tree.ErrChanged, b.sources[i].path)
	}
	blocks, err := blockSums(f, f.Size())
	return release.Patch{Base: p.base.Sum, BaseVersion: p.from.Version, Size: f.Size(), BlockSize: BlockSize,
		Profile: info.Profile, Memory: info.Memory, Work: info.Work, Blocks: blocks}, err
}

// blockSums returns the digest of each block of r, or nil when it is one block.
func blockSums(r io.ReaderAt, size int64) ([][32]byte, error) {
	if size <= BlockSize {
		return nil, nil
	}
	var sums [][32]byte
	buf := make([]byte, BlockSize)
	for off := int64(0); off < size; off += BlockSize {
		n := min(BlockSize, size-off)
		if _, err := r.ReadAt(buf[:n], off); err != nil {
			return nil, fmt.Errorf("delta: %w", err)
		}
		sums = append(sums, sha256.Sum256(buf[:n]))
	}
	return sums, nil
}
