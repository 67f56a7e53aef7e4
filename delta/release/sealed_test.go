package release_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updraft/delta/release"
)

// sealed opens and makes files cheaply, and counts who asks.
func sealed(pass string) (*release.Keys, *[]string) {
	asked := new([]string)
	return &release.Keys{Work: 4, Passphrase: func(path string, _ bool) (string, error) {
		*asked = append(*asked, filepath.Base(path))
		return pass, nil
	}}, asked
}

func TestSealedKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.key")
	keys, asked := sealed("correct horse")
	key, err := keys.Make(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	b, err := os.ReadFile(path)
	if err != nil || bytes.Contains(b, []byte("PRIVATE")) || !bytes.HasPrefix(b, []byte("age-encryption.org/v1")) {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := keys.Make(path); !errors.Is(err, os.ErrExist) {
		t.Error("overwritten:", err)
	}
	if got, err := keys.Read(path); err != nil || !got.Equal(key) || len(*asked) != 2 {
		t.Errorf("%v, asked %v", err, *asked)
	}
	again, asked := sealed("correct horse")
	for range 2 {
		if got, err := again.Read(path); err != nil || !got.Equal(key) {
			t.Error(err)
		}
	}
	if len(*asked) != 1 {
		t.Errorf("asked %v", *asked)
	}
	wrong, _ := sealed("wrong horse")
	for name, k := range map[string]*release.Keys{"wrong": wrong, "none": {}, "refused": {Passphrase: func(string, bool) (string, error) { return "", errors.New("no terminal") }}} {
		if _, err := k.Read(path); !errors.Is(err, release.ErrSealed) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s passphrase: %v", name, err)
		}
	}
	if _, err := release.ReadKey(path); !errors.Is(err, release.ErrSealed) {
		t.Error(err)
	}
	for i := 0; i < len(b); i += 9 {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		fresh, _ := sealed("correct horse")
		if _, err := fresh.Read(path); !errors.Is(err, release.ErrSealed) && !errors.Is(err, release.ErrKeyFile) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Read(path); !errors.Is(err, release.ErrKeyFile) {
		t.Error(err)
	}
}

// TestSealedFleet: whoever does daily work is not asked; whoever rotates is, once for
// each file that it takes; new keys are sealed as the old ones were.
func TestSealedFleet(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, dir: t.TempDir(), keys: t.TempDir(), now: start}
	open := func(k *release.Keys) {
		t.Helper()
		o := f.options()
		o.Keys = k
		var err error
		if f.repo, err = release.OpenRepo(f.dir, f.keys, o); err != nil {
			t.Fatal(err)
		}
	}
	o := f.options()
	o.Root, o.Seal = release.Quorum{Keys: 3, Threshold: 2}, true
	o.Keys, _ = sealed("one")
	repo, err := release.CreateRepo(f.dir, f.keys, o)
	if err != nil {
		t.Fatal(err)
	}
	f.repo = repo
	if f.root, err = repo.Root(); err != nil {
		t.Fatal(err)
	}
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")

	keys, asked := sealed("one")
	open(keys)
	f.publish("stable", "2", "rpi4")
	for _, e := range f.repo.Expiries() {
		if offline := e.Role == "root" || e.Role == "targets"; e.Key == offline {
			t.Errorf("%+v", e)
		}
	}
	if _, err := f.repo.Refresh(); err != nil || len(*asked) != 0 {
		t.Errorf("%v, asked for %v", err, *asked)
	}
	if err := f.repo.Rotate("root"); err != nil {
		t.Fatal(err)
	}
	if n := len(*asked); n != 5 { // two to open, three to seal
		t.Errorf("asked for %v", *asked)
	}
	d.want(f.fetch, f.now, "2")
	files, err := filepath.Glob(filepath.Join(f.keys, "root*"))
	if err != nil || len(files) != 3 {
		t.Error(files, err)
	}
	for _, name := range files {
		if b, err := os.ReadFile(name); err != nil || !bytes.HasPrefix(b, []byte("age-")) {
			t.Errorf("%s is not sealed: %v", name, err)
		}
	}

	// Without the passphrase the file is worth nothing.
	wrong, _ := sealed("two")
	for _, k := range []*release.Keys{nil, wrong} {
		open(k)
		if err := f.repo.Rotate("timestamp"); !errors.Is(err, release.ErrSealed) {
			t.Error(err)
		}
		if err := f.repo.AddRelease(f.manifest("fresh", "1")); !errors.Is(err, release.ErrSealed) {
			t.Error(err)
		}
		f.publish("stable", "3-"+version(int(f.sequence)), "rpi4")
	}
	open(keys)
	if err := f.repo.Rotate("timestamp"); err != nil {
		t.Fatal(err)
	}
	f.publish("stable", "4", "rpi4")
	d.want(f.fetch, f.now, "4")
}

