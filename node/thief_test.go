package node_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"updraft/delta"
	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/report"
	"updraft/swarm"
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

// muteIndex has all pages of an index, and sends none.
type muteIndex chan struct{}

func (m muteIndex) Has(int) bool                    { return true }
func (m muteIndex) Get(int, []byte) ([]byte, error) { <-m; return nil, fs.ErrNotExist }
func (m muteIndex) Put(int, []byte) error           { return nil }

// TestIndexOfAMuteMember: a member says that it has the chunk index, and does not send it. Who holds the uplink brings it
// as soon as the pages count as missing, and has nothing to report.
func TestIndexOfAMuteMember(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	m := s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	a := s.start(s.enroll(nil))
	mute := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "mute", Site: "lab"}), a)
	has := make(muteIndex)
	t.Cleanup(func() { close(has) })
	if err := mute.Open(node.IndexObject(&m.Artifacts[0]), has, swarm.OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	a.look("1.0.0")
	a.await("on 1.0.0", func(st report.Status) bool {
		for _, p := range st.Problems {
			if p.Code == "fetch" {
				t.Fatalf("%+v", p)
			}
		}
		return st.Current == "1.0.0"
	})
}

// TestMapOfMuteMembers: members that say they have begun with the release, and answer no request for a pack map, are asked
// for one once, and waited for together.
func TestMapOfMuteMembers(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	var in []delta.Input
	for i := range 4 {
		x := s.write(fmt.Sprint("v1/a", i), noise(uint64(i), 50<<10))
		x.Name = fmt.Sprint("a", i)
		in = append(in, x)
	}
	m := s.publish("1.0.0", in...)
	raw, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	a := s.start(s.enroll(nil))
	const mutes = 6
	var asked atomic.Int64
	ended := make(chan struct{})
	sum := sha256.Sum256(raw)
	p, err := cbor.Marshal(map[int]any{1: 1, 2: 0, 3: sum[:], 12: 1}) // on its way to the release
	if err != nil {
		t.Fatal(err)
	}
	for k := range mutes {
		sw := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: fmt.Sprint("mute", k), Site: "lab"}), a, func(c *swarm.Config) {
			c.Files = func(string) ([]byte, error) { asked.Add(1); <-ended; return nil, fs.ErrNotExist }
		})
		if err := sw.Announce(swarm.Profile{Node: p}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { close(ended) })
	a.await("told", func(report.Status) bool {
		told := slices.DeleteFunc(a.node.Peers(), func(p report.Peer) bool { return p.Progress != 1 })
		return len(told) == mutes
	})
	begin := time.Now()
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	if d := time.Since(begin); d > mutes*1500*time.Millisecond {
		t.Errorf("took %v", d)
	}
	// On a busy machine one may not be reached in the time, or be asked so late that it is not to blame yet.
	if n := asked.Load(); n < 1 || n > 2*mutes {
		t.Errorf("asked %d times", n)
	}
}
