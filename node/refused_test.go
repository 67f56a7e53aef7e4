package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/delta/release"
	"updraft/delta/tree"
	"updraft/node/report"
)

// TestRefusedStaysRefused: a release that failed its health check is not tried again
// after a restart, but when somebody asks for it, and then nothing is downloaded.
func TestRefusedStaysRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	old := noise(1, 1<<20)
	v2 := edited(old)
	s.publish("1.0.0", s.write("v1/app.bin", old))
	tries, fine := filepath.Join(s.dir, "tries"), filepath.Join(s.dir, "fine")
	cfg := s.enroll(s.healthHook("echo x >>" + tries + "; [ -e " + fine + " ] || { echo black; exit 1; }"))
	a := s.start(cfg)
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	a.look("1.1.0")
	a.installProblem("black")
	a.end()
	once := tried(t, tries)
	if err := os.WriteFile(fine, nil, 0o644); err != nil {
		t.Fatal(err)
	}

	a = s.start(cfg)
	st := a.await("in trouble from before", func(st report.Status) bool { return len(st.Refused) == 1 && len(st.Problems) > 0 })
	if r := st.Refused[0]; r.Version != "1.1.0" || !strings.Contains(r.Reason, "black") || time.Since(r.Time) > time.Hour {
		t.Errorf("refused %+v", r)
	}
	if err := check(a); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if st := a.node.Status(); st.Current != "1.0.0" || tried(t, tries) != once {
		t.Errorf("tried again by itself: %+v", st)
	}
	before := s.link.Out.Load()
	if err := a.node.Retry(); err != nil {
		t.Fatal(err)
	}
	st = a.awaitVersion("1.1.0")
	a.sees(v2)
	if len(st.Refused) != 0 || s.link.Out.Load() != before {
		t.Errorf("refused %v; %d bytes downloaded again", st.Refused, s.link.Out.Load()-before)
	}
	a.end()
	a = s.start(cfg)
	if st := a.awaitVersion("1.1.0"); len(st.Refused) != 0 {
		t.Errorf("refused after all: %+v", st.Refused)
	}
}

// TestWrongDigestIsRefused: a release whose chunks are right and whose whole is not
// is given up, and not fetched for ever.
func TestWrongDigestIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 400<<10)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(nil))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	s.spoil = func(m *release.Manifest) {
		m.Artifacts[0].Sum[0] ^= 1
		m.Artifacts[0].Patches = nil
	}
	s.publish("1.1.0", s.write("v2/app.bin", edited(v1)))
	a.look("1.1.0")
	st := a.await("refusing 1.1.0", func(st report.Status) bool { return len(st.Refused) == 1 && st.State == "failed" })
	if r := st.Refused[0]; r.Version != "1.1.0" || !strings.Contains(r.Reason, "digest") || st.Current != "1.0.0" {
		t.Errorf("refused %+v, in service %s", r, st.Current)
	}
	a.sees(v1)
}

// TestListingBeyondItsArtifact: a tree whose listing tells of more than its artifact has takes no room for it, and is
// refused.
func TestListingBeyondItsArtifact(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 100<<10)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(nil))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	const claimed = 64 << 20
	head := (&tree.Listing{Entries: []tree.Entry{{Path: "big", Kind: tree.File, Mode: 0o644, Size: claimed}}}).Append(nil)
	s.spoil = func(m *release.Manifest) {
		b := &m.Artifacts[0]
		b.Kind, b.Mode, b.ListingSize, b.Patches = release.Tree, 0, int64(len(head)), nil
	}
	s.publish("1.1.0", s.write("v2/app.bin", append(head, noise(2, 4<<10)...)))
	a.look("1.1.0")
	st := a.await("refusing 1.1.0", func(st report.Status) bool { return len(st.Refused) == 1 && st.State == "failed" })
	if r := st.Refused[0]; r.Version != "1.1.0" || !strings.Contains(r.Reason, "listing") || st.Current != "1.0.0" {
		t.Errorf("refused %+v, in service %s", r, st.Current)
	}
	a.sees(v1)
	err := filepath.WalkDir(filepath.Join(a.data, "releases"), func(p string, d os.DirEntry, err error) error {
		if fi, e := d.Info(); err == nil && e == nil && fi.Size() == claimed {
			t.Errorf("%s has been made", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func tried(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "x")
}

// TestDamagedRefusals: a list that cannot be read keeps no agent from its work.
func TestDamagedRefusals(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "[null]", "{", `[{"manifest":"zz","version":"9","reason":"r"}]`} {
		s := newSite(t, 0)
		v1 := noise(1, 100<<10)
		s.publish("1.0.0", s.write("v1/app.bin", v1))
		cfg := s.enroll(nil)
		if err := os.MkdirAll(filepath.Join(cfg.Data, "state"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(cfg.Data, "state", "refused.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		a := s.start(cfg)
		if err := check(a); err != nil {
			t.Fatal(err)
		}
		a.awaitVersion("1.0.0")
		a.end()
	}
}

// TestStateIsBounded: nothing stays of releases that are gone, nor of what a crash
// or an abandoned release left behind.
func TestStateIsBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v := noise(1, 600<<10)
	cfg := s.enroll(nil)
	a := s.start(cfg)
	for _, version := range []string{"1.0.0", "1.1.0", "1.2.0", "1.3.0"} {
		s.publish(version, s.write(version+"/app.bin", v))
		a.look(version)
		a.awaitVersion(version)
		v = edited(v)
	}
	files := func() []string {
		var out []string
		for _, pattern := range []string{"state/*/*", "releases/*", "releases/.*"} {
			list, err := filepath.Glob(filepath.Join(cfg.Data, pattern))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, list...)
		}
		return out
	}
	// Two releases: for each its directory, a manifest and an index.
	a.await("swept", func(st report.Status) bool { return st.State == "idle" && len(files()) == 6 })
	a.end()
	for _, p := range []string{"state/manifests/0.9.0", "state/manifests/.1.0.0123", "state/index/aa", "state/listing/bb", "state/listing/bb.spill", "state/patches/cc", "state/scratch/dd"} {
		if err := os.WriteFile(filepath.Join(cfg.Data, p), []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(cfg.Data, "releases", ".0.9.0.partial", "app.bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	a = s.start(cfg)
	a.await("swept", func(st report.Status) bool { return st.State == "idle" && len(files()) == 6 })
	a.awaitVersion("1.3.0")
	a.end()
}
