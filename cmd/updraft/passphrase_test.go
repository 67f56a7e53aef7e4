package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSealedKeys takes the passphrase from where a person and a service would put it.
func TestSealedKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("sealing costs a second and 256 MiB each time")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "passphrase")
	fleet, key := filepath.Join(dir, "fleet"), filepath.Join(dir, "anna.key")
	next := filepath.Join(dir, "next.json")
	t.Setenv("UPDRAFT_PASSPHRASE", "")
	t.Setenv("UPDRAFT_PASSPHRASE_FILE", "")
	call := func(want int, says string, args ...string) {
		t.Helper()
		var out, err bytes.Buffer
		if code := run(context.Background(), args, strings.NewReader(""), &out, &err); code != want || !strings.Contains(out.String()+err.String(), says) {
			t.Fatalf("updraft %s: exit code %d\n%s%s", strings.Join(args, " "), code, out.String(), err.String())
		}
	}
	call(1, "no terminal", "init", fleet, "--seal")
	if _, err := os.Stat(filepath.Join(fleet, "keys")); err == nil {
		t.Error("the failed init left keys")
	}
	t.Setenv("UPDRAFT_PASSPHRASE", "correct horse")
	call(0, "root.key", "init", fleet, "--seal")
	for _, name := range []string{"root.key", "targets.key"} {
		if b, err := os.ReadFile(filepath.Join(fleet, "keys", name)); err != nil || !bytes.HasPrefix(b, []byte("age-")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	call(0, "stays with you", "root", "key", "--seal", "-o", key)
	call(0, "Root 2", "root", "export", "--fleet", fleet, "--key", key+".pub", "-o", next)

	// A wrong one, a file that others can read, an empty file; then the right one.
	t.Setenv("UPDRAFT_PASSPHRASE", "wrong")
	call(1, "is sealed", "root", "sign", "--key", key, next)
	t.Setenv("UPDRAFT_PASSPHRASE", "")
	t.Setenv("UPDRAFT_PASSPHRASE_FILE", file)
	for _, c := range []struct {
		text, says string
		mode       os.FileMode
	}{{"correct horse\n", "readable by others", 0o644}, {"\n", "no passphrase", 0o600}} {
		if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		call(1, c.says, "root", "sign", "--key", key, next)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	call(0, "signed", "root", "sign", "--key", key, next)
	call(0, "2 signatures", "root", "sign", "--key", filepath.Join(fleet, "keys", "root.key"), next)
	call(0, "Root 2", "root", "import", "--fleet", fleet, next)
}
