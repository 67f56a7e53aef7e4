package node_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"updraft/delta"
	"updraft/delta/patch"
	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/report"
)

// on enrolls a device on a channel; it keeps the data of cfg, if that is not nil.
func (s *site) on(channel string, cfg *node.Config) *node.Config {
	s.t.Helper()
	fresh := s.enrollBy(s.fleet, fleet.EnrollOptions{Origins: []string{s.url}, Channel: channel}, nil)
	if cfg != nil {
		fresh.Data = cfg.Data
		s.peers = nil
	}
	return &fresh
}

// TestReusedVersion: a device that is moved to a channel where the version that it runs
// has other contents says so, and takes what comes next; with the same contents there is
// nothing to do.
func TestReusedVersion(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 400<<10)
	other, next := edited(v1), noise(2, 300<<10)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	s.publishOn("promoted", patch.Plain, "1.0.0", s.write("v1/app.bin", v1))
	s.publishOn("beta", patch.Plain, "1.0.0", s.write("beta/app.bin", other))
	cfg := s.on("stable", nil)
	a := s.start(*cfg)
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	a.end()
	a = s.start(*s.on("promoted", cfg))
	a.look("1.0.0")
	st := a.await("idle", func(st report.Status) bool { return st.State == "idle" })
	if len(st.Refused) > 0 || len(st.Problems) > 0 {
		t.Errorf("the same contents: %+v", st)
	}
	a.end()
	a = s.start(*s.on("beta", cfg))
	a.look("1.0.0")
	st = a.await("refusing the other 1.0.0", func(st report.Status) bool { return len(st.Refused) == 1 && st.State == "failed" })
	if r := st.Refused[0]; r.Version != "1.0.0" || !strings.Contains(r.Reason, "same version") || st.Current != "1.0.0" {
		t.Errorf("refused %+v, in service %s", r, st.Current)
	}
	a.sees(v1)
	s.publishOn("beta", patch.Plain, "1.1.0", s.write("beta/2/app.bin", next))
	a.look("1.1.0")
	a.awaitVersion("1.1.0")
	a.sees(next)
}

// TestReusedVersionBefore: a device that keeps an earlier release is moved to a channel
// where its version is the newest. With the same contents nothing is fetched; with others
// those that it has are not taken for them, also not after a crash on the way.
func TestReusedVersionBefore(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	one, other := noise(1, 200<<10), noise(2, 200<<10)
	s.publishOn("canary", patch.Plain, "1.0.0", s.write("c1/app.bin", one))
	cfg := s.on("canary", nil)
	a := s.start(*cfg)
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	s.publishOn("canary", patch.Plain, "1.1.0", s.write("c2/app.bin", noise(3, 200<<10)))
	a.look("1.1.0")
	a.awaitVersion("1.1.0")
	a.end()

	s.publishOn("promoted", patch.Plain, "1.0.0", s.write("c1/app.bin", one))
	s.publishOn("stable", patch.Plain, "1.0.0", s.write("s1/app.bin", other))
	packs := filepath.Join(s.fleet.Origin(), "packs")
	away := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	away(packs, packs+".away")
	a = s.start(*s.on("promoted", cfg))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	a.sees(one)
	a.end()
	if err := os.Remove(filepath.Join(cfg.Data, "current")); err != nil { // it is there, and not in service
		t.Fatal(err)
	}
	moved := s.on("stable", cfg)
	for range 2 {
		a = s.start(*moved)
		a.look("1.0.0")
		a.problem("fetch")
		if st := a.node.Status(); st.Current != "" {
			t.Errorf("%s is in service: what was there of the other channel", st.Current)
		}
		a.end()
	}
	away(packs+".away", packs)
	a = s.start(*moved)
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	a.sees(other)
}

// TestReusedVersionStaged: what was staged of one release is no part of another one that
// has its version.
func TestReusedVersionStaged(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.write("bad/plugins/evil.so", noise(1, 50<<10))
	s.write("bad/app", noise(2, 100<<10))
	s.write("good/app", noise(3, 120<<10))
	bad, good := filepath.Join(s.dir, "bad"), filepath.Join(s.dir, "good")
	s.publishOn("canary", patch.Plain, "2.0.0", delta.Input{Path: bad, Name: "app"})
	s.publish("2.0.0", delta.Input{Path: good, Name: "app"})
	cfg := s.on("canary", nil)
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	hold := filepath.Join(cfg.Data, "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := s.start(*cfg)
	a.look("2.0.0")
	a.await("waiting to install", func(st report.Status) bool {
		return slices.ContainsFunc(st.Problems, func(p report.Problem) bool { return p.Code == "hold" })
	})
	a.end()
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	a = s.start(*s.on("stable", cfg))
	a.look("2.0.0")
	a.awaitVersion("2.0.0")
	a.end()
	now := filepath.Join(cfg.Data, "current", "app")
	sameTree(t, good, now)
	sameTree(t, now, good)
}
