package release_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"updraft/delta/release"
)

// TestInterrupted stops each kind of publication before each file it writes. A
// device that comes then finds what was there before, or what is new when only the
// end was cut off; and the next publication, by a new process, works.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(f *fleet) error{
		"release":     func(f *fleet) error { return f.repo.AddRelease(f.manifest("stable", "2", "rpi4", "x")) },
		"new channel": func(f *fleet) error { return f.repo.AddRelease(f.manifest("fresh", "2", "rpi4")) },
		"refresh":     func(f *fleet) error { f.now = f.now.Add(500 * day); _, err := f.repo.Refresh(); return err },
		"timestamp":   func(f *fleet) error { return f.repo.Rotate("timestamp") },
		"snapshot":    func(f *fleet) error { return f.repo.Rotate("snapshot") },
		"targets":     func(f *fleet) error { return f.repo.Rotate("targets") },
		"stable":      func(f *fleet) error { return f.repo.Rotate("stable") },
		"root":        func(f *fleet) error { return f.repo.Rotate("root") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for step := 0; interrupt(t, name, act, step); step++ {
			}
		})
	}
}

// interrupt stops one publication before its file number step; it reports whether
// there was such a file.
func interrupt(t *testing.T, name string, act func(f *fleet) error, step int) bool {
	t.Helper()
	crash := errors.New("crash")
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	timestamp := string(f.snapshot()["metadata/timestamp.json"])
	n, seen := 0, ""
	f.repo.SetStep(func(file string) error {
		if seen = file; n == step {
			return crash
		}
		n++
		return nil
	})
	err := act(f)
	if err == nil {
		if step < 1 {
			t.Errorf("wrote %d files", step)
		}
		return false
	}
	if !errors.Is(err, crash) {
		t.Fatal(err)
	}
	if string(f.snapshot()["metadata/timestamp.json"]) != timestamp {
		t.Errorf("at %s: timestamp changed", seen)
	}
	rotated := f.snapshot()["metadata/2.root.json"] != nil // a root is seen before the timestamp
	if !rotated {
		f.now = start
		if _, err := d.update(f.fetch, f.now.Add(2*day), "stable", "rpi4"); err != nil {
			t.Errorf("at %s: %v", seen, err)
		}
		f.repo.SetStep(nil) // the same process goes on; afterwards a new one
		f.publish("stable", "2.5", "rpi4")
		d.want(f.fetch, f.now, "2.5")
	}
	if f.repo, err = release.OpenRepo(f.dir, f.keys, f.options()); err != nil {
		t.Fatalf("at %s: %v", seen, err)
	}
	if _, err := f.repo.Refresh(); err != nil {
		t.Fatalf("at %s: %v", seen, err)
	}
	f.publish("stable", "3", "rpi4")
	d.want(f.fetch, f.now.Add(2*day), "3")
	newDevice(t, f.root).want(f.fetch, f.now, "3")
	if strings.Contains("timestamp snapshot targets stable root", name) {
		if err := f.repo.Rotate(name); err != nil {
			t.Fatalf("again, after %s: %v", seen, err)
		}
		d.want(f.fetch, f.now.Add(4*day), "3")
	}
	return true
}

// TestStockClient: go-tuf's own client, with its own fetcher and cache, agrees on
// what is current.
func TestStockClient(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.now = time.Now()
	if _, err := f.repo.Refresh(); err != nil {
		t.Fatal(err)
	}
	f.publish("stable", "1", "rpi4")
	f.publish("kiosk/stable", "2")
	if err := f.repo.Rotate("timestamp"); err != nil {
		t.Fatal(err)
	}
	if err := f.repo.Rotate("root"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(f.dir)))
	defer server.Close()
	dir := t.TempDir()
	for i := range 3 {
		f.publish("stable", fmt.Sprintf("3.%d", i), "rpi4")
		cfg, err := config.New(server.URL+"/metadata", f.root)
		if err != nil {
			t.Fatal(err)
		}
		cfg.RemoteTargetsURL = server.URL + "/targets"
		cfg.LocalMetadataDir, cfg.LocalTargetsDir = filepath.Join(dir, "m"), filepath.Join(dir, "t")
		up, err := updater.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := up.Refresh(); err != nil {
			t.Fatal(err)
		}
		for target, want := range map[string]string{"stable/rpi4": fmt.Sprintf("3.%d", i), "kiosk/stable/any": "2"} {
			info, err := up.GetTargetInfo(target)
			if err != nil {
				t.Fatal(target, err)
			}
			_, b, err := up.DownloadTarget(info, "", "")
			if err != nil {
				t.Fatal(target, err)
			}
			m, err := release.Decode(b)
			if err != nil || m.Version != want {
				t.Errorf("%s: %v, %v", target, m, err)
			}
		}
		if _, err := up.GetTargetInfo("stable/none"); err == nil {
			t.Error("found a target that is not there")
		}
		d := newDevice(t, f.root)
		d.want(f.fetch, f.now, fmt.Sprintf("3.%d", i))
		if up.GetTrustedMetadataSet().Timestamp.Signed.Version != d.Version() {
			t.Error("the two clients disagree")
		}
	}
}

