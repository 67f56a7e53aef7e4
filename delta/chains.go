package delta

import (
	"io"
	"os"
	"path/filepath"
	"slices"

	"updraft/delta/patch"
	"updraft/delta/release"
)

// Chains of patches are for sites that are behind by more releases than patches are
// made for.
const (
	chainReach = 16       // releases back from which chains are looked for
	chainSteps = 16       // steps of one artifact
	chainSaves = 16 << 10 // bytes that a chain has to save at least: every site gets the steps
)

// ChainStats are the figures of one chain.
type ChainStats struct {
	BaseVersion string
	Patches     int   // how many are applied, the artifact's own included
	Size        int64 // bytes of all of them
	Between     int64 // bytes of the artifacts that are made on the way
	Chunks      int64 // bytes in packs that a device with the base would need without it
}

// chains adds the steps by which a site comes to artifact i from an earlier release
// that has no patch to it: patches that earlier publications left at the origin, by the
// way with the fewest bytes. Those from the newest bases come first, and what does not
// fit is left out.
func (b *builder) chains(i int) error {
	a := &b.m.Artifacts[i]
	if a.Size == 0 {
		return nil
	}
	ways := make(map[[32]byte]release.Way)
	direct := make(map[[32]byte]bool) // patches of a
	for _, w := range release.Ways(a, b.earlierSteps()) {
		ways[w.Base()] = w
	}
	seen := map[[32]byte]bool{a.Sum: true}
	for j := range a.Patches {
		direct[a.Patches[j].Sum], seen[a.Patches[j].Base] = true, true
	}
	left := chainSteps
	for _, m := range b.reach() {
		base := findBase(m, a)
		if base == nil || base.Size == 0 || seen[base.Sum] {
			continue
		}
		seen[base.Sum] = true
		w := ways[base.Sum]
		if w == nil {
			continue
		}
		cost, err := b.missingCost(i, base)
		if absent(err) {
			continue // nothing to compare with
		}
		if err != nil {
			return err
		}
		if w.Size() >= cost*keepNum/keepDen || w.Size()+chainSaves > cost {
			continue
		}
		left -= b.addSteps(i, w, direct, cost, left)
	}
	return nil
}

// addSteps adds those of w's patches that the release does not name yet, if they are at
// most most, and returns how many.
func (b *builder) addSteps(i int, w release.Way, direct map[[32]byte]bool, cost int64, most int) int {
	steps := slices.Clone(b.m.Steps)
	for _, s := range w {
		if !direct[s.Sum] && !slices.ContainsFunc(steps, func(t release.Step) bool { return t.Sum == s.Sum }) {
			steps = append(steps, s)
		}
	}
	added := len(steps) - len(b.m.Steps)
	if added > most {
		return 0
	}
	if _, err := release.EncodeSteps(steps); err != nil {
		return 0 // too many, or too large
	}
	b.m.Steps = steps
	st := &b.stats.Artifacts[i]
	st.Chains = append(st.Chains, ChainStats{BaseVersion: w.BaseVersion(), Patches: len(w), Size: w.Size(), Between: w.Between(), Chunks: cost})
	return added
}

// reach returns the earlier releases from which chains are looked for, newest first.
func (b *builder) reach() []*release.Manifest {
	return b.o.Previous[:min(len(b.o.Previous), chainReach)]
}

// earlierSteps returns the patches of those releases that are still at the origin, and
// of a format that this program reads: an earlier one may have made them.
func (b *builder) earlierSteps() []release.Step {
	if b.earlier != nil {
		return b.earlier
	}
	b.earlier = []release.Step{}
	seen := make(map[[32]byte]bool)
	for _, m := range b.reach() {
		for i := range m.Artifacts {
			a := &m.Artifacts[i]
			for _, p := range a.Patches {
				if seen[p.Sum] || p.BaseVersion == EmptyVersion {
					continue
				}
				seen[p.Sum] = true
				if s := (release.Step{Patch: p, Target: a.Sum, TargetSize: a.Size}); readable(b.o.Origin, &s) {
					b.earlier = append(b.earlier, s)
				}
			}
		}
	}
	return b.earlier
}

// readable reports whether the patch of s lies at the origin and says that it is s.
func readable(origin string, s *release.Step) bool {
	f, err := os.Open(filepath.Join(origin, filepath.FromSlash(ObjectName(PatchDir, s.Sum))))
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() != s.Size {
		return false
	}
	in, err := patch.Inspect(io.NewSectionReader(f, 0, s.Size))
	return err == nil && in.BaseSum == s.Base && in.NewSum == s.Target && in.NewSize == s.TargetSize
}
