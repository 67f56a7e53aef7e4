package node

import (
	"errors"
	"fmt"
	"slices"

	"updraft/delta/release"
	"updraft/node/report"
)

// errNoTarget reports that nothing is known to plan for.
var errNoTarget = errors.New("node: no release is known on the channel")

// Plan implements report.Backend: what the site would bring for the channel's newest
// release, as this device sees it now. It decides nothing.
func (n *Node) Plan() (report.Plan, error) {
	n.mu.Lock()
	t, u := n.target, n.upd
	n.mu.Unlock()
	if t == nil {
		return report.Plan{}, told(errNoTarget)
	}
	if u != nil && u.digest != t.digest {
		u = nil // about to be given up
	}
	out := report.Plan{Version: t.m.Version, InService: n.inService(t.m), Artifacts: []report.PlanArtifact{}}
	for i := range t.m.Artifacts {
		art := &t.m.Artifacts[i]
		if k := original(t.m, i); k != i {
			c := choice{none: true, why: fmt.Sprintf("%s: nothing to bring, it is the same as %s", art.Name, t.m.Artifacts[k].Name)}
			out.Artifacts = append(out.Artifacts, report.PlanArtifact{Name: art.Name, Size: art.Size, Ways: []report.PlanWay{n.way(t, c)}})
			continue
		}
		best, others := choosePlan(art, n.preview(t, u, i))
		p := report.PlanArtifact{Name: art.Name, Size: art.Size, Bytes: best.bytes}
		for _, c := range append([]choice{best}, others...) {
			p.Ways = append(p.Ways, n.way(t, c))
		}
		out.Artifacts = append(out.Artifacts, p)
		out.Bytes += best.bytes
		out.Estimate = out.Estimate || best.about
	}
	return out, nil
}

// preview is what a plan for artifact i has to know; u is the update under way, or nil.
func (n *Node) preview(t *target, u *update, i int) siteView {
	art := &t.m.Artifacts[i]
	v := siteView{
		unaware:    n.unaware(t),
		based:      n.based,
		held:       func(w release.Way) bool { return len(n.holders(t, w)) > 0 },
		usable:     func(release.Way) bool { return true },
		rebuilding: func(release.Way) string { return "" },
		wayBytes:   release.Way.Size,
	}
	if n.lib.find(art.Sum) != nil {
		v.complete = "this device"
	} else {
		v.complete = n.completeAt(art)
	}
	if u == nil {
		v.ways = waysTo(t.m, i)
		v.chunkBytes = packedSize(t.m, art.Size)
		return v
	}
	v.chunkBytes, v.indexed = u.chunkBytes(u.assembly(i))
	v.ways = u.ways[art.Sum]
	v.usable = func(w release.Way) bool { return !u.wayFailed(w) }
	v.rebuilding = func(w release.Way) string { return u.applying(art, w) }
	v.wayBytes = u.wayBytes
	return v
}

// holders returns the names of the devices that could go w to come to t.
func (n *Node) holders(t *target, w release.Way) []string {
	var out []string
	if n.canApply(w) {
		out = append(out, n.enr.Name)
	}
	for _, m := range n.members() {
		if n.wants(m, t) && m.profile.able(w) {
			out = append(out, m.Name)
		}
	}
	return out
}

// wants reports whether m is on its way to t: a device that wants another release will
// not rebuild this one; one with older metadata has yet to learn of it.
func (n *Node) wants(m member, t *target) bool {
	return m.profile.Target == t.digest || m.profile.Meta < n.trust.Version()
}

// unaware returns the name of a device on its way to t that knows of no chains and would bring
// chunks beside one, or "".
func (n *Node) unaware(t *target) string {
	for _, m := range n.members() {
		if n.wants(m, t) && m.besides(t) {
			return m.Name
		}
	}
	return ""
}

// besides reports whether m, on its way to t, would bring chunks beside a chain as soon as it has
// the lease: it knows of no chains, for one that does tells of its room, the release is for it,
// and it does not say that the origin is out of its reach.
func (m member) besides(t *target) bool {
	return m.profile.V > 0 && m.profile.Room == 0 && m.profile.Uplink != uplinkBad && t.m.Fits(m.Type)
}

// based reports whether some device has the base of w, whatever else it lacks.
func (n *Node) based(w release.Way) bool {
	return n.lib.find(w.Base()) != nil ||
		slices.ContainsFunc(n.members(), func(m member) bool { return slices.Contains(m.profile.Bases, w.Base()) })
}

// canApply reports whether this device holds the base of w, and has memory and room
// for it.
func (n *Node) canApply(w release.Way) bool {
	return n.lib.find(w.Base()) != nil && fits(w, n.cfg.Memory, n.room())
}

// way is c in the words of the report.
func (n *Node) way(t *target, c choice) report.PlanWay {
	w := report.PlanWay{Kind: "chunks", Bytes: c.bytes, Estimate: c.about, Possible: !c.not, Why: c.why}
	switch {
	case c.none:
		w.Kind = "nothing"
	case c.way != nil:
		w.Kind, w.Base, w.Profile, w.Work = "patch", c.way.BaseVersion(), c.way[0].Profile, c.way.Work()
		w.Holders = n.holders(t, c.way)
		if len(c.way) > 1 {
			w.Kind, w.Profile, w.Via, w.Between = "chain", "", via(c.way), c.way.Between()
		}
	}
	return w
}

// explainPlan turns choices into the lines of status: the one taken, then the others.
func explainPlan(best choice, others []choice) []string {
	why := []string{best.why}
	for _, o := range others {
		why = append(why, fmt.Sprintf("not: %s", o.why))
	}
	return why
}

// explainFollowed turns what another device has planned into lines of status.
func (u *update) explainFollowed(plan []planEntry, by string) []string {
	var why []string
	for _, e := range plan {
		for _, a := range u.arts {
			if a.art.Sum != e.Artifact || a.complete() {
				continue
			}
			way := "chunks that no device of the site has"
			if w := u.way(a.art, e.Way); w != nil {
				way = describe(w)
			}
			why = append(why, fmt.Sprintf("%s: %s, by the plan of %s", a.art.Name, way, by))
		}
	}
	return why
}
