package swarm

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/x/rate"
)

// Bounds of a rush.
const (
	rushRate  = 16               // connections a second
	rushPause = 10 * time.Second // between those of one address that come beyond that
	rushKnown = 1024             // addresses of which the last time is known
)

// rush bounds how fast connections come in from all addresses together: each may cost a handshake, and a machine has as
// many addresses as it likes. Those beyond rushRate, and at once twice as many as there is room for, come in only if
// no other of the same address has in that way for rushPause. So a site that starts is let in as it comes, and so is a
// device that is new while strangers open all they can: what they get grows with their addresses, not with their zeal.
// Safe for concurrent use.
type rush struct {
	all rate.Limiter

	mu   sync.Mutex               // guards what follows
	last map[netip.Addr]time.Time // when one came in beyond what all may
}

func newRush(room int) *rush {
	return &rush{
		all:  rate.Limiter{NetworkPrefixLimits: unlimited(), GlobalLimit: rate.Limit{RPS: rushRate, Burst: 2 * room}},
		last: make(map[netip.Addr]time.Time),
	}
}

// allow reports whether a connection from ip comes in.
func (r *rush) allow(ip netip.Addr) bool {
	if r.all.Allow(ip) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if at, ok := r.last[ip]; ok && now.Sub(at) < rushPause {
		return false
	}
	if len(r.last) >= rushKnown {
		r.forgetLocked(now)
	}
	r.last[ip] = now
	return true
}

// forgetLocked makes room for an address: who is new is let in, however many there are.
func (r *rush) forgetLocked(now time.Time) {
	maps.DeleteFunc(r.last, func(_ netip.Addr, at time.Time) bool { return now.Sub(at) >= rushPause })
	for ip := range r.last {
		if len(r.last) < rushKnown {
			return
		}
		delete(r.last, ip)
	}
}
