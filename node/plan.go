package node

import (
	"fmt"

	"updraft/delta/release"
)

// choice is one way to bring an artifact to the site, with what it costs.
type choice struct {
	patch *release.Patch // nil: by chunks
	bytes int64          // over the uplink
	why   string
}

// choosePlan returns the cheapest way to bring a, and the other ways in the order
// of the manifest. held says whether some device of the site holds a base;
// usable excludes patches that failed; patchBytes and chunkBytes are what is
// still missing on the site of each.
func choosePlan(a *release.Artifact, held func(base [32]byte) bool, usable func(p *release.Patch) bool, patchBytes func(p *release.Patch) int64, chunkBytes int64) (best choice, others []choice) {
	best = choice{bytes: chunkBytes, why: fmt.Sprintf("%s: %d bytes of chunks that no device of the site has", a.Name, chunkBytes)}
	for i := range a.Patches {
		p := &a.Patches[i]
		c := choice{patch: p, bytes: patchBytes(p)}
		switch {
		case !held(p.Base):
			c.why = fmt.Sprintf("%s: patch from %s (%d bytes) not possible: no device of the site holds its base", a.Name, p.BaseVersion, c.bytes)
		case !usable(p):
			c.why = fmt.Sprintf("%s: patch from %s (%d bytes) not possible: it failed here", a.Name, p.BaseVersion, c.bytes)
		default:
			c.why = fmt.Sprintf("%s: patch from %s, %d bytes", a.Name, p.BaseVersion, c.bytes)
			if c.bytes < best.bytes {
				best, c = c, best
			}
		}
		others = append(others, c)
	}
	return best, others
}
