package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"updraft/delta/release"
	"updraft/node/fleet"
)

// TestFrozenBeforeItWasEnrolled: a device without a clock that was just set up takes no
// metadata that had expired by then, as the certificate in its enrollment tells.
func TestFrozenBeforeItWasEnrolled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now().Add(-300 * 24 * time.Hour)
	f, err := fleet.Init(filepath.Join(dir, "fleet"), fleet.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	now = time.Now()
	e, err := f.Enroll(fleet.EnrollOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Enrollment, cfg.Data, cfg.Listen = filepath.Join(dir, "a.updraft"), filepath.Join(dir, "a"), []string{"/ip4/127.0.0.1/tcp/0"}
	if err := e.Write(cfg.Enrollment); err != nil {
		t.Fatal(err)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close() //nolint:errcheck // nothing depends on it
	err = n.trust.Refresh(context.Background(), func(_ context.Context, name string, _ int64) ([]byte, error) {
		return os.ReadFile(filepath.Join(f.Origin(), filepath.FromSlash(name)))
	}, time.Unix(0, 0))
	if !errors.Is(err, release.ErrExpired) {
		t.Error(err)
	}
}
