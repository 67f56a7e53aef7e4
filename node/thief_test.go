package node_test

import (
	"io"
	"testing"
	"time"

	"updraft/swarm/wire"
)

// TestThief: a device of the fleet that says that it holds the uplink, does nothing with it and answers nothing keeps
// the others neither from learning of a release nor, for longer than they believe it, from the release.
func TestThief(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until the thief is doubted")
	}
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 1<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a, b := s.start(s.enroll(nil)), s.start(s.enroll(nil))
	for k, x := range []*agent{a, b} {
		_, _, st, r := s.join(t, []string{"thief", "thief2"}[k], x.node.Addrs()[0])
		go func() { _, _ = io.Copy(io.Discard, r) }()
		go func() {
			for epoch := uint64(1000); ; epoch++ {
				if _, err := st.Write(wire.AppendLease(nil, wire.Lease{Kind: wire.LeaseHeartbeat, Epoch: epoch})); err != nil {
					return
				}
				time.Sleep(400 * time.Millisecond)
			}
		}()
		x.awaitPeers(2)
	}
	time.Sleep(time.Second) // both take it for the holder
	a.look("1.0.0")
	deadline := time.Now().Add(3 * time.Minute)
	for a.node.Status().Current != "1.0.0" && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond)
	}
	a.awaitVersion("1.0.0")
	b.awaitVersion("1.0.0")
	b.sees(v1)
}
