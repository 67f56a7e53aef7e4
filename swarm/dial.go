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
)

// addrTTL is how long libp2p knows where a peer is, from the last attempt on. It dials addresses of its own TTL, and
// gives that to those that have less.
var addrTTL = peerstore.TempAddrTTL

// target is a peer that is to be a member.
type target struct {
	info    peer.AddrInfo
	ip      netip.Addr    // of the first address; zero if that is a name
	next    time.Duration // when it may be dialled
	told    int           // how often it was said where it is
	fails   int
	dialing bool
	known   bool // was a member
}

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
		if len(s.targets) >= maxTargets {
			return
		}
		t = &target{next: now + s.politeness(ai.ID), known: s.members[ai.ID] != nil}
		s.targets[ai.ID] = t
	} else if s.members[ai.ID] == nil {
		t.next = min(t.next, now+s.politeness(ai.ID))
	}
	t.info, t.ip = ai, ipOf(ai.Addrs[0])
	t.told++
	s.soonLocked(t.next)
}

// politeness is how long this device waits for a peer to dial first.
func (s *Swarm) politeness(id peer.ID) time.Duration {
	if s.self < id {
		return 0
	}
	return dialPolite
}

// Forget stops dialling a peer. A connection that is up stays.
func (s *Swarm) Forget(id peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.targets, id)
}

// Evict closes the connection with a peer at once, and does not dial it again for a minute.
func (s *Swarm) Evict(id peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.targets[id]; t != nil {
		t.next = s.now() + time.Minute
	}
	if m := s.members[id]; m != nil {
		s.dropLocked(m, "evicted")
	}
}

// dialLocked starts the dials that are due and returns when to look again.
func (s *Swarm) dialLocked(ctx context.Context, now time.Duration) time.Duration {
	next, due := now+idleWake, false
	for id, t := range s.targets {
		switch {
		case t.dialing, s.members[id] != nil:
		case now < t.next:
			next = min(next, t.next)
		default:
			due = true
		}
	}
	for due && s.wantsMoreLocked() {
		t := s.dueLocked(now)
		if t == nil {
			break
		}
		t.dialing = true
		s.wg.Go(func() { s.dial(ctx, t) })
	}
	return next
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
	if known+others >= dialers {
		return nil
	}
	var out *target
	for id, t := range s.targets {
		switch {
		case t.dialing, now < t.next, s.members[id] != nil:
		case t.known && known >= dialsOfKind, !t.known && (others >= dialsOfKind || t.ip.IsValid() && at[t.ip] >= dialsAtIP):
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
	to, told, shown := t.info, t.told, s.renewed
	s.mu.Unlock()
	id := to.ID
	c, err := s.reach(ctx, to)
	if err == nil && c == nil {
		err = errDuplicate // it has dialled us
	}
	s.mu.Lock()
	t.dialing = false // the handshake is short, and bounded by itself
	t.next = s.now() + helloTimeout
	s.soonLocked(s.now()) // others may be due
	s.mu.Unlock()
	if err == nil {
		err = s.offerHello(ctx, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := dialPolite/4 + s.politeness(id)
	var refused *RefusedError
	switch {
	case err == nil || errors.Is(err, errDuplicate) && s.members[id] != nil:
		t.fails = 0
	case errors.Is(err, errDuplicate): // of a connection that is not up here yet, or not any more
		wait = min(wait<<min(t.fails, 10), dialLast)
		t.fails++
	case errors.As(err, &refused) && !refused.Full:
		if shown == s.renewed { // what was refused is what would be shown again
			wait = dialRefused
		}
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
	t.next = s.now() + wait
	s.soonLocked(t.next)
}

// reach returns the connection that this device dialled, or nil if the peer has dialled meanwhile. Of what it was told
// before where the peer is, nothing stays: libp2p would try all of that in the time of one attempt.
func (s *Swarm) reach(ctx context.Context, to peer.AddrInfo) (network.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
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
