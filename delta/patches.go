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
)

// BlockSize is the length in bytes of the blocks in which a patch is exchanged.
const BlockSize = 256 << 10

// A patch is kept when it is smaller than keepNum/keepDen of what the chunks cost
// that it makes unnecessary.
const keepNum, keepDen = 9, 10

// EmptyVersion is what stands for the base's version in a patch from the empty
// stream.
const EmptyVersion = "empty"

// patches makes the patches of artifact i from the newest releases that have one
// to start from, from those named, and from nothing.
func (b *builder) patches(ctx context.Context, i int) error {
	a := &b.m.Artifacts[i]
	done := map[[32]byte]bool{a.Sum: true} // the same bytes need no patch
	made := 0
	for _, m := range b.o.Previous {
		base := findBase(m, a)
		if base == nil {
			continue
		}
		if made++; made > b.o.Deltas && !slices.Contains(b.o.Bases, m.Version) || len(a.Patches) >= release.MaxPatches {
			continue
		}
		if done[base.Sum] || base.Size == 0 || a.Size == 0 {
			continue
		}
		done[base.Sum] = true
		if err := b.patch(ctx, i, m, base); err != nil {
			return fmt.Errorf("patch of %s from %s: %w", a.Name, m.Version, err)
		}
	}
	if !b.o.Full || a.Size == 0 || len(a.Patches) >= release.MaxPatches {
		return nil
	}
	nothing := &release.Artifact{Kind: a.Kind, Sum: sha256.Sum256(nil)}
	if err := b.patch(ctx, i, &release.Manifest{Version: EmptyVersion}, nothing); err != nil {
		return fmt.Errorf("patch of %s from nothing: %w", a.Name, err)
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

// patch makes one patch and keeps it when it is worth it.
func (b *builder) patch(ctx context.Context, i int, m *release.Manifest, base *release.Artifact) error {
	cost, err := b.missingCost(i, base)
	if absent(err) {
		return nil // the earlier release is no longer at the origin
	}
	if err != nil {
		return err
	}
	old, err := b.rebuild(ctx, i, m, base)
	if err != nil {
		return err
	}
	defer old.Close()
	w, err := newObject(b.o.Out, PatchDir)
	if err != nil {
		return err
	}
	defer w.discard()
	if err := b.encode(ctx, i, m, base, old, w); errors.Is(err, patch.ErrTooLarge) {
		return nil // chunks will do
	} else if err != nil {
		return err
	}
	stats := PatchStats{BaseVersion: m.Version, Size: w.size, Chunks: cost}
	stats.Kept = w.size < cost*keepNum/keepDen
	if stats.Kept {
		if err := b.check(ctx, old, w); err != nil {
			return err
		}
		if err := b.keep(i, m, base, w); err != nil {
			return err
		}
	}
	s := &b.stats.Artifacts[i]
	s.Patches = append(s.Patches, stats)
	size := b.sources[i].Size()
	b.report(Progress{Stage: StagePatch, Artifact: s.Name, Base: m.Version, Done: size, Total: size, Patch: &stats})
	return nil
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
func (b *builder) rebuild(ctx context.Context, i int, m *release.Manifest, base *release.Artifact) (*fileStream, error) {
	s, err := OpenArtifact(b.o.Origin, m, base)
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
		b.report(Progress{Stage: StageBase, Artifact: b.sources[i].name, Base: m.Version, Done: n, Total: base.Size})
	}}
	w := bufio.NewWriterSize(f, readSize)
	err = CheckStream(io.TeeReader(r, w), base)
	if ferr := w.Flush(); err == nil {
		err = ferr
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &fileStream{f, base.Size}, nil
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
func (b *builder) encode(ctx context.Context, i int, m *release.Manifest, base *release.Artifact, old *fileStream, w *objectWriter) error {
	src := b.sources[i]
	o := b.o.Patch
	o.Jobs, o.Scratch = b.o.Jobs, b.scratch
	o.OldListing, o.NewListing = base.ListingSize, src.listing
	o.Progress = func(done, total int64) {
		b.report(Progress{Stage: StagePatch, Artifact: src.name, Base: m.Version, Done: done, Total: total})
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
func (b *builder) check(ctx context.Context, old *fileStream, w *objectWriter) error {
	_, err := patch.Decode(ctx, fileStream{w.f, w.size}, old, io.Discard, patch.DecodeOptions{Scratch: b.scratch})
	return err
}

// keep describes the patch in the manifest and publishes it.
func (b *builder) keep(i int, m *release.Manifest, base *release.Artifact, w *objectWriter) error {
	a := &b.m.Artifacts[i]
	info, err := patch.Inspect(fileStream{w.f, w.size})
	if err != nil {
		return err
	}
	if info.NewSum != a.Sum || info.BaseSum != base.Sum {
		return fmt.Errorf("%w: %s changed while it was being published", ErrInput, b.sources[i].path)
	}
	p := release.Patch{Base: base.Sum, BaseVersion: m.Version, Size: w.size, BlockSize: BlockSize,
		Profile: info.Profile, Memory: info.Memory, Work: info.Work}
	if p.Blocks, err = blockSums(w.f, w.size); err != nil {
		return err
	}
	if p.Sum, err = w.publish(); err != nil {
		return err
	}
	a.Patches = append(a.Patches, p)
	return nil
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
