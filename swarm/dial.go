package swarm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"updraft/swarm/lease"
)

const (
	dialTimeout = 10 * time.Second
	dialers     = 8                      // dials at once,
	dialsOfKind = 6                      // of peers that were members, and of peers that never were,
	dialsAtIP   = 2                      // and of the latter at one address
	dialPolite  = 700 * time.Millisecond // the higher ID gives the lower this long to dial first
	dialFirst   = time.Second            // wait after the first failure, doubled after each
	dialLast    = time.Minute            // longest wait after a failure
	dialRefused = 5 * time.Minute        // wait after a refusal
	dialForget  = 24 * time.Hour         // a peer that was a member and is to be forgotten is dialled for so long while it is out of reach
)

// Where members are out of reach and missed, they are looked for in haste.
const (
	hasteFor     = 30 * time.Second       // since the network of this device has changed: a switch takes so long to forward
	hasteLast    = 2 * time.Second        // longest wait after a failure
	hasteStale   = 2 * time.Second        // a dial that is older is broken off when the network changes once more: what TCP repeats comes too late
	hasteGap     = 250 * time.Millisecond // between two dials that are due for haste only, of this device and its members in turn
	hasteDials   = 8                      // dials at once besides, of peers that were members: each may wait for seconds for who is off
	lostTogether = time.Minute            // who was lost so soon before or after one that is back may be back, too
)

// addrTTL is how long libp2p knows where a peer is, from the last attempt on. It dials addresses of its own TTL, and
// gives that to those that have less.
var addrTTL = peerstore.TempAddrTTL

// target is a peer that is to be a member.
type target struct {
	info    peer.AddrInfo
	ip      netip.Addr    // of the first address; zero if that is a name
	next    time.Duration // when it may be dialled
	soon    time.Duration // the same in haste, after a failure
	told    int           // how often it was said where it is
	fails   int           // attempts, since there was an answer
	dialing bool
	cancel  context.CancelFunc // of the dial under way,
	begun   time.Duration      // since then
	greets  bool               // it is reached, and the handshake goes on
	known   bool               // was a member,
	lost    time.Duration      // until then
	unheard bool               // discovery hears of it no more,
	silent  time.Duration      // since then
}

// busy reports whether an attempt goes on. Another would be made on the same connection.
func (t *target) busy() bool { return t.dialing || t.greets }

// Connect remembers a peer and its addresses, and keeps a connection to it as long as it is reachable and not
// forgotten. It does not wait. Calling it again replaces the addresses and makes the next attempt due.
func (s *Swarm) Connect(ai peer.AddrInfo) {
	if ai.ID == s.self || ai.ID == "" || len(ai.Addrs) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	t := s.targets[ai.ID]
	if t == nil {
		if len(s.targets) >= maxTargets && !s.makeRoomLocked() {
			return
		}
		t = &target{next: now + s.politenessLocked(ai.ID), known: s.members[ai.ID] != nil}
		s.targets[ai.ID] = t
	} else if s.members[ai.ID] == nil {
		t.next = min(t.next, now+s.politenessLocked(ai.ID))
	}
	t.info, t.ip, t.unheard = ai, ipOf(ai.Addrs[0]), false
	t.told++
	s.soonLocked(t.next)
}

// politenessLocked is how long this device waits for a peer to dial first: less where only this device may know that
// there is a reason to.
func (s *Swarm) politenessLocked(id peer.ID) time.Duration {
	switch {
	case s.self < id:
		return 0
	case s.relinkedLocked(s.now()):
		return dialPolite / 4
	}
	return dialPolite
}

// Forget stops dialling a peer; one that is or was a member only when it has been out of reach for a day: that nothing
// tells of it any more may be the fault of what told. A connection that is up stays.
func (s *Swarm) Forget(id peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[id]
	switch {
	case t == nil:
	case t.known || s.members[id] != nil:
		t.known, t.unheard, t.silent = true, true, s.now()
	case t.busy(): // another attempt would be made on the same connection
		t.unheard = true
	default:
		delete(s.targets, id)
	}
}

// lapsedLocked reports whether a peer that was a member is to be forgotten.
func (s *Swarm) lapsedLocked(id peer.ID, t *target, now time.Duration) bool {
	return t.unheard && !t.busy() && s.members[id] == nil && now-max(t.lost, t.silent) > dialForget
}

