package node

import "time"

// After a device was cut off from its neighbours it does not use the uplink before they can be known again: it reaches
// the origin as soon as them, and would pay for what they have. Where the network changes all the time, it waits once
// in a while only.
const (
	relinkTime  = 1500 * time.Millisecond
	relinkPause = 30 * time.Second
)

// netChanged has the members show that they are there after the network of this device has changed.
func (n *Node) netChanged() {
	if !n.sw.Recheck() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.settled) < relinkPause {
		return
	}
	n.settled = time.Now().Add(relinkTime)
	close(n.relink)
	n.relink = make(chan struct{})
}

// netSettled returns until when the uplink is left alone since the network changed, and what is closed when that
// happens again.
func (n *Node) netSettled() (time.Time, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.settled, n.relink
}
