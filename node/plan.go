package node

import (
	"fmt"

	"updraft/delta/release"
)

// choice is one way to bring an artifact to the site, with what it costs.
type choice struct {
	patch *release.Patch // nil: by chunks
	none  bool           // nothing is to bring: the others have it
	bytes int64          // over the uplink
	not   bool           // impossible
	why   string
}

// siteView is what a plan for an artifact has to know of the site.
type siteView struct {
	complete   string                        // a device that holds the very artifact; empty: none
	held       func(p *release.Patch) bool   // some device could apply p
	usable     func(p *release.Patch) bool   // p has not failed
	rebuilding func(p *release.Patch) string // the device that applies p now; empty: none
	patchBytes func(p *release.Patch) int64  // of p that the site still lacks
	chunkBytes int64                         // that the site still lacks
}

// choosePlan returns the way to bring a: nothing where a device of the site holds
// it, the patch that is being applied, or else the cheapest; and the other ways in
// the order of the manifest. Chunks never come while a patch is being applied:
// what they would bring is on its way.
func choosePlan(a *release.Artifact, s siteView) (best choice, others []choice) {
	best = choice{bytes: s.chunkBytes, why: fmt.Sprintf("%s: %d bytes of chunks that no device of the site has", a.Name, s.chunkBytes)}
	settled := false
	if s.complete != "" {
		settled = true
		best, others = choice{none: true, why: fmt.Sprintf("%s: nothing to bring, %s has it complete", a.Name, s.complete)}, append(others, best)
	}
	for i := range a.Patches {
		p := &a.Patches[i]
		c := choice{patch: p, bytes: s.patchBytes(p)}
		switch {
		case !s.held(p):
			c.not = true
			c.why = fmt.Sprintf("%s: patch from %s (%d bytes) not possible: no device of the site holds its base and can apply it", a.Name, p.BaseVersion, c.bytes)
		case !s.usable(p):
			c.not = true
			c.why = fmt.Sprintf("%s: patch from %s (%d bytes) not possible: it failed here", a.Name, p.BaseVersion, c.bytes)
		default:
			c.why = fmt.Sprintf("%s: patch from %s, %d bytes", a.Name, p.BaseVersion, c.bytes)
			by := s.rebuilding(p)
			if by != "" {
				c.why = fmt.Sprintf("%s: patch from %s, which %s is applying, %d bytes", a.Name, p.BaseVersion, by, c.bytes)
			}
			if !settled && (by != "" || c.bytes < best.bytes) {
				best, c = c, best
				settled = by != ""
			}
		}
		others = append(others, c)
	}
	return best, others
}
