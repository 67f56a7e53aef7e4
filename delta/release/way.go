package release

import (
	"bytes"
	"slices"
)

// Step is a patch that ends in an earlier artifact: of use to a device that is behind by
// more than the patches of a manifest reach back, which applies several, one after the
// other.
type Step struct {
	Patch
	Target     [32]byte // sha2-256 of the whole stream that it makes
	TargetSize int64    // bytes of that stream
}

// Way is how a device that holds a base comes to an artifact: patches that are applied
// one after the other, the target of each the base of the next. It is one patch, or a
// chain. A Way is never empty.
type Way []Step

// Name names the way among those to its artifact: the digest of its first patch.
func (w Way) Name() [32]byte { return w[0].Sum }

// Base is the digest of what the way starts from.
func (w Way) Base() [32]byte { return w[0].Base }

// BaseVersion is the version that the base came with.
func (w Way) BaseVersion() string { return w[0].BaseVersion }

// Size is the bytes of all patches.
func (w Way) Size() (n int64) {
	for i := range w {
		n += w[i].Size
	}
	return n
}

// Memory is what the decoder needs that needs most.
func (w Way) Memory() (n int64) {
	for i := range w {
		n = max(n, w[i].Memory)
	}
	return n
}

// Between is the bytes of the artifacts that the way makes before its own.
func (w Way) Between() (n int64) {
	for i := range w[:len(w)-1] {
		n += w[i].TargetSize
	}
	return n
}

// Room is how many bytes of those lie on the disk at once: what a patch starts from,
// and what it makes.
func (w Way) Room() (most int64) {
	var before int64
	for i := range w[:len(w)-1] {
		most = max(most, before+w[i].TargetSize)
		before = w[i].TargetSize
	}
	return most
}

// Work is the work of all decoders, and of writing what lies between them.
func (w Way) Work() int64 {
	n := w.Between()
	for i := range w {
		n += min(w[i].Work, 1<<62-n) // a sum that is too large is slow as well
	}
	return n
}

// Ways returns the ways to a: its patches, in their order, then the chains that steps
// make possible, in the order of the steps they begin with. There is one chain for each
// base: the one with the fewest bytes, and of those the one with the fewest patches; and
// none where a patch from the base has no more. Whoever has the same manifest and the
// same steps gets the same ways.
func Ways(a *Artifact, steps []Step) []Way {
	all := make([]Step, 0, len(a.Patches)+len(steps))
	for _, p := range a.Patches {
		all = append(all, Step{Patch: p, Target: a.Sum, TargetSize: a.Size})
	}
	all = append(all, steps...)
	best := shortest(a.Sum, all)
	ways := make([]Way, 0, len(all))
	seen := make(map[[32]byte]bool) // names of ways
	for i := range all[:len(a.Patches)] {
		seen[all[i].Sum] = true
		ways = append(ways, Way{all[i]})
	}
	for i := range steps {
		if w := follow(best, steps[i].Base, a.Sum); w != nil && !seen[w.Name()] {
			seen[w.Name()] = true
			ways = append(ways, w)
		}
	}
	return ways
}

// reached is how the target is reached from an artifact.
type reached struct {
	step  *Step // with which it begins; nil: it is the target
	bytes int64
	steps int
	done  bool
}

// shortest returns, for each artifact from which steps lead to target, with which one
// the shortest way begins: Dijkstra's algorithm, from the target backwards.
func shortest(target [32]byte, steps []Step) map[[32]byte]reached {
	best := map[[32]byte]reached{target: {}}
	for {
		at, ok := nearest(best)
		if !ok {
			return best
		}
		r := best[at]
		r.done = true
		best[at] = r
		for i := range steps {
			s := &steps[i]
			if s.Target != at {
				continue
			}
			next := reached{step: s, bytes: r.bytes + s.Size, steps: r.steps + 1}
			if old, known := best[s.Base]; !known || !old.done && next.before(old) {
				best[s.Base] = next
			}
		}
	}
}

// nearest returns the artifact next to be settled.
func nearest(best map[[32]byte]reached) (at [32]byte, ok bool) {
	for sum, r := range best {
		if r.done {
			continue
		}
		if old := best[at]; !ok || r.bytes < old.bytes || r.bytes == old.bytes && bytes.Compare(sum[:], at[:]) < 0 {
			at, ok = sum, true
		}
	}
	return at, ok
}

// before reports whether a way is taken rather than another one from the same base.
func (r reached) before(other reached) bool {
	if r.bytes != other.bytes {
		return r.bytes < other.bytes
	}
	if r.steps != other.steps {
		return r.steps < other.steps
	}
	return bytes.Compare(r.step.Sum[:], other.step.Sum[:]) < 0
}

// follow returns the way from an artifact to target, or nil.
func follow(best map[[32]byte]reached, from, target [32]byte) Way {
	var w Way
	for from != target {
		r, ok := best[from]
		if !ok {
			return nil
		}
		w = append(w, *r.step)
		from = r.step.Target
	}
	return slices.Clip(w)
}
