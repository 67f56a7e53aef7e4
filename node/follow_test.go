package node_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
	"updraft/node"
	"updraft/node/fleet"
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

// scattered is b with half of it changed, in all places.
func scattered(b []byte) []byte {
	const step = 8 << 10
	out, n := slices.Clone(b), noise(7, len(b))
	for i := 0; i+step <= len(b); i += step {
		copy(out[i:i+step/2], n[i:])
	}
	return out
}

// announcePlan has by, a member of a's site, tell of a plan for m as one on its way does.
func announcePlan(t *testing.T, by *swarm.Swarm, m *release.Manifest, way [32]byte, epoch uint64) {
	t.Helper()
	var b []byte
	for end := time.Now().Add(20 * time.Second); b == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the member tells of no target")
		}
		b = node.PlanProfile(by.Members()[0].Profile.Node, m.Artifacts[0].Sum, way, epoch)
	}
	if err := by.Announce(swarm.Profile{Node: b}); err != nil {
		t.Fatal(err)
	}
}

// TestHolderKeepsItsPlan: a device that becomes the holder goes by its own plan from then
// on, not by that of the holder before it, which still tells of it.
func TestHolderKeepsItsPlan(t *testing.T) {
	t.Parallel()
	s, _, _, m := patchedSite(t, 128<<10, 1<<20)
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
	_, a, based, window, _, m := basedSite(t, 2<<20, 64<<10)
	p := m.Artifacts[0].Patches[0].Size
	window.Store(true)
	a.bringsPatch(40 << 10)
	based.end() // which takes a while
	before := a.node.Status().Bytes.Uplink
	st := a.await("bringing chunks", func(report.Status) bool { w, _ := a.node.Planned(); return w == [32]byte{} })
	if got := st.Bytes.Uplink - before; got > p/4 {
		t.Errorf("%d bytes of a patch of %d were brought that nobody can apply", got, p)
	}
}

// TestBaseIsBack: a device with the base that is away for a moment costs nothing, nor what
// has come of the patch.
func TestBaseIsBack(t *testing.T) {
	t.Parallel()
	s, a, based, window, v, m := basedSite(t, 1<<20, 192<<10)
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

// blocks are the first n blobs of a patch.
type blocks struct {
	p *release.Patch
	b []byte
	n int
}

func (x *blocks) Has(i int) bool        { return i < x.n }
func (x *blocks) Put(int, []byte) error { return nil }
func (x *blocks) Get(i int, buf []byte) ([]byte, error) {
	from := i * x.p.BlockSize
	return append(buf[:0], x.b[from:min(from+x.p.BlockSize, len(x.b))]...), nil
}

// TestHalvesMeet: the other half of a site has brought most of the same patch. When they meet,
// the holder, which has no use for the patch itself, leaves out what the others have.
func TestHalvesMeet(t *testing.T) {
	skipPublishing(t)
	t.Parallel()
	s, a, based, window, v, m := basedSite(t, 4<<20, 192<<10)
	p := &m.Artifacts[0].Patches[0]
	b, err := os.ReadFile(s.originFile(fmt.Sprintf("patches/%x", p.Sum)))
	if err != nil {
		t.Fatal(err)
	}
	o := swarm.Object{Priority: 1, Sums: p.Blocks}
	for i := range p.Blocks {
		o.Sizes = append(o.Sizes, uint32(min(p.BlockSize, len(b)-i*p.BlockSize)))
	}
	o.ID = node.PatchID(o)
	window.Store(true)
	before := a.bringsPatch(64 << 10)
	half := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "half", Site: "lab"}), a)
	if err := half.Open(o, &blocks{p, b, len(p.Blocks) * 4 / 5}, swarm.OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	to, err := peer.AddrInfoFromString(based.node.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	half.Connect(*to)
	for _, x := range []*agent{a, based} {
		x.awaitVersion("1.1.0")
		x.sees(v)
	}
	if got := a.node.Status().Bytes.Uplink - before; got > p.Size*3/4 {
		t.Errorf("the uplink carried %d bytes of a patch of %d that others had", got, p.Size)
	}
}

// TestReasonsOfTheRelease: what status gives as reasons is for the newest release, by whoever
// plans it, and nothing is left there of the one before.
func TestReasonsOfTheRelease(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	old := noise(1, 256<<10)
	s.publish("1.0.0", s.write("v1/app.bin", old))
	window := new(node.Switch)
	window.Store(true)
	a := s.start(s.enroll(nil), func(n *node.Node) { n.SetWindows(window) })
	a.look("1.0.0")
	st := a.awaitVersion("1.0.0")
	if st.WhyFor != "1.0.0" || len(st.Why) != 1 || !strings.Contains(st.Why[0], "bytes of chunks") || st.Brought < int64(len(old)) {
		t.Errorf("%d bytes for %s: %q", st.Brought, st.WhyFor, st.Why)
	}
	window.Store(false)
	m := s.publish("1.1.0", s.write("v2/app.bin", scattered(old)))
	by := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "holder", Site: "lab"}), a)
	held, err := by.Acquire(t.Context(), swarm.AcquireOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.look("1.1.0")
	if st := a.node.Status(); st.WhyFor != "1.1.0" || len(st.Why) > 0 || st.Brought != 0 {
		t.Errorf("%d bytes for %s, which nobody has planned: %q", st.Brought, st.WhyFor, st.Why)
	}
	for _, c := range []struct {
		way [32]byte
		why string
	}{
		{m.Artifacts[0].Patches[0].Sum, "app.bin: patch from 1.0.0, by the plan of holder"},
		{[32]byte{}, "app.bin: chunks that no device of the site has, by the plan of holder"},
	} {
		announcePlan(t, by, m, c.way, held.Epoch())
		a.await("saying: "+c.why, func(st report.Status) bool { return len(st.Why) == 1 && st.Why[0] == c.why })
	}
}
