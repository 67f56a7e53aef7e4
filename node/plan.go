package node

import (
	"fmt"
	"strings"

	"updraft/delta/release"
)

// choice is one way to bring an artifact to the site, with what it costs.
type choice struct {
	way   release.Way // nil: by chunks
	none  bool        // nothing is to bring: the others have it
	bytes int64       // over the uplink
	about bool        // bytes is an estimate
	not   bool        // impossible
	why   string
}

// siteView is what a plan for an artifact has to know of the site.
type siteView struct {
	complete   string                     // a device that holds the very artifact; empty: none
	ways       []release.Way              // to the artifact: patches, and chains of them
	unaware    string                     // a device that knows of no chains and would bring chunks beside; empty: none
	based      func(w release.Way) bool   // some device has the base of w
	held       func(w release.Way) bool   // some device could go w
	usable     func(w release.Way) bool   // no patch of w has failed
	rebuilding func(w release.Way) string // the device that goes w now; empty: none
	wayBytes   func(w release.Way) int64  // of w's patches that the site still lacks
	chunkBytes int64                      // that the site still lacks, about
	indexed    bool                       // it is known which chunks those are; else all count
}

// choosePlan returns the way to bring a: nothing where a device of the site holds
// it, the patch or chain that is being applied, or else the cheapest; and the others in
// the order of s.ways, without the chains from bases that nobody has. Chunks never come while a patch is being applied: what they would
// bring is on its way.
func choosePlan(a *release.Artifact, s siteView) (best choice, others []choice) {
	best = s.chunks(a.Name)
	settled := false
	if s.complete != "" {
		settled = true
		best, others = choice{none: true, why: fmt.Sprintf("%s: nothing to bring, %s has it complete", a.Name, s.complete)}, append(others, best)
	}
	for _, w := range s.ways {
		if len(w) > 1 && !s.based(w) {
			continue
		}
		c := s.choice(a.Name, w)
		if by := s.rebuilding(w); !c.not && !settled && (by != "" || c.bytes < best.bytes) {
			best, c = c, best
			settled = by != ""
		}
		others = append(others, c)
	}
	return best, others
}

// chunks is what chunks cost. Of each it is known how long it is, but not how long in its pack.
func (s siteView) chunks(name string) choice {
	c := choice{bytes: s.chunkBytes, about: s.chunkBytes > 0}
	about, all := "", ""
	if c.about {
		about = "about "
		if !s.indexed {
			all = ", or fewer: all count until its index is here"
		}
	}
	c.why = fmt.Sprintf("%s: %s%d bytes of chunks that no device of the site has%s", name, about, c.bytes, all)
	return c
}

// choice is what w costs, and whether it is possible.
func (s siteView) choice(name string, w release.Way) choice {
	c := choice{way: w, bytes: s.wayBytes(w)}
	by := s.rebuilding(w)
	no := ""
	switch {
	case len(w) > 1 && by == "" && s.unaware != "":
		no = fmt.Sprintf("the program of %s knows of no chains, and would bring chunks beside", s.unaware)
	case !s.held(w) && len(w) > 1:
		no = fmt.Sprintf("no device with its base has memory and %d bytes of room for it", w.Room()+w.Size())
	case !s.held(w):
		no = "no device of the site holds its base and can apply it"
	case !s.usable(w):
		no = "it failed here"
	}
	c.why = fmt.Sprintf("%s: %s", name, describe(w))
	if c.not = no != ""; c.not {
		c.why += fmt.Sprintf(" (%d bytes) not possible: %s", c.bytes, no)
		return c
	}
	if by != "" {
		c.why += fmt.Sprintf(", which %s is applying", by)
	}
	c.why += fmt.Sprintf(", %d bytes%s", c.bytes, aside(w))
	return c
}

// describe names a way by where it begins and what it passes.
func describe(w release.Way) string {
	if len(w) == 1 {
		return "patch from " + w.BaseVersion()
	}
	return fmt.Sprintf("chain of %d patches from %s by %s", len(w), w.BaseVersion(), strings.Join(via(w), ", "))
}

// via returns the versions that a chain passes.
func via(w release.Way) []string {
	var out []string
	for i := range w[1:] {
		out = append(out, w[i+1].BaseVersion)
	}
	return out
}

// aside says what a chain costs beside the uplink.
func aside(w release.Way) string {
	if n := w.Between(); n > 0 {
		return fmt.Sprintf(", and %d bytes written on the way that are not kept", n)
	}
	return ""
}
