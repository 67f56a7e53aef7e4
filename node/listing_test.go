package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"updraft/delta"
	"updraft/delta/tree"
)

// TestTreeIsTheListingThatWasSigned: a kept listing of which a bit has changed on the disk, from which the next one is
// rebuilt, gives the next tree no other permissions than its release has.
func TestTreeIsTheListingThatWasSigned(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	root := filepath.Join(s.dir, "app")
	file := func(i int, b []byte) {
		s.write(fmt.Sprint("app/f", i), b)
		path := filepath.Join(root, fmt.Sprint("f", i))
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 8 {
		file(i, noise(uint64(i), 200<<10))
	}
	m := s.publish("1.0.0", delta.Input{Path: root, Name: "app"})
	cfg := s.enroll(nil)
	a := s.start(cfg)
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	a.end()
	path := filepath.Join(cfg.Data, "state", "listing", fmt.Sprintf("%x", m.Artifacts[0].Sum))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tree.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	l.Entries[3].Mode = 0o4755
	if err := os.WriteFile(path, l.Append(nil), 0o600); err != nil {
		t.Fatal(err)
	}
	v := noise(5, 200<<10)
	copy(v[100<<10:], noise(99, 300)) // and nothing of the listing: a patch copies it
	file(5, v)
	s.publish("2.0.0", delta.Input{Path: root, Name: "app"})
	a = s.start(cfg)
	a.look("2.0.0")
	if st := a.awaitVersion("2.0.0"); len(st.Refused) > 0 {
		t.Errorf("a good release was refused: %+v", st.Refused)
	}
	sameTree(t, root, filepath.Join(cfg.Data, "current", "app"))
}
