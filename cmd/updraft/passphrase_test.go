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

	// All secrets sealed: nothing is signed, and nobody let in, without the passphrase.
	all, app := filepath.Join(dir, "all"), filepath.Join(dir, "app")
	if err := os.WriteFile(app, []byte("app"), 0o755); err != nil {
		t.Fatal(err)
	}
	call(2, "none of offline, all", "init", all, "--seal=some")
	call(0, "root.key", "init", all, "--seal=all")
	secrets, err := filepath.Glob(filepath.Join(all, "keys", "*"))
	if err != nil || len(secrets) != 7 {
		t.Error(secrets, err)
	}
	for _, name := range secrets {
		if b, err := os.ReadFile(name); err != nil || !bytes.HasPrefix(b, []byte("age-")) {
			t.Errorf("%s is not sealed: %v", name, err)
		}
	}
	publish := []string{"publish", "--fleet", all, "--version", "1", app}
	enroll := []string{"enroll", "--fleet", all, "--name", "a", "-o", filepath.Join(dir, "a.updraft")}
	t.Setenv("UPDRAFT_PASSPHRASE_FILE", "")
	for _, args := range [][]string{publish, enroll, {"refresh", "--fleet", all}} {
		call(1, "is sealed", args...)
	}
	t.Setenv("UPDRAFT_PASSPHRASE_FILE", file)
	call(0, "Published", publish...)
	call(0, "a.updraft", enroll...)
	call(0, "No certificate", "renew", "--fleet", all)
	t.Setenv("UPDRAFT_PASSPHRASE_FILE", "")
	call(1, "is sealed", "revoke", "--fleet", all, "a")
	call(1, "is sealed", "renew", "--fleet", all, "a")
}
