package node_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updraft/delta/release"
	"updraft/node"
	"updraft/node/report"
)

// changedMore is b with regions changed that depend on seed; each is new to all releases.
func changedMore(b []byte, seed uint64, region int) []byte {
	out := append([]byte(nil), b...)
	for i := range 16 {
		copy(out[i*len(out)/16+int(seed-1)*region:], noise(100+seed*16+uint64(i), region))
	}
	return out
}

// behindSite is a device on release 1.0.0 of six, each with a patch from the one before
// alone; it has not heard of the others. region is how much of each sixteenth changes.
// spoil changes the last release, change the device's configuration; nil: not.
func behindSite(t *testing.T, rate int64, region int, spoil func(*release.Manifest), change func(*node.Config)) (s *site, a *agent, m *release.Manifest, newest []byte) {
	t.Helper()
	s = newSite(t, rate)
	s.deltas = 1
	newest = noise(1, 3<<20)
	s.publish("1.0.0", s.write("v/app.bin", newest))
	a = s.start(s.enroll(nil))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	if change != nil {
		a.end()
		s.peers = nil
		change(&a.cfg)
		a = s.start(a.cfg)
	}
	for i := 1; i <= 5; i++ {
		newest = changedMore(newest, uint64(i), region)
		if i == 5 {
			s.spoil = spoil
		}
		m = s.publish(fmt.Sprintf("1.%d.0", i), s.write("v/app.bin", newest))
	}
	if len(m.Steps) != 4 || len(m.Artifacts[0].Patches) != 1 {
		t.Fatalf("%d steps, %d patches", len(m.Steps), len(m.Artifacts[0].Patches))
	}
	return s, a, m, newest
}

// chain returns the longest way to m's artifact.
func chain(t *testing.T, m *release.Manifest) release.Way {
	t.Helper()
	ways := release.Ways(&m.Artifacts[0], m.Steps)
	w := ways[len(ways)-1]
	if len(w) != 5 || w.BaseVersion() != "1.0.0" {
		t.Fatalf("%d patches from %s", len(w), w.BaseVersion())
	}
	return w
}

// noScratch fails if something lies where chains are made.
func (a *agent) noScratch() {
	a.t.Helper()
	left, err := os.ReadDir(filepath.Join(a.data, "state", "scratch"))
	if err != nil || len(left) > 0 {
		a.t.Errorf("left in the scratch directory: %v, %v", left, err)
	}
}

// TestChainServesTheSite: the only base of a site is five releases old, on a device that
// may not use the uplink. The uplink carries the five patches once; the devices without
// the base, one of which brings them, get chunks from the one that has it.
func TestChainServesTheSite(t *testing.T) {
	t.Parallel()
	s, first, m, v := behindSite(t, 10<<20, 6000, nil, func(c *node.Config) { c.UplinkWindows = closedNow() })
	w := chain(t, m)
	before, wrote := s.link.Out.Load(), first.node.Status().Bytes.Written
	first.look("1.5.0") // else the others would take the release that it has, first
	as := []*agent{first}
	for range 3 {
		as = append(as, s.start(s.enroll(nil)))
	}
	why := ""
	for _, a := range as {
		st := a.awaitVersion("1.5.0")
		a.sees(v)
		a.noScratch()
		if len(st.Problems) > 0 || len(st.Releases) != 1 && a != first {
			t.Errorf("%s: %+v", st.Name, st)
		}
		why += strings.Join(st.Why, "\n")
	}
	out := s.link.Out.Load() - before
	if out > w.Size()+w.Size()*6/100+20_000 {
		t.Errorf("uplink carried %d bytes for a chain of %d", out, w.Size())
	}
	t.Logf("uplink carried %d bytes for a chain of %d", out, w.Size())
	for _, part := range []string{"app.bin: chain of 5 patches from 1.0.0 by 1.1.0, 1.2.0, 1.3.0, 1.4.0, ", "written on the way that are not kept",
		"not: app.bin: patch from 1.4.0", "bytes of chunks that no device of the site has"} {
		if !strings.Contains(why, part) {
			t.Errorf("no %q in %s", part, why)
		}
	}
	// What is written on the way is counted.
	if got, want := first.node.Status().Bytes.Written-wrote, w.Between()+m.Artifacts[0].Size; got != want {
		t.Errorf("wrote %d bytes, want %d", got, want)
	}
}

