package node

import (
	"errors"
	"fmt"

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
		view, err := n.preview(t, u, i)
		if err != nil {
			return report.Plan{}, err
		}
		best, others := choosePlan(art, view)
		p := report.PlanArtifact{Name: art.Name, Size: art.Size, Bytes: best.bytes}
		for _, c := range append([]choice{best}, others...) {
			p.Ways = append(p.Ways, n.way(t, c))
		}
		out.Artifacts = append(out.Artifacts, p)
		out.Bytes += best.bytes
	}
	return out, nil
}

// preview is what a plan for artifact i has to know; u is the update under way, or nil.
func (n *Node) preview(t *target, u *update, i int) (siteView, error) {
	art := &t.m.Artifacts[i]
	v := siteView{
		held:       func(p *release.Patch) bool { return len(n.holders(t, p)) > 0 },
		usable:     func(*release.Patch) bool { return true },
		rebuilding: func(*release.Patch) string { return "" },
		patchBytes: func(p *release.Patch) int64 { return p.Size },
	}
	if n.lib.find(art.Sum) != nil {
		v.complete = "this device"
	} else {
		v.complete = n.completeAt(art)
	}
	if u == nil {
		v.chunkBytes = int64(float64(storedSize(t.m)) * float64(art.Size) / float64(plainSize(t.m)))
		return v, nil
	}
	var err error
	v.chunkBytes, err = u.chunkBytes(u.arts[i])
	v.usable = func(p *release.Patch) bool { return !u.patchFailed(p) }
	v.rebuilding = func(p *release.Patch) string { return u.applying(art, p) }
	v.patchBytes = u.patchBytes
	return v, err
}

// holders returns the names of the devices that could apply p to come to t.
func (n *Node) holders(t *target, p *release.Patch) []string {
	var out []string
	if n.canApply(p) {
		out = append(out, n.enr.Name)
	}
	for _, m := range n.members() {
		// A device that wants another release will not rebuild this one; one with
		// older metadata has yet to learn of it.
		if (m.profile.Target == t.digest || m.profile.Meta < n.trust.Version()) && m.profile.able(p) {
			out = append(out, m.Name)
		}
	}
	return out
}

// canApply reports whether this device holds the base of p and has memory for it.
func (n *Node) canApply(p *release.Patch) bool {
	return n.lib.find(p.Base) != nil && (n.cfg.Memory == 0 || p.Memory <= n.cfg.Memory)
}

// way is c in the words of the report.
func (n *Node) way(t *target, c choice) report.PlanWay {
	w := report.PlanWay{Kind: "chunks", Bytes: c.bytes, Possible: !c.not, Why: c.why}
	switch {
	case c.none:
		w.Kind = "nothing"
	case c.patch != nil:
		w.Kind, w.Base, w.Profile, w.Work = "patch", c.patch.BaseVersion, c.patch.Profile, c.patch.Work
		w.Holders = n.holders(t, c.patch)
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
