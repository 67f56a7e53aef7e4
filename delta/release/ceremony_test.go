package release_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"updraft/delta/release"
)

// offline makes n keys that the publisher's machine never sees.
func offline(t *testing.T, n int) (keys []ed25519.PrivateKey, public []ed25519.PublicKey) {
	t.Helper()
	for i := range n {
		key, err := release.NewKey(filepath.Join(t.TempDir(), version(i)))
		if err != nil {
			t.Fatal(err)
		}
		text, err := release.MarshalPublic(key)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := release.ParsePublic(text)
		if err != nil || !pub.Equal(key.Public()) {
			t.Fatal(pub, err)
		}
		keys, public = append(keys, key), append(public, pub)
	}
	return keys, public
}

// signed lets each of the keys sign, one after the other.
func signed(t *testing.T, root []byte, keys ...ed25519.PrivateKey) []byte {
	t.Helper()
	for _, key := range keys {
		var err error
		if root, err = release.SignRoot(root, key); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func (f *fleet) next(c release.RootChange) []byte {
	f.t.Helper()
	b, err := f.repo.NextRoot(c)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// TestCeremony hands the root over to three people of whom two must sign; the
// publisher's machine holds none of their keys.
func TestCeremony(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d, away := newDevice(t, f.root), newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	first, err := release.ReadKey(filepath.Join(f.keys, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(f.keys, "root.key")); err != nil {
		t.Fatal(err)
	}
	keys, public := offline(t, 3)
	root := f.next(release.RootChange{Keys: public, Threshold: 2})
	for name, b := range map[string][]byte{
		"by nobody":          root,
		"by the old key":     signed(t, root, first),
		"by one of two":      signed(t, root, first, keys[0]),
		"by one twice":       signed(t, root, first, keys[0], keys[0]),
		"by the new alone":   signed(t, root, keys...),
		"changed afterwards": bytes.Replace(signed(t, root, first, keys[0], keys[1]), []byte(`"threshold":2`), []byte(`"threshold":1`), 1),
	} {
		if err := f.repo.ImportRoot(b); !errors.Is(err, release.ErrSignature) {
			t.Errorf("signed %s: %v", name, err)
		}
	}
	if err := f.repo.ImportRoot(signed(t, root, first, keys[2], keys[0])); err != nil {
		t.Fatal(err)
	}
	if err := f.repo.ImportRoot(signed(t, root, first, keys[2], keys[0])); !errors.Is(err, release.ErrRoot) {
		t.Error("imported twice:", err)
	}
	f.publish("stable", "2", "rpi4")
	d.want(f.fetch, f.now, "2")

	// The online keys are replaced without the root's key coming near.
	if err := f.repo.Rotate("timestamp"); !errors.Is(err, release.ErrNoKey) {
		t.Error(err)
	}
	_ = f.next(release.RootChange{Rotate: []string{"timestamp"}}) // a draft that nobody signed
	root = f.next(release.RootChange{Rotate: []string{"timestamp", "snapshot", "targets"}})
	root = signed(t, root, keys[0], keys[1])
	info, err := release.InspectRoot(root)
	if err != nil || info.Version != 3 || info.Threshold["root"] != 2 || len(info.Keys["root"]) != 3 || len(info.Signatures) != 2 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := f.repo.ImportRoot(root); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(f.keys, "*.new")); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	if f.repo, err = release.OpenRepo(f.dir, f.keys, f.options()); err != nil {
		t.Fatal(err)
	}
	f.publish("stable", "3", "rpi4")
	f.publish("fresh", "3", "rpi4")
	d.want(f.fetch, f.now, "3")
	away.want(d.peer, f.now, "3")
	newDevice(t, f.root).want(f.fetch, f.now, "3")
}

// TestCeremonyInterrupted stops an import before each file it writes.
func TestCeremonyInterrupted(t *testing.T) {
	t.Parallel()
	crash := errors.New("crash")
	for step := 0; ; step++ {
		f := newFleet(t)
		f.publish("stable", "1", "rpi4")
		d := newDevice(t, f.root)
		d.want(f.fetch, f.now, "1")
		key, err := release.ReadKey(filepath.Join(f.keys, "root.key"))
		if err != nil {
			t.Fatal(err)
		}
		root := signed(t, f.next(release.RootChange{Rotate: []string{"snapshot", "timestamp"}}), key)
		n := 0
		f.repo.SetStep(func(string) error {
			if n++; n > step {
				return crash
			}
			return nil
		})
		done := f.repo.ImportRoot(root)
		if done != nil && !errors.Is(done, crash) {
			t.Fatal(done)
		}
		if f.repo, err = release.OpenRepo(f.dir, f.keys, f.options()); err != nil {
			t.Fatal(err)
		}
		f.publish("stable", "2", "rpi4")
		d.want(f.fetch, f.now, "2")
		if done == nil {
			return
		}
		if err := f.repo.ImportRoot(root); err != nil && !errors.Is(err, release.ErrRoot) {
			t.Errorf("again, after %d files: %v", step, err)
		}
		f.publish("stable", "3", "rpi4")
		d.want(f.fetch, f.now, "3")
	}
}

func TestCeremonyRefused(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	_, public := offline(t, 2)
	for _, c := range []release.RootChange{
		{Keys: public, Threshold: 3}, {Threshold: 2}, {Keys: append(slices.Clone(public), public[0])}, {Keys: public, Threshold: -1},
	} {
		if _, err := f.repo.NextRoot(c); !errors.Is(err, release.ErrQuorum) {
			t.Errorf("%d keys, threshold %d: %v", len(c.Keys), c.Threshold, err)
		}
	}
	for _, role := range []string{"root", "stable", ""} {
		if _, err := f.repo.NextRoot(release.RootChange{Rotate: []string{role}}); !errors.Is(err, release.ErrName) {
			t.Errorf("role %q: %v", role, err)
		}
	}
	for _, b := range [][]byte{nil, []byte("{}"), bytes.Repeat([]byte(" "), 1<<20)} {
		if err := f.repo.ImportRoot(b); !errors.Is(err, release.ErrCorrupt) && !errors.Is(err, release.ErrTooLarge) {
			t.Error(err)
		}
		if _, err := release.InspectRoot(b); err == nil {
			t.Error("read nothing")
		}
	}
	key, err := release.ReadKey(filepath.Join(f.keys, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	old := signed(t, f.next(release.RootChange{}), key)
	f.now = f.now.Add(1000 * day)
	if err := f.repo.ImportRoot(old); !errors.Is(err, release.ErrExpired) {
		t.Error(err)
	}
	for _, text := range []string{"", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		if _, err := release.ParsePublic([]byte(text)); !errors.Is(err, release.ErrKeyFile) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
