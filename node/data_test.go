package node_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOthersMayEnterTheData: the application and hooks may run as another user than the agent, which makes its data directory
// so that they get at releases, and at nothing else. One that is there is left as it is.
func TestOthersMayEnterTheData(t *testing.T) {
	t.Parallel()
	s, a := installed(t)
	err := filepath.WalkDir(a.data, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, open := strings.TrimPrefix(path, a.data), info.Mode().Perm()&0o077
		switch {
		case name == "" || name == "/releases" || strings.HasPrefix(name, "/releases/"):
			if open&0o055 != 0o055 {
				t.Errorf("%q: mode %v", name, info.Mode())
			}
		case info.Mode().IsRegular() && open != 0:
			t.Errorf("%q: mode %v", name, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.enroll(nil)
	if err := os.Mkdir(cfg.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	s.start(cfg).end()
	if info, err := os.Stat(cfg.Data); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
}
