package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"updraft/delta"
	"updraft/node"
)

// TestTreeWritesChangesOnly: of a tree only the files that differ are written, by a
// patch or by chunks, and the release before keeps what it has.
func TestTreeWritesChangesOnly(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*node.Config){
		"by patch":  func(*node.Config) {},
		"by chunks": func(c *node.Config) { c.Memory = 1 },
		"no links":  func(c *node.Config) { c.Links = false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0)
			root, before := filepath.Join(s.dir, "app"), filepath.Join(s.dir, "before")
			for i := range 40 {
				s.write(fmt.Sprintf("app/d%d/f%d", i%4, i), noise(uint64(i), 1000+i*9000))
			}
			s.publish("1.0.0", delta.Input{Path: root, Name: "app"})
			if err := os.CopyFS(before, os.DirFS(root)); err != nil {
				t.Fatal(err)
			}
			a := s.start(s.enroll(change))
			if err := check(a); err != nil {
				t.Fatal(err)
			}
			first := a.awaitVersion("1.0.0").Bytes.Written
			var changed int64
			for i, n := range []int{300_000, 270_000, 330_000} {
				s.write(fmt.Sprintf("app/d%d/f%d", i+1, i+33), noise(uint64(100+i), n))
				changed += int64(n)
			}
			m := s.publish("2.0.0", delta.Input{Path: root, Name: "app"})
			a.await("aware of 2.0.0", lookUntil(a, "2.0.0"))
			st := a.awaitVersion("2.0.0")
			sameTree(t, root, filepath.Join(a.data, "current", "app"))
			written := st.Bytes.Written - first
			if limit := changed + changed/50; name != "no links" && written > limit {
				t.Errorf("%d bytes written for %d that changed", written, changed)
			}
			if name == "no links" && written < m.Artifacts[0].Size {
				t.Errorf("%d bytes written of %d", written, m.Artifacts[0].Size)
			}
			for i := range 40 {
				p := filepath.Join(fmt.Sprintf("d%d", i%4), fmt.Sprintf("f%d", i))
				want, err1 := os.ReadFile(filepath.Join(before, p))
				got, err2 := os.ReadFile(filepath.Join(a.data, "releases", "1.0.0", "app", p))
				if err1 != nil || err2 != nil || string(want) != string(got) {
					t.Errorf("%s of the release before has changed: %v, %v", p, err1, err2)
				}
			}
			fi, err := os.Stat(filepath.Join(a.data, "current", "app", "d0", "f0"))
			if err != nil {
				t.Fatal(err)
			}
			if n := fi.Sys().(*syscall.Stat_t).Nlink; (n == 2) != (name != "no links") {
				t.Errorf("%d names", n)
			}
		})
	}
}
