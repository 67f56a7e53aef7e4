package node_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"updraft/delta"
	"updraft/node"
	"updraft/node/report"
)

// twins makes what is one file and one tree, each under two names, and another file.
func (s *site) twins(v []byte) []delta.Input {
	s.t.Helper()
	tree := filepath.Join(s.dir, "tree")
	s.write("tree/in/f", v[:len(v)/2])
	x, y, z := s.write("x", v), s.write("y", v), s.write("z", noise(9, 1000))
	x.Name, y.Name, z.Name = "x", "y", "z"
	if err := errors.Join(os.Chmod(x.Path, 0o644), os.Chmod(y.Path, 0o755)); err != nil {
		s.t.Fatal(err)
	}
	return []delta.Input{x, y, z, {Path: tree, Name: "t"}, {Path: tree, Name: "u"}}
}

// hasTwins checks what twins made.
func (a *agent) hasTwins(s *site, v []byte) {
	a.t.Helper()
	for name, mode := range map[string]os.FileMode{"x": 0o644, "y": 0o755} {
		path := filepath.Join(a.data, "current", name)
		b, err := os.ReadFile(path)
		fi, err2 := os.Stat(path)
		if err != nil || err2 != nil || !bytes.Equal(b, v) || fi.Mode() != mode {
			a.t.Errorf("%s: %d bytes, %v, %v, %v", name, len(b), fi.Mode(), err, err2)
		}
	}
	for _, name := range []string{"t", "u"} {
		sameTree(a.t, filepath.Join(s.dir, "tree"), filepath.Join(a.data, "current", name))
	}
}

// TestTwoArtifactsWithTheSameBytes: a release has the same bytes under two names, which come once, by chunks and by
// patch, and serve others; nothing of one that has gone stays.
func TestTwoArtifactsWithTheSameBytes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 600<<10)
	s.publish("1.0.0", s.twins(v1)...)
	one := func(c *node.Config) { c.Keep = 1 }
	a, b := s.start(s.enroll(one)), s.start(s.enroll(one))
	a.awaitPeers(1)
	a.look("1.0.0")
	for _, x := range []*agent{a, b} {
		x.awaitVersion("1.0.0")
		x.hasTwins(s, v1)
	}
	if out := s.link.Out.Load(); out > 1300<<10 {
		t.Errorf("uplink carried %d bytes", out)
	}
	if p, err := a.node.Plan(); err != nil || len(p.Artifacts) != 5 || p.Bytes != 0 || !strings.Contains(p.Artifacts[4].Ways[0].Why, "the same as t") {
		t.Errorf("plan %+v, %v", p, err)
	}
	b.end()
	b = s.start(b.cfg)
	b.awaitPeers(1)
	v2 := edited(v1)
	// The patch is that of the name which was there before, and not the first.
	w := s.write("w", v2)
	w.Name = "w"
	s.publish("2.0.0", append([]delta.Input{w}, s.twins(v2)...)...)
	before := s.link.Out.Load()
	a.look("2.0.0")
	for _, x := range []*agent{a, b} {
		st := x.awaitVersion("2.0.0")
		x.hasTwins(s, v2)
		if len(st.Problems) > 0 {
			t.Errorf("%s: %+v", st.Name, st.Problems)
		}
	}
	if out := s.link.Out.Load() - before; out > 100<<10 {
		t.Errorf("uplink carried %d bytes of patches", out)
	}
	for dir, want := range map[string]int{"index": 3, "listing": 1, "manifests": 1} {
		b.await("rid of 1.0.0", func(report.Status) bool {
			es, err := os.ReadDir(filepath.Join(b.data, "state", dir))
			return err == nil && len(es) == want
		})
	}
	before = s.link.Out.Load()
	c := s.start(s.enroll(nil))
	c.awaitVersion("2.0.0")
	c.hasTwins(s, v2)
	if out := s.link.Out.Load() - before; out > 0 {
		t.Errorf("late joiner: uplink carried %d bytes", out)
	}
}

// TestTwinsAreMadeOnce: what was copied before a restart is not written again.
func TestTwinsAreMadeOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v := noise(1, 600<<10)
	s.publish("1.0.0", s.twins(v)...)
	cfg := s.enroll(nil)
	hold := filepath.Join(cfg.Data, "hold")
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	held := func(st report.Status) bool {
		return slices.ContainsFunc(st.Problems, func(p report.Problem) bool { return p.Code == "hold" })
	}
	a := s.start(cfg)
	a.look("1.0.0")
	if st := a.await("waiting", held); st.Bytes.Written < 1800<<10 {
		t.Errorf("%d bytes written", st.Bytes.Written)
	}
	a.end()
	a = s.start(cfg)
	if st := a.await("waiting", held); st.Bytes.Written > 0 {
		t.Errorf("%d bytes written again", st.Bytes.Written)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	a.awaitVersion("1.0.0")
	a.hasTwins(s, v)
}
