package node_test

import (
	"fmt"
	"testing"
	"time"

	"updraft/delta/release"
	"updraft/node"
	"updraft/node/report"
	"updraft/swarm"
)

// patchedSite is a site with a release of n bytes that has a patch from the one before.
func patchedSite(t *testing.T, rate int64, n int) (s *site, old, v []byte, m *release.Manifest) {
	t.Helper()
	s = newSite(t, rate)
	old = noise(1, n)
	s.publish("1.0.0", s.write("v1/app.bin", old))
	v = scattered(old)
	m = s.publish("1.1.0", s.write("v2/app.bin", v))
	if len(m.Artifacts[0].Patches) != 1 {
		t.Fatalf("%d patches", len(m.Artifacts[0].Patches))
	}
	return s, old, v, m
}

// scattered is b with a fifth changed, all over.
func scattered(b []byte) []byte {
	out := append([]byte(nil), b...)
	n := noise(7, len(b)/5+2000)
	for i := 0; i+8192 <= len(b); i += 8192 {
		copy(out[i:i+1638], n[i/5:])
	}
	return out
}

// announcePlan has by, a member of a's site, tell of a plan for m as one on its way does.
func announcePlan(t *testing.T, by *swarm.Swarm, m *release.Manifest, way [32]byte, epoch uint64) {
	t.Helper()
	if err := by.Announce(swarm.Profile{Node: node.PlanProfile(by.Members()[0].Profile.Node, m.Artifacts[0].Sum, way, epoch)}); err != nil {
		t.Fatal(err)
	}
}

// TestHolderKeepsItsPlan: a device that becomes the holder goes by its own plan from then
// on, not by that of the holder before it, which still tells of it.
func TestHolderKeepsItsPlan(t *testing.T) {
	t.Parallel()
	s, _, _, m := patchedSite(t, 128<<10, 2<<20)
	way := m.Artifacts[0].Patches[0].Sum
	a, window, by, held := s.closing()
	announcePlan(t, by, m, way, held.Epoch())
	a.await("following", func(report.Status) bool { w, _ := a.node.Planned(); return w == way })
	window.Store(true)
	a.await("waiting for the lease", func(report.Status) bool { return held.Wanted() })
	held.Release()
	a.await("bringing by chunks", func(st report.Status) bool {
		w, epoch := a.node.Planned()
		return st.IsHolder && w == [32]byte{} && epoch > held.Epoch()
	})
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if w, epoch := a.node.Planned(); w == way || epoch <= held.Epoch() {
			t.Fatalf("it is back at the plan of epoch %d, a patch: %v", epoch, w == way)
		}
	}
}

// TestReplanIsFollowed: a holder may plan anew as often as it likes while it has the lease.
func TestReplanIsFollowed(t *testing.T) {
	t.Parallel()
	s, _, _, m := patchedSite(t, 0, 256<<10)
	a, _, by, held := s.closing()
	for k, way := range [][32]byte{m.Artifacts[0].Patches[0].Sum, {}, m.Artifacts[0].Patches[0].Sum} {
		announcePlan(t, by, m, way, held.Epoch())
		a.await(fmt.Sprint("following plan ", k), func(report.Status) bool {
			w, epoch := a.node.Planned()
			return w == way && epoch == held.Epoch()
		})
	}
}
