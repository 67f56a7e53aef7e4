package release_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/delta/release"
)

// revocations does what a device does on each look.
func (d *device) revocations(fetch release.Fetcher, clock time.Time) ([]byte, error) {
	if err := d.Refresh(context.Background(), fetch, clock); err != nil {
		return nil, err
	}
	return d.Revocations(context.Background(), fetch, nil)
}

func (d *device) wantRevocations(fetch release.Fetcher, clock time.Time, want string) {
	d.t.Helper()
	got, err := d.revocations(fetch, clock)
	if err != nil || string(got) != want {
		d.t.Fatalf("got %q (%v), want %q", got, err, want)
	}
	if got, err := d.KnownRevocations(); err != nil || string(got) != want {
		d.t.Fatalf("known: %q (%v), want %q", got, err, want)
	}
}

func (f *fleet) revoke(list string) {
	f.t.Helper()
	if err := f.repo.SetRevocations([]byte(list)); err != nil {
		f.t.Fatal(err)
	}
}

func TestRevocations(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	d.want(f.fetch, f.now, "1")
	f.measure()
	d.wantRevocations(f.fetch, f.now, "")
	if req, _ := f.measure(); len(req) != 1 {
		t.Errorf("without a list a look asked for %v", req)
	}
	if err := f.repo.Rotate("revoked"); err != nil { // before there is one
		t.Fatal(err)
	}
	d.wantRevocations(f.fetch, f.now, "")
	if err := os.Remove(filepath.Join(f.keys, "targets.key")); err != nil {
		t.Fatal(err)
	}
	f.revoke("one")
	d.wantRevocations(f.fetch, f.now, "one")
	f.measure()
	d.wantRevocations(f.fetch, f.now, "one")
	if req, _ := f.measure(); len(req) != 1 {
		t.Errorf("an unchanged list cost the requests %v", req)
	}
	d.want(f.fetch, f.now, "1")
	f.publish("stable", "2", "rpi4")
	d.want(f.fetch, f.now, "2")
	d.wantRevocations(f.fetch, f.now, "one")
	d.reopen()
	d.wantRevocations(f.fetch, f.now, "one")

	// A neighbour that has restarted serves it as well, and needs nobody to know it.
	d.reopen()
	d.wantRevocations(d.peer, f.now, "one")
	e := newDevice(t, f.root)
	e.wantRevocations(d.peer, f.now, "one")

	f.revoke("two")
	d.wantRevocations(f.fetch, f.now, "two")
	if b, err := f.repo.Revocations(); err != nil || string(b) != "two" {
		t.Errorf("the publisher has %q, %v", b, err)
	}
	if l := f.repo.Channels(); len(l) != 1 || l[0] != "stable" {
		t.Errorf("channels %v", l)
	}
	if _, err := d.update(f.fetch, f.now, "revoked", "rpi4"); !errors.Is(err, release.ErrName) {
		t.Errorf("the list as a channel: %v", err)
	}
	if err := f.repo.SetRevocations(bytes.Repeat([]byte("x"), release.MaxRevocations+1)); !errors.Is(err, release.ErrTooLarge) {
		t.Errorf("too long: %v", err)
	}
}

// TestRevocationsAttacked brings old lists back, drops them and damages them.
func TestRevocationsAttacked(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	none := f.snapshot()
	f.revoke("one")
	one := f.snapshot()
	f.revoke("two")
	d := newDevice(t, f.root)
	d.wantRevocations(f.fetch, f.now, "two")
	for name, old := range map[string]map[string][]byte{"none": none, "older": one} {
		fetch := func(_ context.Context, name string, _ int64) ([]byte, error) {
			if b, ok := old[name]; ok {
				return b, nil
			}
			return nil, release.ErrNotFound
		}
		if _, err := d.revocations(fetch, f.now); !errors.Is(err, release.ErrRollback) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tamper := range map[string]func([]byte) []byte{
		"changed": func(b []byte) []byte { return append([]byte{b[0] ^ 1}, b[1:]...) },
		"longer":  func(b []byte) []byte { return append(bytes.Clone(b), 0) },
		"empty":   func([]byte) []byte { return nil },
	} {
		f.tamper = func(name string, b []byte) ([]byte, error) {
			if strings.HasPrefix(name, "targets/revoked/") {
				return tamper(b), nil
			}
			return b, nil
		}
		e := newDevice(t, f.root)
		if got, err := e.revocations(f.fetch, f.now); !errors.Is(err, release.ErrCorrupt) && !errors.Is(err, release.ErrTooLarge) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	f.tamper = nil
	d.wantRevocations(f.fetch, f.now, "two")
}
