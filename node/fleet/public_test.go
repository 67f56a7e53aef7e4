package fleet_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"updraft/node/fleet"
)

// A fleet's directory is easily named in place of its origin, or lies below what is
// published: either way its keys must not become public.
func TestCheckPublic(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b [1]", "fleet")
	f, err := fleet.Init(dir, fleet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	app := filepath.Join(dir, "app")
	if err := os.Mkdir(app, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(top, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path             string
		function, method bool // whether it must be refused
	}{
		{dir, true, true},
		{link, true, true},
		{filepath.Join(dir, "keys"), true, true},
		{filepath.Join(dir, "devices"), true, true},
		{filepath.Join(dir, "keys", "root.key"), false, true},
		{filepath.Dir(dir), true, true},
		{top, false, true}, // only who knows the fleet finds it so deep
		{filepath.Join(dir, "origin"), false, false},
		{app, false, false},
	} {
		if err := fleet.CheckPublic(c.path); errors.Is(err, fleet.ErrSecrets) != c.function {
			t.Errorf("%s: %v", c.path, err)
		}
		if err := f.CheckPublic(c.path); errors.Is(err, fleet.ErrSecrets) != c.method {
			t.Errorf("%s, known: %v", c.path, err)
		}
	}
}
