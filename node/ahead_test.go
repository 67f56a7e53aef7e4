package node_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"updraft/delta/release"
)

// TestBundleAtOrigin: the first look of a device takes the bundle; where that is missing
// or wrong the device looks file by file.
func TestBundleAtOrigin(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string, b []byte) error{
		"good": func(string, []byte) error { return nil },
		"none": func(path string, _ []byte) error { return os.Remove(path) },
		"cut":  func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)/2], 0o600) },
		"wrong": func(path string, b []byte) error {
			bad := bytes.Replace(b, []byte(`"_type":"snapshot"`), []byte(`"_type":"snapshoT"`), 1)
			if bytes.Equal(bad, b) {
				return errors.New("no snapshot in the bundle")
			}
			return os.WriteFile(path, bad, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0)
			v1 := noise(1, 100<<10)
			s.publish("1.0.0", s.write("v1/app.bin", v1))
			path := filepath.Join(s.fleet.Origin(), filepath.FromSlash(release.BundleName("stable")))
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := change(path, b); err != nil {
				t.Fatal(err)
			}
			a := s.start(s.enroll(nil))
			if err := check(a); err != nil {
				t.Fatal(err)
			}
			a.awaitVersion("1.0.0")
			a.sees(v1)
			if p := a.node.Status().Problems; len(p) > 0 {
				t.Errorf("problems %+v", p)
			}
		})
	}
}
