package fleet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrSecrets reports a tree with a fleet's keys in it that was to become public.
var ErrSecrets = errors.New("fleet: its keys would become public")

// CheckPublic returns an error that wraps ErrSecrets when the tree at path is a
// fleet, has one in it at the first level, or is a part of one that is for the
// publisher only.
func CheckPublic(path string) error {
	path, err := realPath(path)
	if err != nil {
		return err
	}
	if isFleet(path) {
		return fmt.Errorf("%w: %s is a fleet", ErrSecrets, path)
	}
	entries, _ := os.ReadDir(path) // a file has none; what cannot be read becomes known to nobody
	for _, e := range entries {
		if e.IsDir() && isFleet(filepath.Join(path, e.Name())) {
			return fmt.Errorf("%w: %s holds the fleet %s", ErrSecrets, path, e.Name())
		}
	}
	switch dir, name := filepath.Split(path); name {
	case "keys", "devices", "tokens", "staging":
		if isFleet(dir) {
			return fmt.Errorf("%w: %s is a part of the fleet %s", ErrSecrets, path, filepath.Clean(dir))
		}
	}
	return nil
}

// CheckPublic does the same as the function of that name, and finds this fleet in
// the tree however deep it lies there.
func (f *Fleet) CheckPublic(path string) error {
	if err := CheckPublic(path); err != nil {
		return err
	}
	path, err := realPath(path)
	if err != nil {
		return err
	}
	keys, err := realPath(f.path("keys"))
	if err != nil {
		return nil // kept elsewhere
	}
	for _, pair := range [][2]string{{path, keys}, {keys, path}} {
		if rel, err := filepath.Rel(pair[0], pair[1]); err == nil && filepath.IsLocal(rel) {
			return fmt.Errorf("%w: %s and %s lie one in the other", ErrSecrets, path, keys)
		}
	}
	return nil
}

func isFleet(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, configFile))
	_, err2 := os.Stat(filepath.Join(dir, "keys"))
	return err == nil && err2 == nil
}

func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}
