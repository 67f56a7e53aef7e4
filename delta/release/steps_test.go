package release_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"updraft/delta/release"
)

// sampleSteps use every field.
func sampleSteps() []release.Step {
	s := []release.Step{step("a", "b", 300<<10), step("b", "c", 77)}
	s[0].Blocks, s[0].Profile, s[0].Memory = [][32]byte{sum("b0"), sum("b1")}, "dense", 9<<20
	return s
}

func TestGoldenSteps(t *testing.T) {
	b, err := release.EncodeSteps(sampleSteps())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "sample.steps.hex")
	if *update {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != strings.TrimSpace(string(text)) {
		t.Errorf("encoding changed:\n%s", got)
	}
	back, err := release.DecodeSteps(b)
	if err != nil || !reflect.DeepEqual(back, sampleSteps()) {
		t.Errorf("decoded %+v, %v", back, err)
	}
}

func TestHostileSteps(t *testing.T) {
	for name, spoil := range map[string]func(s []release.Step) []release.Step{
		"too many": func(s []release.Step) []release.Step {
			for i := range release.MaxSteps {
				s = append(s, step("x", "y", int64(i+1)))
			}
			return s
		},
		"too large": func(s []release.Step) []release.Step {
			s[0].Size = 1 << 30
			s[0].Blocks = make([][32]byte, 4096)
			return s
		},
		"to itself":         func(s []release.Step) []release.Step { s[1].Target = s[1].Base; return s },
		"twice":             func(s []release.Step) []release.Step { return append(s, s[0]) },
		"empty":             func(s []release.Step) []release.Step { s[1].Size = 0; return s },
		"blocks":            func(s []release.Step) []release.Step { s[0].Blocks = nil; return s },
		"block size":        func(s []release.Step) []release.Step { s[1].BlockSize = 2 << 20; return s },
		"target size":       func(s []release.Step) []release.Step { s[1].TargetSize = -1; return s },
		"huge target":       func(s []release.Step) []release.Step { s[1].TargetSize = release.MaxArtifact + 1; return s },
		"version":           func(s []release.Step) []release.Step { s[1].BaseVersion = "../1"; return s },
		"profile":           func(s []release.Step) []release.Step { s[1].Profile = "a b"; return s },
		"memory":            func(s []release.Step) []release.Step { s[1].Memory = -1; return s },
		"work":              func(s []release.Step) []release.Step { s[1].Work = -1; return s },
		"escape in version": func(s []release.Step) []release.Step { s[1].BaseVersion = "1\x1b[2J"; return s },
	} {
		if _, err := release.EncodeSteps(spoil(sampleSteps())); !errors.Is(err, release.ErrSteps) {
			t.Errorf("%s: %v, want ErrSteps", name, err)
		}
	}
	good, err := release.EncodeSteps(sampleSteps())
	if err != nil {
		t.Fatal(err)
	}
	later := bytes.Clone(good)
	later[1] = 2
	for name, b := range map[string][]byte{"nothing": nil, "no list": {0xa0}, "empty": {0x80}, "later": later, "cut": good[:len(good)-1],
		"trailing": append(bytes.Clone(good), 0), "short digest": bytes.Replace(good, []byte{0x58, 0x20}, []byte{0x58, 0x1f}, 1),
		"huge": make([]byte, release.MaxStepBytes+1)} {
		if _, err := release.DecodeSteps(b); !errors.Is(err, release.ErrSteps) {
			t.Errorf("%s: %v, want ErrSteps", name, err)
		}
	}
}

func FuzzSteps(f *testing.F) {
	b, err := release.EncodeSteps(sampleSteps())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		steps, err := release.DecodeSteps(b)
		if err != nil {
			return
		}
		if _, err := release.EncodeSteps(steps); err != nil && len(b) < release.MaxStepBytes/2 {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		for _, w := range release.Ways(&release.Artifact{Sum: sum("c"), Size: 5}, steps) {
			if len(w) > len(steps) || w[len(w)-1].Target != sum("c") {
				t.Fatalf("a way that leads elsewhere: %+v", w)
			}
		}
	})
}