// TestChainIsPlanned: a device says what a chain costs before it is gone.
func TestChainIsPlanned(t *testing.T) {
	t.Parallel()
	_, a, m, _ := behindSite(t, 0, 6000, nil, func(c *node.Config) { c.UplinkWindows = closedNow() })
	w := chain(t, m)
	if err := check(a); err != nil {
		t.Fatal(err)
	}
	a.await("planning", func(report.Status) bool {
		p, err := a.node.Plan()
		return err == nil && p.Version == "1.5.0" && len(p.Artifacts[0].Ways) == 3
	})
	p, err := a.node.Plan()
	if err != nil {
		t.Fatal(err)
	}
	best := p.Artifacts[0].Ways[0]
	if best.Kind != "chain" || best.Base != "1.0.0" || strings.Join(best.Via, " ") != "1.1.0 1.2.0 1.3.0 1.4.0" || best.Bytes != w.Size() ||
		best.Between != w.Between() || best.Work != w.Work() || !best.Possible || len(best.Holders) != 1 {
		t.Errorf("taken: %+v", best)
	}
	kinds := map[string]int{}
	for _, o := range p.Artifacts[0].Ways[1:] {
		kinds[o.Kind]++
		if o.Possible != (o.Kind == "chunks") {
			t.Errorf("another way: %+v", o)
		}
	}
	if kinds["chain"] != 0 || kinds["patch"] != 1 || kinds["chunks"] != 1 {
		t.Errorf("other ways: %v", kinds)
	}
}

// TestChainResumes: an agent that ends in the middle of a chain fetches no patch twice.
func TestChainResumes(t *testing.T) {
	skipPublishing(t)
	t.Parallel()
	s, a, m, v := behindSite(t, 1<<20, 15_000, nil, nil)
	w := chain(t, m)
	if w.Size() < 1_000_000 {
		t.Fatalf("a chain of %d bytes is over at once", w.Size())
	}
	before := s.link.Out.Load()
	a.look("1.5.0")
	a.await("in the middle", func(report.Status) bool { return s.link.Out.Load()-before > w.Size()/2 })
	a.end()
	a.noScratch()
	a = s.start(a.cfg)
	a.look("1.5.0")
	a.awaitVersion("1.5.0")
	a.sees(v)
	a.noScratch()
	// What was under way is a block at most.
	out := s.link.Out.Load() - before
	if out > w.Size()+w.Size()*6/100+20_000+256<<10 {
		t.Errorf("uplink carried %d bytes for a chain of %d", out, w.Size())
	}
	t.Logf("uplink carried %d bytes for a chain of %d", out, w.Size())
}

// TestChainThatLies: a step that is not what the release says of it is given up, and
// the release comes by chunks.
func TestChainThatLies(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(m *release.Manifest){
		"size": func(m *release.Manifest) { m.Steps[1].TargetSize++ },
		"digest": func(m *release.Manifest) {
			for i := range m.Steps { // both ends of a step that is another one
				if m.Steps[i].BaseVersion == "1.2.0" {
					m.Steps[i].Target[0]++
				}
				if m.Steps[i].BaseVersion == "1.3.0" {
					m.Steps[i].Base[0]++
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, a, m, v := behindSite(t, 0, 6000, spoil, nil)
			chain(t, m)
			a.look("1.5.0")
			st := a.awaitVersion("1.5.0")
			a.sees(v)
			a.noScratch()
			if len(st.Problems) != 1 || st.Problems[0].Code != "patch" || !strings.Contains(st.Problems[0].Text, "not the one of this step") {
				t.Errorf("problems %+v", st.Problems)
			}
		})
	}
}

// TestChainTampered: a patch in the middle of a chain that is not what was published is
// given up, and the release comes by chunks.
func TestChainTampered(t *testing.T) {
	skipPublishing(t)
	t.Parallel()
	s, a, m, v := behindSite(t, 0, 6000, nil, nil)
	s.tamper(s.originFile(fmt.Sprintf("patches/%x", chain(t, m)[2].Sum)), flip)
	a.look("1.5.0")
	a.awaitVersion("1.5.0")
	a.sees(v)
	a.noScratch()
}

// TestChainFromChangedBase: a base that has changed on the disk is called that, also
// when a chain starts from it.
func TestChainFromChangedBase(t *testing.T) {
	skipPublishing(t)
	t.Parallel()
	_, a, _, v := behindSite(t, 0, 6000, nil, nil)
	a.damage(1 << 20)
	a.look("1.5.0")
	st := a.awaitVersion("1.5.0")
	a.sees(v)
	a.noScratch()
	if len(st.Problems) != 1 || st.Problems[0].Code != "base" {
		t.Errorf("problems %+v", st.Problems)
	}
}

// damage changes a byte of the file in service.
func (a *agent) damage(at int64) {
	a.t.Helper()
	f, err := os.OpenFile(filepath.Join(a.data, "current", "app.bin"), os.O_RDWR, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 0xff
	if _, e := f.WriteAt(b[:], at); errors.Join(err, e, f.Close()) != nil {
		a.t.Fatal(err, e)
	}
}
