package node

import "time"

// After a device was cut off from its neighbours it does not use the uplink before they can be known again: it reaches
// the origin as soon as them, and would pay for what they have. Where the network changes all the time, as with a port
// that comes and goes, it waits less and less often: what is under way when it begins to wait is lost.
const (
	relinkTime   = 1500 * time.Millisecond
	relinkAnswer = 200 * time.Millisecond // a member that says something by then was never cut off
	relinkPause  = 30 * time.Second       // from one wait to the next, doubled each time,
	relinkMost   = 10 * time.Minute       // up to this; after two such times without one it begins anew
	startTime    = time.Second            // the same since neighbours can be found at all
)

// begun leaves the uplink alone for a while from now on, as discovery begins: before, what lies on the disk was opened,
// and a slow board may have taken all the time for it that a swarm waits by itself.
func (n *Node) begun() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.settling.until = time.Now().Add(startTime)
}

// netChanged has the members show that they are there after the network of this device has changed.
func (n *Node) netChanged() {
	if !n.sw.Recheck() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.settling.begin(time.Now()) {
		return
	}
	close(n.relink)
	n.relink = make(chan struct{})
}

// netSettled returns until when the uplink is left alone since the network changed, and what is closed when that
// happens again.
func (n *Node) netSettled() (time.Time, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.settling.until, n.relink
}

// settling is a time in which the uplink is left alone.
type settling struct {
	until time.Time
	pause time.Duration // after it
}

// begin begins another at now, and reports whether it is time for that.
func (s *settling) begin(now time.Time) bool {
	since := now.Sub(s.until)
	if since < s.pause {
		return false
	}
	if since < 2*s.pause {
		s.pause = min(2*s.pause, relinkMost)
	} else {
		s.pause = relinkPause
	}
	s.until = now.Add(relinkTime)
	return true
}