// makeRoomLocked forgets a peer that nothing tells of and that is out of reach, and reports whether there was one.
func (s *Swarm) makeRoomLocked() bool {
	for id, t := range s.targets {
		if t.unheard && !t.busy() && s.members[id] == nil {
			delete(s.targets, id)
			return true
		}
	}
	return false
}

// Evict closes the connection with a peer at once, and does not dial it again for a minute.
func (s *Swarm) Evict(id peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.targets[id]; t != nil {
		t.next, t.fails = s.now()+time.Minute, 0
	}
	if m := s.members[id]; m != nil {
		s.dropLocked(m, "evicted")
	}
}

// dialLocked starts the dials that are due and returns when to look again.
func (s *Swarm) dialLocked(ctx context.Context, now time.Duration) time.Duration {
	next, due := s.dialNextLocked(now)
	if !due {
		return next
	}
	for s.wantsMoreLocked() {
		t := s.dueLocked(now)
		if t == nil {
			break
		}
		if now < t.next {
			s.hasteAt = now + time.Duration(1+len(s.members))*hasteGap
		}
		t.dialing, t.next = true, min(t.next, now) // what is later when the dial ends was said meanwhile
		s.wg.Go(func() { s.dial(ctx, t) })
	}
	next, _ = s.dialNextLocked(now)
	return next
}

// dialNextLocked returns when the next dial will be due, and whether one is now, if there is room for it.
func (s *Swarm) dialNextLocked(now time.Duration) (next time.Duration, due bool) {
	next = now + idleWake
	haste := s.hasteLocked(now)
	for id, t := range s.targets {
		switch at := s.dueAtLocked(t, haste); {
		case t.busy(), s.members[id] != nil:
		case s.lapsedLocked(id, t, now):
			delete(s.targets, id)
		case now < at:
			next = min(next, at)
		default:
			due = true
		}
	}
	return next, due
}

// dueAtLocked returns when t may be dialled.
func (s *Swarm) dueAtLocked(t *target, haste bool) time.Duration {
	if haste && t.known && t.fails > 0 {
		return min(t.next, max(t.soon, s.hasteAt))
	}
	return t.next
}

// hasteLocked reports whether members that are out of reach are missed: while this device wants the uplink, which may
// be to carry what they have, and after its network has changed.
func (s *Swarm) hasteLocked(now time.Duration) bool {
	return s.lease.State() != lease.Idle || s.relinkedLocked(now)
}

// relinkedLocked reports whether the network of this device has changed lately.
func (s *Swarm) relinkedLocked(now time.Duration) bool {
	return s.rechecked != 0 && now-s.rechecked < hasteFor
}

// retryLocked makes due, at once, those that could not be reached and match.
func (s *Swarm) retryLocked(now time.Duration, match func(*target) bool) {
	for id, t := range s.targets {
		if t.fails > 0 && !t.busy() && s.members[id] == nil && match(t) {
			t.next = min(t.next, now+s.politenessLocked(id))
		}
	}
	s.soonLocked(now)
}

// redialLocked has everybody dialled who is no member, after the network of this device has changed. Dials under way are
// broken off; where it changes all the time (again), only those that have had some.
func (s *Swarm) redialLocked(now time.Duration, again bool) {
	s.retryLocked(now, func(*target) bool { return true })
	for _, t := range s.targets {
		if t.dialing && t.cancel != nil && (!again || now-t.begun > hasteStale) {
			t.cancel()
		}
	}
}

// backLocked notes that t is a member. If it was out of reach, those that were lost with it are dialled.
func (s *Swarm) backLocked(t *target, now time.Duration) {
	if t.known && t.fails > 0 {
		s.retryLocked(now, func(o *target) bool { return o.known && (o.lost-t.lost).Abs() < lostTogether })
	}
	t.fails, t.known, t.greets = 0, true, false
}

