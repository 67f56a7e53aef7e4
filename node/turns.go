package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
)

// Where applying a patch takes long, few devices of the site do it and pass the
// result on: the LAN is cheap, and no other device has to work for it.
const (
	slowWork     = 24 << 20 // decoder work from which on a patch is slow
	slowFactor   = 2        // and so many times the size of what it makes
	sparesEach   = 8        // candidates for each further device that rebuilds beside the first
	maxRebuild   = 3        // devices that rebuild
	turnPatience = 8 * time.Second
	turnLook     = 500 * time.Millisecond
	understudies = 2 // devices that keep the patch at hand for when it is their turn
)

// isSlow reports whether w is better gone by few devices.
func isSlow(a *release.Artifact, w release.Way) bool {
	return w.Work() >= slowWork && w.Work() >= slowFactor*a.Size
}

// candidate is a device that could go a way.
type candidate struct {
	id      peer.ID
	name    string
	speed   int  // class: one more is twice as fast
	working bool // at it
}

// order sorts cs: those that work already, then the fast ones, then by a hash that
// differs for each way, so that the work goes round.
func order(cs []candidate, way [32]byte) {
	rendezvous := func(c candidate) [32]byte { return sha256.Sum256(append(way[:len(way):len(way)], c.id...)) }
	sort.Slice(cs, func(i, j int) bool {
		a, b := &cs[i], &cs[j]
		switch {
		case a.working != b.working:
			return a.working
		case a.speed != b.speed:
			return a.speed > b.speed
		}
		x, y := rendezvous(*a), rendezvous(*b)
		return bytes.Compare(x[:], y[:]) < 0
	})
}

// turn returns how many devices of cs, which is in order, have to fail before it
// is the turn of id: 0 or less for those who rebuild at once.
func turn(cs []candidate, id peer.ID) int {
	at := slices.IndexFunc(cs, func(c candidate) bool { return c.id == id })
	if at < 0 {
		return len(cs) + 1
	}
	return at - min(1+len(cs)/sparesEach, maxRebuild) + 1
}

// candidates returns the devices of the site that could go w to make art now, in
// order.
func (u *update) candidates(art *release.Artifact, w release.Way) []candidate {
	var cs []candidate
	if u.n.canApply(w) && !u.wayFailed(w) {
		cs = append(cs, candidate{u.n.id, u.n.enr.Name, u.n.speed(), u.applies(art, w)})
	}
	for _, m := range u.n.members() {
		if m.profile.Target == u.digest && m.profile.able(w) {
			cs = append(cs, candidate{m.ID, m.Name, m.profile.Speed, m.profile.applies(art, w)})
		}
	}
	order(cs, w.Name())
	return cs
}

// able reports whether the device with the profile could go w.
func (p *profile) able(w release.Way) bool {
	return slices.Contains(p.Bases, w.Base()) && !p.failed(w) && fits(w, p.Memory, p.Room)
}

// failed reports whether a patch of w has failed there.
func (p *profile) failed(w release.Way) bool {
	return slices.ContainsFunc(w, func(s release.Step) bool { return slices.Contains(p.Failed, s.Sum) })
}

// applies reports whether the device with the profile goes w to art now.
func (p *profile) applies(art *release.Artifact, w release.Way) bool {
	return p.Working && slices.Contains(p.Plan, planEntry{Artifact: art.Sum, Way: w.Name()}) && !p.failed(w)
}

// applies reports whether this device goes w to art now.
func (u *update) applies(art *release.Artifact, w release.Way) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	j, ok := u.active[art.Sum]
	return ok && j.way == w.Name()
}

// applying returns the name of a device that goes w to art now, or "".
func (u *update) applying(art *release.Artifact, w release.Way) string {
	if u.applies(art, w) {
		return "this device"
	}
	for _, m := range u.n.members() {
		if m.profile.Target == u.digest && m.profile.applies(art, w) {
			return m.Name
		}
	}
	return ""
}

// completeAt returns the name of a member that holds art complete, or "".
func (n *Node) completeAt(art *release.Artifact) string {
	for _, m := range n.members() {
		if slices.Contains(m.profile.Bases, art.Sum) {
			return m.Name
		}
	}
	return ""
}

// awaitTurn reports whether this device is to go w to a: at once where w is fast or
// this device is among the first, later when nothing has come from those before it for a
// while. It returns false when the plan may have changed or a is complete.
func (u *update) awaitTurn(ctx context.Context, a *assembly, w release.Way) bool {
	if !isSlow(a.art, w) {
		return true
	}
	defer u.explain(a.art, "")
	var moved attention
	u.still(&moved)
	settled := !u.others(w)
	for !a.complete() {
		changed := u.n.sw.Changed()
		cs := u.candidates(a.art, w)
		before := turn(cs, u.n.id)
		from := u.n.completeAt(a.art)
		if from != "" {
			before = max(before, 1)
		} else if len(cs) > 0 {
			from = cs[0].name
		}
		still := u.still(&moved)
		if before <= understudies {
			if _, err := u.openWay(w, true); err != nil {
				return true // the rebuild meets the same error and reports it
			}
		}
		if before <= 0 && !settled {
			// All learn of the plan at about the same time: let them tell who begins.
			settled = true
			if !sleep(ctx, turnLook) {
				return false
			}
			continue
		}
		if before <= 0 || still > time.Duration(before)*turnPatience {
			return true
		}
		u.explain(a.art, fmt.Sprintf("%s: taken from %s, which rebuilds it for the site from %s: applying the patch is slow, the LAN is not", a.art.Name, from, w.BaseVersion()))
		select {
		case <-ctx.Done():
			return false
		case <-a.planned:
			return false
		case <-changed:
			if !sleep(ctx, turnLook/10) { // members change together
				return false
			}
		case <-time.After(turnLook):
		}
	}
	return false
}

// others reports whether a member could go w, whatever it is at.
func (u *update) others(w release.Way) bool {
	return slices.ContainsFunc(u.n.members(), func(m member) bool { return m.profile.able(w) })
}

// explain notes what this device does about art, for status; empty: nothing special.
func (u *update) explain(art *release.Artifact, text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if text == "" {
		delete(u.notes, art.Sum)
		return
	}
	u.notes[art.Sum] = text
}

// explained returns what explain noted, in the order of the manifest.
func (u *update) explained() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []string
	for _, a := range u.arts {
		if t := u.notes[a.art.Sum]; t != "" {
			out = append(out, t)
		}
	}
	return out
}

// speed returns the class of this device as one that rebuilds.
func (n *Node) speed() int {
	s := measureSpeed()
	if runtime.NumCPU() == 1 {
		s-- // the application needs it
	}
	return max(s, 1)
}

// measureSpeed returns the binary logarithm of how many dependent steps with table
// look-ups one CPU makes in 16 milliseconds, which is what a dense decoder does.
var measureSpeed = sync.OnceValue(func() int {
	const steps = 1 << 18
	var table [1 << 12]uint32
	best := time.Hour
	for range 3 {
		start := time.Now()
		x := uint32(2463534242)
		for range steps {
			x ^= x << 13
			x ^= x >> 17
			x ^= x << 5
			e := &table[x&(1<<12-1)]
			*e += x >> 3
			x += *e
		}
		best = min(best, max(time.Since(start), time.Microsecond))
	}
	return bits.Len64(uint64(steps) * uint64(16*time.Millisecond) / uint64(best))
})
