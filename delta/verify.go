package delta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"updraft/delta/release"
)

// StageVerify is the stage of Verify; Artifact is the name of the object or of the
// artifact that is being read.
const StageVerify Stage = "verify"

// Verify reads everything that m refers to in an origin directory: packs, patches
// and their blocks, those of its steps too, indexes and pack maps, and every artifact as a device without a
// base would put it together. It goes on after what it finds and returns all of it,
// joined: errors that wrap ErrCorrupt, ErrMap or fs.ErrNotExist, or ctx.Err alone.
// progress may be nil.
func Verify(ctx context.Context, origin string, m *release.Manifest, progress func(Progress)) error {
	if progress == nil {
		progress = func(Progress) {}
	}
	v := verifier{ctx: ctx.Err, origin: origin, progress: progress}
	var errs []error
	for _, p := range m.Packs {
		errs = append(errs, v.object(ObjectName(PackDir, p.Sum), p.Sum, p.Size))
	}
	for i := range m.Steps {
		errs = append(errs, v.patch(&m.Steps[i].Patch))
	}
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		for j := range a.Patches {
			errs = append(errs, v.patch(&a.Patches[j]))
		}
		if err := v.artifact(m, a); err != nil {
			errs = append(errs, fmt.Errorf("artifact %s: %w", a.Name, err))
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

type verifier struct {
	ctx      func() error
	origin   string
	progress func(Progress)
}

// read passes r through to w and reports on the way.
func (v *verifier) read(w io.Writer, r io.Reader, name string, total int64) (int64, error) {
	m := &meter{ctx: v.ctx, r: r, report: func(n int64) {
		v.progress(Progress{Stage: StageVerify, Artifact: name, Done: n, Total: total})
	}}
	return io.Copy(w, m)
}

// object compares size and digest of an object.
func (v *verifier) object(name string, sum [32]byte, size int64) error {
	f, err := os.Open(filepath.Join(v.origin, filepath.FromSlash(name)))
	if err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := v.read(h, f, name, size)
	if err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	if n != size || [32]byte(h.Sum(nil)) != sum {
		return fmt.Errorf("%w: %s", ErrCorrupt, name)
	}
	return nil
}

func (v *verifier) patch(p *release.Patch) error {
	name := ObjectName(PatchDir, p.Sum)
	if err := v.object(name, p.Sum, p.Size); err != nil || p.BlockSize != BlockSize || len(p.Blocks) == 0 {
		return err
	}
	f, err := os.Open(filepath.Join(v.origin, filepath.FromSlash(name)))
	if err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	defer f.Close()
	sums, err := blockSums(f, p.Size)
	if err != nil {
		return err
	}
	for i, sum := range sums {
		if sum != p.Blocks[i] {
			return fmt.Errorf("%w: block %d of %s", ErrCorrupt, i, name)
		}
	}
	return nil
}

func (v *verifier) artifact(m *release.Manifest, a *release.Artifact) error {
	s, err := OpenArtifact(v.origin, m, a)
	if err != nil {
		return err
	}
	defer s.Close()
	h := sha256.New()
	n, err := v.read(h, io.NewSectionReader(s, 0, s.Size()), a.Name, a.Size)
	if err != nil {
		return err
	}
	if n != a.Size || [32]byte(h.Sum(nil)) != a.Sum {
		return fmt.Errorf("%w: digest of the whole", ErrCorrupt)
	}
	return nil
}
