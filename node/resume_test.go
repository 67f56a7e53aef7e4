package node_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"updraft/delta"
	"updraft/node/report"
)

// TestTreeRestartKeepsWhatWasVerified stops an agent in the middle of a tree.
func TestTreeRestartKeepsWhatWasVerified(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	root := filepath.Join(s.dir, "app")
	for i := range 60 {
		s.write(fmt.Sprintf("app/d%d/f%d", i%4, i), noise(uint64(i), 200<<10))
	}
	s.publish("1.0.0", delta.Input{Path: root, Name: "app"})
	a := s.start(s.enroll(nil))
	go func() { _, _ = a.node.Check(context.Background()) }()
	a.await("half way", func(st report.Status) bool { return st.Progress != nil && st.Progress.Have > 6<<20 })
	a.end()
	a = s.start(a.cfg)
	go func() { _, _ = a.node.Check(context.Background()) }()
	a.awaitVersion("1.0.0")
	sameTree(t, root, filepath.Join(a.data, "current", "app"))
	// Six MiB were here when it ended; what was on its way then comes again, more of it on a busy machine.
	if out := s.link.Out.Load(); out > 16<<20 {
		t.Errorf("uplink carried %d bytes for 12 MB", out)
	}
}

// TestSameArtifactOverReleases publishes a release in which nothing changed, and
// restarts the device after the first one has been pruned.
func TestSameArtifactOverReleases(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 3<<20)
	in := s.write("v1/app.bin", v1)
	a := s.start(s.enroll(nil))
	for _, v := range []string{"1.0.0", "1.0.1", "1.0.2"} {
		s.publish(v, in)
		a.await("aware of "+v, func(st report.Status) bool {
			_, _ = a.node.Check(context.Background())
			return st.Target == v
		})
		a.awaitVersion(v)
		a.sees(v1)
	}
	if out := s.link.Out.Load(); out > 4<<20 {
		t.Errorf("uplink carried %d bytes", out)
	}
	a.end()
	a = s.start(a.cfg)
	st := a.await("up again", func(st report.Status) bool { return st.State == "idle" })
	if len(st.Problems) > 0 || len(st.Releases) != 2 {
		t.Errorf("after restart: %+v", st)
	}
}

// TestAbandonedRelease moves the channel on while a release is on its way.
func TestAbandonedRelease(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2<<20)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 12<<20)))
	a := s.start(s.enroll(nil))
	go func() { _, _ = a.node.Check(context.Background()) }()
	a.await("under way", func(st report.Status) bool { return st.Progress != nil && st.Progress.Have > 1<<20 })
	v2 := noise(2, 2<<20)
	s.publish("2.0.0", s.write("v2/app.bin", v2))
	a.await("aware of 2.0.0", func(st report.Status) bool {
		_, _ = a.node.Check(context.Background())
		return st.Target == "2.0.0"
	})
	a.awaitVersion("2.0.0")
	a.sees(v2)
	left, err := filepath.Glob(filepath.Join(a.data, "releases", ".*.partial"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
