package install_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"updraft/node/install"
)

// TestUmask: with an umask that shuts others out, as the agent's unit has, a hook that
// runs as another user gets into the release that it is for.
func TestUmask(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	data, err := os.MkdirTemp("", "umask") // not t.TempDir, which others cannot enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(data) })
	if err := os.Chmod(data, 0o755); err != nil {
		t.Fatal(err)
	}
	defer syscall.Umask(syscall.Umask(0o077))
	d := open(t, data)
	dir, err := d.Staging("1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "app"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := install.NewHooks(install.HooksConfig{Stage: "/bin/true", User: "nobody", Data: data})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Stage(t.Context(), install.Release{Version: "1.0.0", Dir: dir}); err != nil {
		t.Error(err)
	}
}
