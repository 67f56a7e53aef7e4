package release_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"updraft/delta/release"
)

// bundled is what a device uses that looks at an origin far away.
func (f *fleet) bundled() *release.Bundled {
	return release.NewBundled(func(ctx context.Context) ([]byte, error) {
		return f.fetch(ctx, release.BundleName("stable"), release.MaxBundle)
	}, f.fetch)
}

// replace writes another bundle for the channel.
func (f *fleet) replace(b []byte) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, filepath.FromSlash(release.BundleName("stable"))), b, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// TestBundle: beside the timestamp and the poll for a newer root a look is one request,
// for a new device and for one that has been there, after releases, refreshes and
// rotations, with other channels and revocations; and the outcome is the same.
func TestBundle(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	f.publish("kiosk/stable", "7")
	if err := f.repo.SetRevocations([]byte("nobody")); err != nil {
		t.Fatal(err)
	}
	old := newDevice(t, f.root)
	old.want(f.fetch, f.now, "1")
	for i, act := range []func() error{
		func() error { f.publish("stable", "2", "rpi4", "x"); return nil },
		func() error { f.publish("stable", "3", "rpi4"); _, err := f.repo.Refresh(); return err },
		func() error { f.publish("stable", "4", "rpi4"); return f.repo.Rotate("root") },
	} {
		if err := act(); err != nil {
			t.Fatal(err)
		}
		for name, d := range map[string]*device{"old": old, "new": newDevice(t, f.root)} {
			f.measure()
			b := f.bundled()
			d.want(b.Fetch, f.now, string(rune('2'+i)))
			requests, _ := f.measure()
			most := 2 // the timestamp and the bundle
			if name == "new" || i == 2 {
				most = 3 // a newer root than the newest
			}
			if len(requests) > most || !b.Used() {
				t.Errorf("%s device, release %d: %v", name, i+2, requests)
			}
			list, err := d.Revocations(t.Context(), b.Fetch, nil)
			if again, _ := f.measure(); err != nil || string(list) != "nobody" || len(again) > 0 {
				t.Errorf("revocations %q, %v, %v", list, err, again)
			}
		}
	}
}

// TestBundleHostile: whatever the bundle is, nothing is accepted for it, and without it
// the device gets what there is. What is wrong in the bundle of this very timestamp is
// refused by name; everything else is as if there were none.
func TestBundleHostile(t *testing.T) {
	t.Parallel()
	read := func(f *fleet) []byte { return f.snapshot()[release.BundleName("stable")] }
	for name, c := range map[string]struct {
		change func(f *fleet, good map[string][]byte) []byte // after the second release
		want   error
	}{
		"none":      {func(*fleet, map[string][]byte) []byte { return nil }, nil},
		"truncated": {func(f *fleet, _ map[string][]byte) []byte { b := read(f); return b[:len(b)*2/3] }, nil},
		"oversize": {func(f *fleet, good map[string][]byte) []byte {
			good["metadata/9.snapshot.json"] = bytes.Repeat([]byte(" "), release.MaxBundle)
			return encode(t, good)
		}, nil},
		"of the release before": {func(f *fleet, good map[string][]byte) []byte {
			delete(good, "metadata/timestamp.json")
			old := f.snapshot()
			good["metadata/timestamp.json"] = old["metadata/1.root.json"]
			return encode(t, good)
		}, nil},
		"names of files elsewhere": {func(_ *fleet, good map[string][]byte) []byte {
			good["../floor"] = []byte("x")
			return encode(t, good)
		}, nil},
		"snapshot of before": {func(f *fleet, good map[string][]byte) []byte {
			for n := range good {
				if roleFile(n) == "snapshot.json" {
					good[n] = f.snapshot()["metadata/2.snapshot.json"]
				}
			}
			return encode(t, good)
		}, release.ErrMixAndMatch},
		"channel changed": {func(_ *fleet, good map[string][]byte) []byte {
			for n := range good {
				if roleFile(n) == "stable.json" {
					good[n] = bytes.Replace(good[n], []byte(`"seq":2`), []byte(`"seq":9`), 1)
				}
			}
			return encode(t, good)
		}, release.ErrSignature},
		"manifest changed": {func(_ *fleet, good map[string][]byte) []byte {
			for n, b := range good {
				if n[:8] == "targets/" {
					good[n] = append(bytes.Clone(b[:len(b)-1]), b[len(b)-1]^1)
				}
			}
			return encode(t, good)
		}, release.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			f.publish("stable", "1", "rpi4")
			d := newDevice(t, f.root)
			d.want(f.fetch, f.now, "1")
			f.publish("stable", "2", "rpi4")
			good, err := release.ParseBundle(read(f))
			if err != nil {
				t.Fatal(err)
			}
			f.replace(c.change(f, maps.Clone(good)))
			b := f.bundled()
			if c.want == nil {
				d.want(b.Fetch, f.now, "2")
				if b.Used() {
					t.Error("it was used")
				}
				return
			}
			if v, err := d.update(b.Fetch, f.now, "stable", "rpi4"); !errors.Is(err, c.want) || !b.Used() {
				t.Errorf("version %q, %v, want %v; used: %v", v, err, c.want, b.Used())
			}
			if m, _, err := d.Known("stable", "rpi4"); err != nil || m.Version != "1" {
				t.Errorf("known is %v, %v", m, err)
			}
			d.want(f.fetch, f.now, "2")
		})
	}
}

func encode(t *testing.T, files map[string][]byte) []byte {
	b, err := release.EncodeBundle(files)
	if err != nil {
		t.Error(err)
	}
	return b
}

// TestBundleFull: what does not fit is left out, and fetched for itself.
func TestBundleFull(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	if err := f.repo.SetRevocations(bytes.Repeat([]byte("x"), release.MaxBundle)); err != nil {
		t.Fatal(err)
	}
	f.publish("stable", "1", "rpi4")
	b := f.snapshot()[release.BundleName("stable")]
	files, err := release.ParseBundle(b)
	if err != nil || len(b) > release.MaxBundle || len(files) < 6 {
		t.Errorf("%v: %d bytes with %v", err, len(b), slices.Sorted(maps.Keys(files)))
	}
	d, use := newDevice(t, f.root), f.bundled()
	d.want(use.Fetch, f.now, "1")
	if list, err := d.Revocations(t.Context(), use.Fetch, nil); err != nil || len(list) != release.MaxBundle {
		t.Errorf("revocations of %d bytes, %v", len(list), err)
	}
}

func FuzzBundle(f *testing.F) {
	for _, files := range []map[string][]byte{{}, {"metadata/timestamp.json": []byte("{}")},
		{"metadata/3.kiosk~stable.json": nil, "metadata/2.root.json": []byte("r"), "metadata/timestamp.json": []byte("t")}} {
		b, err := release.EncodeBundle(files)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := release.ParseBundle(b)
		if err != nil {
			if !errors.Is(err, release.ErrCorrupt) && !errors.Is(err, release.ErrTooLarge) {
				t.Fatal(err)
			}
			return
		}
		again, err := release.EncodeBundle(files)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parsed but encodes differently: %v", err)
		}
	})
}