// dueLocked returns the peer to dial now, or nil: of those whose time has come, one that has failed the fewest times.
// Who has the site's key, or had it, can invent peers: they leave room for those that were members before, the failures
// of either kind for the other, and those at one address for those elsewhere.
func (s *Swarm) dueLocked(now time.Duration) *target {
	known, others, at := 0, 0, map[netip.Addr]int{} // being dialled
	for _, t := range s.targets {
		switch {
		case !t.dialing:
		case t.known:
			known++
		default:
			others++
			at[t.ip]++
		}
	}
	haste, more := s.hasteLocked(now), 0
	if haste {
		more = hasteDials
	}
	if known+others >= dialers+more {
		return nil
	}
	var out *target
	for id, t := range s.targets {
		switch {
		case t.busy(), now < s.dueAtLocked(t, haste), s.members[id] != nil:
		case t.known && known >= dialsOfKind+more, !t.known && (others >= dialsOfKind || t.ip.IsValid() && at[t.ip] >= dialsAtIP):
		case out != nil && out.fails <= t.fails:
		case !s.gate.Shunned(id):
			out = t
		}
	}
	return out
}

// partialLocked reports whether the site has more devices than there is room for.
func (s *Swarm) partialLocked() bool { return len(s.targets) > s.cfg.MaxPeers }

// wantsMoreLocked reports whether to dial. On a site with more devices than there is room for, half of the places are
// left to those who dial later: a graph in which everybody has dialled that many hangs together.
func (s *Swarm) wantsMoreLocked() bool {
	if s.partialLocked() {
		return len(s.members) < s.cfg.MaxPeers/2
	}
	return len(s.members) < s.cfg.MaxPeers
}

// dial makes one attempt; on success it stays until the member is gone.
func (s *Swarm) dial(ctx context.Context, t *target) {
	s.mu.Lock()
	to, told, shown, begun := t.info, t.told, s.renewed, s.now()
	reaching, cancel := context.WithTimeout(ctx, dialTimeout)
	t.cancel, t.begun = cancel, begun
	if t.known && s.hasteLocked(begun) { // else libp2p leaves out for a while addresses that hang
		reaching = network.WithForceDirectDial(reaching, "the swarm backs off by itself")
	}
	s.mu.Unlock()
	id := to.ID
	c, err := s.reach(reaching, to)
	cancel()
	if err == nil && c == nil {
		err = errDuplicate // it has dialled us
	}
	s.mu.Lock()
	t.dialing, t.greets = false, err == nil // the handshake is short, and bounded by itself
	s.soonLocked(s.now())                   // others may be due
	s.mu.Unlock()
	if err == nil {
		err = s.offerHello(ctx, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.greets = false
	if t.unheard && !t.known && s.targets[id] == t {
		delete(s.targets, id) // forgotten meanwhile
		return
	}
	wait := dialPolite/4 + s.politenessLocked(id)
	var refused *RefusedError
	switch {
	case err == nil || errors.Is(err, errDuplicate) && s.members[id] != nil:
		t.fails = 0
	case errors.Is(err, errDuplicate): // of a connection that is not up here yet, or not any more
		wait = min(wait<<min(t.fails, 10), dialLast)
		t.fails++
	case errors.As(err, &refused) && !refused.Full:
		t.fails = 0
		if shown == s.renewed { // what was refused is what would be shown again
			wait = dialRefused
		}
	case begun < s.rechecked:
		wait = 0 // what it says is of the network as it was
	default:
		if told == t.told { // else it is said to be elsewhere by now
			wait = min(dialFirst<<min(t.fails, 10), dialLast)
		}
		t.fails++
	}
	if err != nil {
		s.log.Debug("peer not reached", "peer", id, "error", err, "again_in", wait)
	}
	wait += rand.N(wait/4 + time.Millisecond)
	t.next = max(t.next, s.now()+wait) // it may have been evicted
	t.soon = s.now() + min(wait, hasteLast)
	s.soonLocked(s.dueAtLocked(t, s.hasteLocked(s.now())))
}

// reach returns the connection that this device dialled, or nil if the peer has dialled meanwhile. Of what it was told
// before where the peer is, nothing stays: libp2p would try all of that in the time of one attempt.
func (s *Swarm) reach(ctx context.Context, to peer.AddrInfo) (network.Conn, error) {
	known := s.cfg.Host.Peerstore()
	known.UpdateAddrs(to.ID, addrTTL, 0)
	known.AddAddrs(to.ID, to.Addrs, addrTTL)
	c, err := s.cfg.Host.Network().DialPeer(ctx, to.ID)
	if err != nil {
		return nil, fmt.Errorf("swarm: dial: %w", err)
	}
	if c.Stat().Direction != network.DirOutbound {
		return nil, nil
	}
	return c, nil
}
