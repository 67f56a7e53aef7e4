package node_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"updraft/node/report"
)

// TestLeftoversStopNobody: an agent starts, and updates, where something of an old release cannot be
// deleted, and status names it.
func TestLeftoversStopNobody(t *testing.T) {
	t.Parallel()
	s, a := installed(t)
	a.end()
	s.peers = nil
	releases := filepath.Join(a.data, "releases")
	left := []string{".0.9.0.removed", ".0.9.1.partial"}
	for _, name := range left {
		dir := filepath.Join(releases, name, "app")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("what cannot be deleted can be mounted by root only: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	s.publish("1.1.0", s.write("v2/app.bin", noise(2, 100<<10)))
	a = s.start(a.cfg)
	a.look("1.1.0")
	st := a.awaitVersion("1.1.0")
	for _, name := range left {
		if !slices.ContainsFunc(st.Problems, func(p report.Problem) bool {
			return p.Code == "disk" && strings.Contains(p.Text, filepath.Join(releases, name)) && strings.Contains(p.Hint, "by hand")
		}) {
			t.Errorf("%s: problems %+v", name, st.Problems)
		}
	}
}