func TestRepoRefuses(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	if _, err := release.CreateRepo(f.dir, t.TempDir(), f.options()); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if _, err := release.CreateRepo(t.TempDir(), f.keys, f.options()); !errors.Is(err, os.ErrExist) {
		t.Error("overwrote keys:", err)
	}
	if _, err := release.OpenRepo(t.TempDir(), f.keys, f.options()); err == nil {
		t.Error("opened nothing")
	}
	f.publish("stable", "1", "rpi4")
	if err := f.repo.AddRelease([]byte("x")); !errors.Is(err, release.ErrManifest) {
		t.Error(err)
	}
	f.sequence = 0
	if err := f.repo.AddRelease(f.manifest("stable", "0", "rpi4")); !errors.Is(err, release.ErrSequence) {
		t.Error(err)
	}
	if err := f.repo.Rotate("mirrors"); !errors.Is(err, release.ErrName) {
		t.Error(err)
	}
	key := filepath.Join(f.keys, "timestamp.key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	f.sequence = 5
	if err := f.repo.AddRelease(f.manifest("stable", "2", "rpi4")); !errors.Is(err, release.ErrKeyFile) {
		t.Error(err)
	}
	if err := errors.Join(os.Chmod(key, 0o600), os.WriteFile(key, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := f.repo.AddRelease(f.manifest("stable", "2", "rpi4")); !errors.Is(err, release.ErrKeyFile) {
		t.Error(err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := f.repo.AddRelease(f.manifest("stable", "2", "rpi4")); !errors.Is(err, release.ErrNoKey) {
		t.Error(err)
	}
}

func TestRepoState(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4", "x")
	f.publish("kiosk/stable", "2")
	for i := range 30 {
		f.publish("stable", version(i), "rpi4")
	}
	repo, err := release.OpenRepo(f.dir, f.keys, f.options())
	if err != nil {
		t.Fatal(err)
	}
	if got := repo.Channels(); len(got) != 2 || got[0] != "kiosk/stable" {
		t.Error(got)
	}
	current, err := repo.Current("stable")
	if err != nil || len(current) != 2 || current["rpi4"].Version != version(29) || current["x"].Version != "1" {
		t.Error(current, err)
	}
	if none, err := repo.Current("none"); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
	if repo.Version() != f.repo.Version() {
		t.Error(repo.Version())
	}
	entries, err := os.ReadDir(filepath.Join(f.dir, "metadata"))
	if err != nil || len(entries) > 30 {
		t.Errorf("%d files of metadata: old versions stay", len(entries))
	}
	b := f.manifest("stable", "x", "rpi4")
	if err := repo.AddRelease(b); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	if err := os.WriteFile(filepath.Join(f.dir, "targets/stable", hex.EncodeToString(sum[:])+".rpi4"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Current("stable"); !errors.Is(err, release.ErrCorrupt) {
		t.Error(err)
	}
}

// TestNonsense: metadata that is signed by the right keys and makes no sense.
func TestNonsense(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	b, err := f.repo.SignEmptyTimestamp(99)
	if err != nil {
		t.Fatal(err)
	}
	f.tamper = func(name string, old []byte) ([]byte, error) {
		if name == "metadata/timestamp.json" {
			return b, nil
		}
		return old, nil
	}
	d.refuse(f.fetch, f.now, release.ErrCorrupt, "1")
	newDevice(t, f.root).refuse(f.fetch, f.now, release.ErrCorrupt, "")
	f.tamper = nil
	d.want(f.fetch, f.now, "1")
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"signed":{"_type":"root","version":1,"roles":{"root":null},"keys":{"a":null}},"signatures":[]}`))
	f.Add([]byte(`{"signed":{"_type":"timestamp","meta":{"snapshot.json":null}},"signatures":[{"keyid":"x","sig":"zz"}]}`))
	f.Add([]byte(`{"signed":{"_type":"targets","targets":{"a":{"hashes":{"sha256":""},"length":-1}},"delegations":{"roles":null}}}`))
	f.Add([]byte("metadata/7.kiosk~stable.json"))
	f.Add([]byte("targets/stable/" + strings.Repeat("ab", 32) + ".any"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 64<<10 {
			release.ParseAll(b)
			release.ParseFloors(b)
		}
	})
}
