package release_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/delta/release"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// fleet is an origin with a clock that tests set, and what was fetched from it.
type fleet struct {
	t        *testing.T
	dir      string // the origin tree
	keys     string
	now      time.Time
	repo     *release.Repo
	root     []byte // the first root
	sequence uint64

	requests []string
	bytes    int
	tamper   func(name string, b []byte) ([]byte, error) // nil: as it is
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), keys: t.TempDir(), now: start}
	repo, err := release.CreateRepo(f.dir, f.keys, f.options())
	if err != nil {
		t.Fatal(err)
	}
	f.repo = repo
	if f.root, err = repo.Root(); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) options() release.RepoOptions {
	return release.RepoOptions{Now: func() time.Time { return f.now }}
}

// reopen is a new process of the publisher.
func (f *fleet) reopen() (err error) {
	f.repo, err = release.OpenRepo(f.dir, f.keys, f.options())
	return err
}

// manifest makes the encoded manifest of the next release.
func (f *fleet) manifest(channel, version string, types ...string) []byte {
	f.t.Helper()
	f.sequence++
	m := small()
	m.Channel, m.Version, m.Types, m.Sequence, m.Created = channel, version, types, f.sequence, f.now.Unix()
	b, err := m.Encode()
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f *fleet) publish(channel, version string, types ...string) {
	f.t.Helper()
	if err := f.repo.AddRelease(f.manifest(channel, version, types...)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) fetch(_ context.Context, name string, limit int64) ([]byte, error) {
	f.requests = append(f.requests, name)
	b, err := os.ReadFile(filepath.Join(f.dir, filepath.FromSlash(name)))
	if f.tamper != nil && err == nil {
		b, err = f.tamper(name, b)
	}
	f.bytes += len(b)
	return b, err
}

// measure returns what was fetched since the last call.
func (f *fleet) measure() (requests []string, bytes int) {
	requests, bytes = f.requests, f.bytes
	f.requests, f.bytes = nil, 0
	return requests, bytes
}

// snapshot copies the origin tree's files, to bring old ones back.
func (f *fleet) snapshot() map[string][]byte {
	f.t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(f.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(f.dir, path)
		files[filepath.ToSlash(name)] = b
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return files
}

// from fetches from a snapshot.
func from(files map[string][]byte) release.Fetcher {
	return func(_ context.Context, name string, _ int64) ([]byte, error) {
		if b, ok := files[name]; ok {
			return b, nil
		}
		return nil, fs.ErrNotExist
	}
}

// device is a Trust with the steps a node takes.
type device struct {
	*release.Trust
	t    *testing.T
	dir  string
	root []byte
}

func newDevice(t *testing.T, root []byte) *device {
	t.Helper()
	d := &device{t: t, dir: t.TempDir(), root: root}
	d.reopen()
	return d
}

func (d *device) reopen() {
	d.t.Helper()
	trust, err := release.OpenTrust(d.dir, d.root)
	if err != nil {
		d.t.Fatal(err)
	}
	d.Trust = trust
}

// update does all that a check does and returns the version found.
func (d *device) update(fetch release.Fetcher, clock time.Time, channel, typ string) (string, error) {
	if err := d.Refresh(context.Background(), fetch, clock); err != nil {
		return "", err
	}
	m, _, err := d.Release(context.Background(), channel, typ, fetch)
	if err != nil {
		return "", err
	}
	return m.Version, nil
}

// want updates and fails unless the version is found.
func (d *device) want(fetch release.Fetcher, clock time.Time, version string) {
	d.t.Helper()
	got, err := d.update(fetch, clock, "stable", "rpi4")
	if err != nil || got != version {
		d.t.Fatalf("found %q (%v), want %s", got, err, version)
	}
}

// refuse updates, wants the error, and the release found before to be known still.
func (d *device) refuse(fetch release.Fetcher, clock time.Time, want error, known string) {
	d.t.Helper()
	before := d.Version()
	_, err := d.update(fetch, clock, "stable", "rpi4")
	if !errors.Is(err, want) {
		d.t.Errorf("got %v, want %v", err, want)
	}
	if errors.Is(err, release.ErrSignature) && d.Version() != before {
		d.t.Error("unsigned metadata was kept")
	}
	if known == "" {
		return
	}
	m, _, err := d.Known("stable", "rpi4")
	if err != nil || m.Version != known {
		d.t.Errorf("known is %v (%v), want %s", m, err, known)
	}
}

func roleFile(name string) string { // "7.stable.json" -> "stable.json"
	base := name[strings.LastIndexByte(name, '/')+1:]
	if n, rest, ok := strings.Cut(base, "."); ok && strings.Trim(n, "0123456789") == "" {
		return rest
	}
	return base
}

func version(i int) string { return fmt.Sprintf("1.0.%d", i) }
