package mdns

import (
	"math/rand/v2"
	"time"
)

const (
	defaultInterval = 120 * time.Second
	minInterval     = 200 * time.Millisecond
	maxLonely       = time.Minute      // longest pause while nobody is known
	rumourGap       = 10 * time.Second // shortest pause between queries because of a rumour
	crowd           = 100              // devices from which on rounds get rarer
	sessionLeast    = time.Second      // however often interfaces change
	sessionMost     = time.Minute      // however often addresses do
)

// rounds decides when to ask. It has no timer of its own; Run owns it.
//
//	burst     three queries within the first 4 s of a session (start, or sockets
//	          made anew because interfaces or addresses changed): 0.02–0.12 s,
//	          about 1 s, about 4 s
//	lonely    nobody known: 8 s, doubling to 60 s
//	steady    Interval × 1…2.5, random, × devices/100 if there are more than 100
//
// A query of another device that brings us all that ours would (view.covers)
// counts as ours, so a site of any size asks about once per interval.
type rounds struct {
	interval time.Duration
	step     int // queries of the burst already counted
	lonely   time.Duration
	next     time.Time
	rumour   time.Time // the last query because of a rumour
	heard    time.Time // the last query of somebody else that counted
}

// begin starts a burst.
func (r *rounds) begin(now time.Time) {
	r.step, r.lonely = 0, 0
	r.next = now.Add(20*time.Millisecond + rand.N(100*time.Millisecond))
}

// asked notes a query, ours or one that counts as ours, and sets the next.
func (r *rounds) asked(now time.Time, responders, peers int) {
	r.step++
	switch {
	case r.step == 1:
		r.next = now.Add(jitter(time.Second, 1.5))
	case r.step == 2:
		r.next = now.Add(jitter(3*time.Second, 1.5))
	case peers == 0:
		// Foreign devices are listed as known, so asking often costs little.
		r.lonely = min(max(2*r.lonely, 8*time.Second), maxLonely, r.interval)
		r.next = now.Add(jitter(r.lonely, 1.25))
	default:
		r.lonely = 0
		scale := max(1, float64(responders)/crowd)
		r.next = now.Add(jitter(time.Duration(float64(r.interval)*scale), 2.5))
	}
}

// overheard notes a query of somebody else that covers ours. The same query comes
// in over two families, and answers take a moment; so not each counts.
func (r *rounds) overheard(now time.Time, responders, peers int) {
	if now.Sub(r.heard) >= 500*time.Millisecond {
		r.heard = now
		r.asked(now, responders, peers)
	}
}

// rumoured brings the next query forward since somebody knows a device that we
// do not: within a second or so, but not often.
func (r *rounds) rumoured(now time.Time) {
	if now.Sub(r.rumour) < rumourGap {
		return
	}
	if soon := now.Add(200*time.Millisecond + rand.N(time.Second)); soon.Before(r.next) {
		r.rumour, r.next = now, soon
	}
}

// jitter returns a random duration from d to f × d.
func jitter(d time.Duration, f float64) time.Duration {
	return d + rand.N(max(1, time.Duration(float64(d)*(f-1))))
}

// pace decides when a session ends because the place has changed. An interface that
// comes, goes, or gets or loses its carrier, is followed after sessionLeast. Addresses
// change at the word of whoever speaks on the LAN (a router advertisement gives one for
// a second), and each new session makes all devices of the site talk: so the first is
// followed as soon, and each further one after twice the time, up to sessionMost, until
// they have stayed the same for twice as long as that. To WatchLinks a session is the time
// between two changes that it tells of. The zero value is ready; who runs owns it.
type pace struct {
	least time.Duration // of the present session, if addresses alone change
}

// left returns how much longer a session of some age is to last now that the place is
// another one: zero says that it ends. sameLinks says that it is only of other addresses.
func (p *pace) left(age time.Duration, sameLinks bool) time.Duration {
	if !sameLinks || age >= 2*sessionMost {
		p.least = 0
	}
	p.least = max(p.least, sessionLeast)
	if age < p.least {
		return p.least - age
	}
	if sameLinks {
		p.least = min(2*p.least, sessionMost)
	}
	return 0
}