// TestStepsTravel follows the steps of a release: signed, fetched, passed on by a
// device, signed again, and gone with the release.
func TestStepsTravel(t *testing.T) {
	f := newFleet(t)
	if err := f.repo.AddRelease(f.manifest("stable", "1", "rpi4", "rpi5"), sampleSteps()...); err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, f.root)
	has := func(where string, typ string, want []release.Step, fetch release.Fetcher) {
		t.Helper()
		if err := d.Refresh(t.Context(), fetch, f.now); err != nil {
			t.Fatal(where, err)
		}
		m, raw, err := d.Release(t.Context(), "stable", typ, fetch)
		if err != nil || !reflect.DeepEqual(m.Steps, want) {
			t.Errorf("%s: %+v, %v", where, m, err)
		}
		known, _, err := d.Known("stable", typ)
		if err != nil || !reflect.DeepEqual(known.Steps, want) {
			t.Errorf("%s: known %+v, %v", where, known, err)
		}
		// They are beside the manifest, not in it.
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%s: the manifest's bytes are others: %v", where, err)
		}
	}
	has("published", "rpi4", sampleSteps(), f.fetch)
	first := d
	d = newDevice(t, f.root)
	has("from a neighbour", "rpi4", sampleSteps(), func(_ context.Context, name string, _ int64) ([]byte, error) { return first.File(name) })
	d.reopen()
	has("after a restart", "rpi4", sampleSteps(), f.fetch)

	f.now = f.now.Add(200 * day)
	if _, err := f.repo.Refresh(); err != nil {
		t.Fatal(err)
	}
	has("signed again", "rpi4", sampleSteps(), f.fetch)
	if err := f.repo.Rotate("stable"); err != nil {
		t.Fatal(err)
	}
	has("with another key", "rpi4", sampleSteps(), f.fetch)
	repo, err := release.OpenRepo(f.dir, f.keys, f.options())
	if err != nil {
		t.Fatal(err)
	}
	f.repo = repo
	f.publish("stable", "2", "rpi4")
	has("another release", "rpi4", nil, f.fetch)
	has("what another type goes on with", "rpi5", sampleSteps(), f.fetch)
	current, err := f.repo.Current("stable")
	if err != nil || current["rpi4"].Steps != nil || !reflect.DeepEqual(current["rpi5"].Steps, sampleSteps()) {
		t.Errorf("on offer: %+v, %v", current, err)
	}
	f.publish("stable", "3", "rpi5")
	has("gone with the release", "rpi5", nil, f.fetch)
	if b := f.snapshot()["metadata/stable.bundle"]; bytes.Contains(b, []byte(`"steps"`)) {
		t.Error("steps of releases that are gone are still published")
	}

	if err := f.repo.AddRelease(f.manifest("stable", "4"), step("a", "a", 1)); !errors.Is(err, release.ErrSteps) {
		t.Errorf("steps that are none: %v", err)
	}
}

// TestUnreadableSteps: a release whose steps cannot be read comes without.
func TestUnreadableSteps(t *testing.T) {
	f := newFleet(t)
	f.publish("stable", "1", "rpi4")
	d := newDevice(t, f.root)
	b, err := release.EncodeSteps(sampleSteps())
	if err != nil {
		t.Fatal(err)
	}
	b[1] = 2
	for _, text := range []string{"", "x", "gA==", base64.StdEncoding.EncodeToString(b), strings.Repeat("A", 100<<10)} {
		if err := f.repo.SignSteps(text); err != nil {
			t.Fatal(err)
		}
		if err := d.Refresh(t.Context(), f.fetch, f.now); err != nil {
			t.Fatal(err)
		}
		if m, _, err := d.Release(t.Context(), "stable", "rpi4", f.fetch); err != nil || m.Steps != nil {
			t.Errorf("%.20q: %+v, %v", text, m, err)
		}
	}
}
