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

// basedSite is a device that may use the uplink, slowly, as soon as its window opens, and one
// that has what the patch to the release m starts from, and no origin.
func basedSite(t *testing.T, n int, rate int64) (s *site, a, based *agent, window *node.Switch, v []byte, m *release.Manifest) {
	t.Helper()
	s = newSite(t, 0)
	old := noise(1, n)
	s.publish("1.0.0", s.write("v1/app.bin", old))
	based = s.start(s.enroll(nil))
	based.look("1.0.0")
	based.awaitVersion("1.0.0")
	based.end()
	s.peers = nil
	v = scattered(old)
	m = s.publish("1.1.0", s.write("v2/app.bin", v))
	window = new(node.Switch)
	a = s.start(s.enroll(func(c *node.Config) { c.UplinkRate = rate }), func(n *node.Node) { n.SetWindows(window) })
	a.look("1.1.0") // before it meets one that has an earlier release
	based.cfg.Origins = []string{deadOrigin(t)}
	based = s.start(based.cfg)
	based.await("aware of 1.1.0", func(st report.Status) bool { return st.Target == "1.1.0" && st.Progress != nil })
	return s, a, based, window, v, m
}

// bringsPatch waits until a has brought n bytes of a patch and returns what its uplink has carried.
func (a *agent) bringsPatch(n int64) (before int64) {
	a.t.Helper()
	a.await("bringing the patch", func(report.Status) bool { w, _ := a.node.Planned(); return w != [32]byte{} })
	before = a.node.Status().Bytes.Uplink
	a.await("in the middle of it", func(st report.Status) bool { return st.Bytes.Uplink-before > n })
	return before
}

// TestBaseGoes: the only device with the base of a patch goes while the patch is being
// brought. The rest of it is not, but the chunks are.
func TestBaseGoes(t *testing.T) {
	t.Parallel()
	_, a, based, window, _, m := basedSite(t, 3<<20, 40<<10)
	p := m.Artifacts[0].Patches[0].Size
	window.Store(true)
	before := a.bringsPatch(40 << 10)
	based.end()
	st := a.await("bringing chunks", func(report.Status) bool { w, _ := a.node.Planned(); return w == [32]byte{} })
	if got := st.Bytes.Uplink - before; got > p*3/4 {
		t.Errorf("%d bytes of a patch of %d were brought that nobody can apply", got, p)
	}
}

// TestBaseIsBack: a device with the base that is away for a moment costs nothing, nor what
// has come of the patch.
func TestBaseIsBack(t *testing.T) {
	t.Parallel()
	s, a, based, window, v, m := basedSite(t, 2<<20, 256<<10)
	p := m.Artifacts[0].Patches[0].Size
	window.Store(true)
	before := a.bringsPatch(100 << 10)
	went := time.Now()
	based.end()
	a.await("alone", func(st report.Status) bool { return st.Peers == 0 })
	based = s.start(based.cfg)
	a.awaitPeers(1)
	if time.Since(went) > 2*time.Second {
		t.Skip("it was away for longer than a moment")
	}
	for _, x := range []*agent{a, based} {
		x.awaitVersion("1.1.0")
		x.sees(v)
	}
	if got := a.node.Status().Bytes.Uplink - before; got > p+p/20+64<<10 {
		t.Errorf("the uplink carried %d bytes for a patch of %d", got, p)
	}
}