// TestAllSealed: with all key files sealed nothing can be signed without the
// passphrase, which is known before the work; new keys are sealed as well.
func TestAllSealed(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, dir: t.TempDir(), keys: t.TempDir(), now: start}
	o := f.options()
	o.SealAll = true
	o.Keys, _ = sealed("one")
	var err error
	if f.repo, err = release.CreateRepo(f.dir, f.keys, o); err != nil {
		t.Fatal(err)
	}
	if f.root, err = f.repo.Root(); err != nil {
		t.Fatal(err)
	}
	f.publish("stable", "1", "rpi4")
	for _, role := range []string{"stable", "revoked", "timestamp"} {
		if err := f.repo.Rotate(role); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(f.keys, "*"))
	if err != nil || len(files) != 6 {
		t.Error(files, err)
	}
	for _, name := range files {
		if b, err := os.ReadFile(name); err != nil || !bytes.HasPrefix(b, []byte("age-")) {
			t.Errorf("%s is not sealed: %v", name, err)
		}
	}
	wrong, _ := sealed("two")
	for _, k := range []*release.Keys{nil, wrong} {
		o.Keys = k
		if f.repo, err = release.OpenRepo(f.dir, f.keys, o); err != nil {
			t.Fatal(err)
		}
		_, refreshed := f.repo.Refresh()
		for what, err := range map[string]error{
			"unlock": f.repo.Unlock("stable"), "new channel": f.repo.Unlock("fresh"), "release": f.repo.AddRelease(f.manifest("stable", "2")),
			"stamp": f.repo.Stamp(), "refresh": refreshed, "revoke": f.repo.SetRevocations([]byte("x")),
		} {
			if !errors.Is(err, release.ErrSealed) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	keys, asked := sealed("one")
	o.Keys = keys
	if f.repo, err = release.OpenRepo(f.dir, f.keys, o); err != nil {
		t.Fatal(err)
	}
	if err := f.repo.Unlock("stable"); err != nil {
		t.Fatal(err)
	}
	f.publish("stable", "2", "rpi4")
	if len(*asked) != 3 {
		t.Errorf("asked for %v", *asked)
	}
	newDevice(t, f.root).want(f.fetch, f.now, "2")
}

// TestRotatedSealed: keys that replace lost ones, or ones that are elsewhere, are sealed as
// those are that were made with them.
func TestRotatedSealed(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{true, false} {
		f := &fleet{t: t, dir: t.TempDir(), keys: t.TempDir(), now: start}
		o := f.options()
		o.Seal, o.SealAll, o.Root = true, all, release.Quorum{Keys: 2}
		o.Keys, _ = sealed("one")
		var err error
		if f.repo, err = release.CreateRepo(f.dir, f.keys, o); err != nil {
			t.Fatal(err)
		}
		f.away("timestamp.key", "targets.key", "root.2.key")
		for _, role := range []string{"timestamp", "targets", "root"} {
			if err := f.repo.Rotate(role); err != nil {
				t.Fatal(err)
			}
		}
		f.away("timestamp.key", "targets.key")
		f.next(release.RootChange{Rotate: []string{"timestamp", "targets"}})
		for name, want := range map[string]bool{"root.key": true, "root.2.key": true, "targets.key.new": true, "timestamp.key.new": all} {
			b, err := os.ReadFile(filepath.Join(f.keys, name))
			if err != nil || bytes.HasPrefix(b, []byte("age-")) != want {
				t.Errorf("sealed %v: %s, %v: %.20q", all, name, err, b)
			}
		}
		f.away("root.key", "root.2.key", "targets.key.new", "timestamp.key.new")
		f.next(release.RootChange{Rotate: []string{"targets"}})
		if b, err := os.ReadFile(filepath.Join(f.keys, "targets.key.new")); err != nil || bytes.HasPrefix(b, []byte("age-")) != all {
			t.Errorf("sealed %v: by the online keys, %v: %.20q", all, err, b)
		}
	}
}
