package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"updraft/delta/release"
)

// A release may have the same bytes under several names. They come once, for the first of
// them, and the others, its twins, are copies of it that this device makes when it is there:
// to the swarm, the plan and the library it is one artifact.

// original returns the number of the first artifact in m with the bytes of number i, which
// is i unless that is a twin.
func original(m *release.Manifest, i int) int {
	for j := range m.Artifacts[:i] {
		if twins(&m.Artifacts[j], &m.Artifacts[i]) {
			return j
		}
	}
	return i
}

func twins(a, b *release.Artifact) bool { return a.Sum == b.Sum && a.Size == b.Size }

// waysTo returns the ways to artifact i of m, with those that its twins name: what they
// have been before need not be the same.
func waysTo(m *release.Manifest, i int) []release.Way {
	art := m.Artifacts[i]
	art.Patches = slices.Clone(art.Patches)
	for j := range m.Artifacts {
		if j == i || !twins(&m.Artifacts[j], &art) {
			continue
		}
		for _, p := range m.Artifacts[j].Patches {
			if !slices.ContainsFunc(art.Patches, func(q release.Patch) bool { return q.Base == p.Base }) {
				art.Patches = append(art.Patches, p)
			}
		}
	}
	return release.Ways(&art, m.Steps)
}

// assembly returns the one of artifact i of the release, or of what that is a twin of.
func (u *update) assembly(i int) *assembly {
	art := &u.m.Artifacts[original(u.m, i)]
	return u.arts[slices.IndexFunc(u.arts, func(a *assembly) bool { return a.art == art })]
}

// makeTwins copies what is complete to where its twins lie.
func (u *update) makeTwins(ctx context.Context) error {
	for i := range u.m.Artifacts {
		if art := &u.m.Artifacts[i]; original(u.m, i) != i {
			if err := u.makeTwin(ctx, u.assembly(i), art); err != nil {
				return fmt.Errorf("node: copy %s to %s: %w", u.assembly(i).art.Name, art.Name, err)
			}
		}
	}
	return nil
}

// makeTwin copies a to where art lies, but for what is there from an earlier run.
func (u *update) makeTwin(ctx context.Context, a *assembly, art *release.Artifact) (err error) {
	st, _, err := u.place(art)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	st.countTo(&a.written)
	to := &assembly{art: art, st: st, rough: span{0, art.Size}}
	to.opened.Store(art.Kind != release.Tree)
	h, buf := sha256.New(), make([]byte, 256<<10)
	for off := int64(0); off < art.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(int64(len(buf)), art.Size-off)]
		if off < art.ListingSize {
			b = b[:min(int64(len(b)), art.ListingSize-off)]
		}
		if _, err := a.readAt(b, off); err != nil {
			return err
		}
		h.Write(b)
		if err := to.writeAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
		if off == art.ListingSize {
			if err := st.(*treeStream).open(); err != nil {
				return err
			}
			to.opened.Store(true)
		}
		to.leave(off)
	}
	if [32]byte(h.Sum(nil)) != art.Sum {
		return errChanged
	}
	return st.finish()
}

// errChanged reports an artifact that has changed on the disk since it was complete.
var errChanged = errors.New("node: it has changed on the disk")
