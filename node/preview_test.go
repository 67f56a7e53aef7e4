package node_test

import (
	"strings"
	"testing"

	"updraft/node/report"
)

// TestPlanAhead: before anything is fetched a device tells what the site would bring,
// with the bases of its neighbours in view; afterwards, that nothing is left.
func TestPlanAhead(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 2<<20)
	a := s.start(s.enroll(nil))
	if _, err := a.node.Plan(); err == nil {
		t.Error("a plan for nothing")
	}
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	v2 := edited(v1)
	m := s.publish("1.1.0", s.write("v2/app.bin", v2))

	// Windows keep it from doing what it plans.
	cfg := s.enroll(nil)
	cfg.UplinkWindows = closedNow()
	cfg.Peers = nil
	b := s.start(cfg)
	b.awaitPeers(1)
	a.end()
	if err := check(b); err != nil {
		t.Fatal(err)
	}
	b.await("planning", func(report.Status) bool {
		p, err := b.node.Plan()
		return err == nil && p.Version == "1.1.0" && len(p.Artifacts) == 1
	})
	b.await("alone", func(st report.Status) bool { return st.Peers == 0 })
	p, err := b.node.Plan()
	if err != nil {
		t.Fatal(err)
	}
	if w := p.Artifacts[0].Ways; len(w) != 2 || w[0].Kind != "chunks" || p.Bytes < 1<<20 || !p.Estimate || !w[0].Estimate || w[1].Estimate || w[1].Kind != "patch" || w[1].Possible || !strings.Contains(w[1].Why, "no device of the site") {
		t.Errorf("without a base: %+v", p)
	}
	s.peers = append(s.peers, b.node.Addrs()...)
	acfg := a.cfg
	acfg.UplinkWindows = closedNow()
	a = s.start(acfg)
	b.awaitPeers(1)
	patch := m.Artifacts[0].Patches[0].Size
	b.await("with a base", func(report.Status) bool {
		p, err = b.node.Plan()
		return err == nil && p.Bytes == patch
	})
	if w := p.Artifacts[0].Ways; p.Estimate || w[0].Kind != "patch" || !w[0].Possible || w[0].Base != "1.0.0" || len(w[0].Holders) != 1 || w[0].Holders[0] != "dev1" || w[0].Profile != "plain" {
		t.Errorf("with a base: %+v", p)
	}
	c := s.start(s.enroll(nil))
	if err := check(c); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*agent{a, b, c} {
		x.awaitVersion("1.1.0")
		if p, err := x.node.Plan(); err != nil || p.Bytes != 0 || !p.InService || p.Artifacts[0].Ways[0].Kind != "nothing" {
			t.Errorf("in service: %+v, %v", p, err)
		}
	}
}
