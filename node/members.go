package node

import (
	"bytes"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm"
	"updraft/swarm/lease"
)

// member is a connected device with what it said about itself.
type member struct {
	swarm.Member
	profile *profile
}

// members returns the connected devices whose profile can be read.
func (n *Node) members() []member {
	n.profMu.Lock()
	defer n.profMu.Unlock()
	now := make(map[peer.ID]readProfile)
	var out []member
	for _, m := range n.sw.Members() {
		r, ok := n.profiles[m.ID]
		if !ok || !bytes.Equal(r.raw, m.Profile.Node) {
			p, err := decodeProfile(m.Profile.Node)
			if err != nil && !r.odd {
				n.log.Warn("member with an unreadable profile", "member", m.Name, "err", err)
			}
			r = readProfile{m.Profile.Node, p, r.odd || err != nil}
		}
		now[m.ID] = r
		if r.p != nil {
			out = append(out, member{m, r.p})
		}
	}
	n.profiles = now
	return out
}

// readProfile is a member's profile and the bytes it was read from; p is nil when
// they cannot be read.
type readProfile struct {
	raw []byte
	p   *profile
	odd bool // one that could not be read has been logged
}

func (n *Node) nameOf(id peer.ID) string {
	for _, m := range n.sw.Members() {
		if m.ID == id {
			return m.Name
		}
	}
	return id.String()
}

// announce tells the members what this device is and has.
func (n *Node) announce() { n.tell(true) }

// tell tells the members what this device is and has; unless anew, only when that is not what they were told last.
func (n *Node) tell(anew bool) {
	n.tellMu.Lock()
	defer n.tellMu.Unlock()
	n.mu.Lock()
	t, u := n.target, n.upd
	n.mu.Unlock()
	up := n.reach()
	p := profile{Meta: n.wholeVersion(), Bases: n.lib.bases(), State: n.status.state(), Uplink: up, Speed: n.speed(), Memory: n.cfg.Memory, Room: max(1, n.room())}
	p.Version, _ = n.dir.Current()
	if t != nil {
		p.Target = t.digest
		if u == nil && n.inService(t.m) {
			p.Progress = 1000
		}
	}
	if u != nil {
		u.fill(&p)
	}
	b, err := p.encode()
	for err == nil && len(b) > maxProfile && len(p.Bases)+len(p.Plan) > 0 {
		// What does not fit is not told: others plan without it.
		p.Bases = p.Bases[:len(p.Bases)/2]
		if len(p.Bases) == 0 {
			p.Plan = p.Plan[:len(p.Plan)/2]
		}
		b, err = p.encode()
	}
	if err != nil {
		n.log.Error("profile not announced", "err", err)
		return
	}
	if !anew && bytes.Equal(b, n.said) {
		return
	}
	n.said = b
	link, _ := n.cfg.linkClass() // checked by New
	rank := lease.Rank{Gateway: n.gw, Link: link, Reach: reachRank(up), Up: int64(time.Since(n.start) / time.Second)}
	if err := n.sw.Announce(swarm.Profile{Rank: rank, Node: b}); err != nil {
		n.log.Error("profile not announced", "err", err)
	}
}

// reachRank returns what the rank of a device says of its way to the origin.
func reachRank(uplink int) uint8 {
	switch uplink {
	case uplinkOK:
		return lease.Reached
	case uplinkBad:
		return lease.OutOfReach
	}
	return lease.Untried
}

// fill adds to p what the update has to say.
func (u *update) fill(p *profile) {
	have, total := u.progress()
	u.mu.Lock()
	defer u.mu.Unlock()
	p.Plan, p.Epoch, p.Rebuilt, p.Working = u.plans, u.epoch, u.rebuilt, u.working > 0
	for sum := range u.failed {
		if len(p.Failed) < maxFailed {
			p.Failed = append(p.Failed, sum)
		}
	}
	if total > 0 {
		p.Progress = int(have * 999 / total)
	}
}
