package release_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updraft/delta/release"
)

// newQuorumFleet has three root keys, of which two sign, and two targets keys that
// both sign.
func newQuorumFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), keys: t.TempDir(), now: start}
	o := f.options()
	o.Root, o.Targets = release.Quorum{Keys: 3, Threshold: 2}, release.Quorum{Keys: 2, Threshold: 2}
	repo, err := release.CreateRepo(f.dir, f.keys, o)
	if err != nil {
		t.Fatal(err)
	}
	f.repo = repo
	if f.root, err = repo.Root(); err != nil {
		t.Fatal(err)
	}
	return f
}

// away takes key files to another place and returns how to bring them back.
func (f *fleet) away(names ...string) (back func()) {
	f.t.Helper()
	dir := f.t.TempDir()
	move := func(from, to string) {
		for _, name := range names {
			if err := os.Rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	move(f.keys, dir)
	return func() { move(dir, f.keys) }
}

func TestQuorum(t *testing.T) {
	t.Parallel()
	f := newQuorumFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")

	// One root key is lost: the others replace all of them.
	f.away("root.2.key")
	for _, role := range []string{"timestamp", "targets", "root"} {
		if err := f.repo.Rotate(role); err != nil {
			t.Fatal(role, err)
		}
		d.want(f.fetch, f.now, "1")
	}
	left, err := filepath.Glob(filepath.Join(f.keys, "root*"))
	if err != nil || len(left) != 3 {
		t.Errorf("%v, %v", left, err)
	}

	// With fewer than the threshold nothing is signed, by whatever way it is tried.
	back := f.away("root.key", "root.3.key")
	err = f.repo.Rotate("timestamp")
	if !errors.Is(err, release.ErrNoKey) || !strings.Contains(err.Error(), "2 of 3 keys, 1 are at hand") {
		t.Error(err)
	}
	back()
	back = f.away("targets.key")
	if err := f.repo.AddRelease(f.manifest("fresh", "1")); !errors.Is(err, release.ErrNoKey) {
		t.Error(err)
	}
	f.publish("stable", "2", "rpi4") // which needs neither
	for _, e := range f.repo.Expiries() {
		if e.Key != (e.Role != "targets") {
			t.Errorf("%+v", e)
		}
	}
	back()
	if err := f.repo.Rotate("stable"); err != nil {
		t.Fatal(err)
	}
	d.want(f.fetch, f.now, "2")
	newDevice(t, f.root).want(f.fetch, f.now, "2")
}

// TestBelowThreshold: the thief of one key of two signs what the publisher would
// not, and no device takes it.
func TestBelowThreshold(t *testing.T) {
	t.Parallel()
	for role, stays := range map[string]string{"root": "root.2.key", "targets": "targets.key"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			f := newQuorumFleet(t)
			f.publish("stable", "1", "rpi4")
			d := newDevice(t, f.root)
			d.want(f.fetch, f.now, "1")
			good := f.snapshot()
			for _, name := range []string{"root.key", "root.2.key", "root.3.key", "targets.key", "targets.2.key"} {
				if strings.HasPrefix(name, role) && name != stays {
					f.away(name)
				}
			}
			f.repo.Lower(role)
			if role == "root" {
				if err := f.repo.Rotate("timestamp"); err != nil {
					t.Fatal(err)
				}
			} else {
				f.publish("evil", "1") // a new channel
			}
			d.refuse(f.fetch, f.now, release.ErrSignature, "1")
			newDevice(t, f.root).refuse(f.fetch, f.now, release.ErrSignature, "")
			d.want(from(good), f.now, "1")
		})
	}
}

// TestQuorumInterrupted stops the rotation of three keys before each file it writes.
func TestQuorumInterrupted(t *testing.T) {
	t.Parallel()
	crash := errors.New("crash")
	for step := 0; ; step++ {
		f := newQuorumFleet(t)
		f.publish("stable", "1", "rpi4")
		d := newDevice(t, f.root)
		n := 0
		f.repo.SetStep(func(string) error {
			if n++; n > step {
				return crash
			}
			return nil
		})
		done := f.repo.Rotate("root")
		if done != nil && !errors.Is(done, crash) {
			t.Fatal(done)
		}
		var err error
		if f.repo, err = release.OpenRepo(f.dir, f.keys, f.options()); err != nil {
			t.Fatal(err)
		}
		if err := f.repo.Rotate("root"); err != nil {
			t.Fatalf("after %d files: %v", step, err)
		}
		f.publish("stable", "2", "rpi4")
		d.want(f.fetch, f.now, "2")
		if done == nil {
			return
		}
	}
}

func TestQuorumRefused(t *testing.T) {
	t.Parallel()
	for _, q := range []release.Quorum{{Keys: 2, Threshold: 3}, {Threshold: 2}, {Keys: 17}, {Keys: -1}, {Keys: 2, Threshold: -1}} {
		if _, err := release.CreateRepo(t.TempDir(), t.TempDir(), release.RepoOptions{Root: q}); !errors.Is(err, release.ErrQuorum) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
