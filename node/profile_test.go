package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"updraft/delta/release"
)

func sampleProfile() *profile {
	return &profile{Meta: 7, Target: [32]byte{1}, Bases: [][32]byte{{2}, {3}}, Plan: []planEntry{{Artifact: [32]byte{4}, Way: [32]byte{5}}},
		Epoch: 6, Version: "1.2.3", State: stateRebuilding, Rebuilt: 8, Working: true, Uplink: uplinkOK, Progress: 999, Speed: 9, Memory: 32 << 20, Failed: [][32]byte{{7}}, Room: 1 << 30}
}

func TestProfile(t *testing.T) {
	for _, p := range []*profile{{}, sampleProfile()} {
		b, err := p.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeProfile(b)
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("decoded %+v, %v; want %+v", got, err, p)
		}
	}
	if p, err := decodeProfile(nil); err != nil || !reflect.DeepEqual(p, new(profile)) {
		t.Errorf("a member that has said nothing: %+v, %v", p, err)
	}
}

// TestLargestProfile: what the limits allow has room in the swarm's profile.
func TestLargestProfile(t *testing.T) {
	p := sampleProfile()
	p.Bases = make([][32]byte, maxBases)
	b, err := p.encode()
	if err != nil || len(b) > maxProfile {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := decodeProfile(b); err != nil {
		t.Error(err)
	}
}

func TestProfileLimits(t *testing.T) {
	for name, change := range map[string]func(*profile){
		"bases":   func(p *profile) { p.Bases = make([][32]byte, maxBases+1) },
		"plan":    func(p *profile) { p.Plan = make([]planEntry, maxPlan+1) },
		"failed":  func(p *profile) { p.Failed = make([][32]byte, maxFailed+1) },
		"version": func(p *profile) { p.Version = strings.Repeat("v", maxShort+1) },
		"state":   func(p *profile) { p.State = strings.Repeat("s", maxShort+1) },
	} {
		p := sampleProfile()
		change(p)
		b, err := p.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeProfile(b); !errors.Is(err, errProfile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMalformedProfiles(t *testing.T) {
	whole, err := sampleProfile().encode()
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string][]byte{
		"no map":       {0x01},
		"version 0":    {0xa1, 0x01, 0x00},
		"no version":   {0xa0},
		"key twice":    {0xa2, 0x01, 0x01, 0x01, 0x01},
		"wrong type":   {0xa2, 0x01, 0x01, 0x02, 0x61, 'x'},
		"endless map":  {0xbf, 0x01, 0x01},
		"huge array":   {0xa2, 0x01, 0x01, 0x04, 0x9b, 0, 0, 0, 1, 0, 0, 0, 0},
		"rest":         append(bytes.Clone(whole), 0),
		"deep":         mustCBOR(t, map[int]any{1: 1, 99: [][][][][][][]int{{{{{{{}}}}}}}}),
		"many entries": mustCBOR(t, map[int]any{1: 1, 4: make([][32]byte, 1025)}),
	}
	for i := 1; i < len(whole); i++ {
		bad[fmt.Sprint("cut at ", i)] = whole[:i]
	}
	for name, b := range bad {
		if p, err := decodeProfile(b); !errors.Is(err, errProfile) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// TestLaterProfile reads what a later version may say.
func TestLaterProfile(t *testing.T) {
	p, err := decodeProfile(mustCBOR(t, map[int]any{1: 2, 2: 9, 77: "new"}))
	if err != nil || p.Meta != 9 {
		t.Errorf("%+v, %v", p, err)
	}
}

func mustCBOR(t *testing.T, v any) []byte {
	t.Helper()
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzProfile: what decodes is within the limits and is written as it was read.
func FuzzProfile(f *testing.F) {
	b, err := sampleProfile().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeProfile(b)
		if err != nil {
			if !errors.Is(err, errProfile) {
				t.Fatal(err)
			}
			return
		}
		if len(p.Bases) > maxBases || len(p.Plan) > maxPlan || len(p.Version) > maxShort || len(p.State) > maxShort {
			t.Fatalf("beyond the limits: %+v", p)
		}
		again, err := p.encode()
		if err != nil {
			t.Fatal(err)
		}
		q, err := decodeProfile(again)
		if err != nil {
			t.Fatalf("what was decoded cannot be read again: %v", err)
		}
		if third, err := q.encode(); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("%x became %x, %v", again, third, err)
		}
	})
}

// TestProfileStaysTheSame: what a device says of its bases changes only when they do, or it would tell everybody again and
// again.
func TestProfileStaysTheSame(t *testing.T) {
	l := newLibrary(paths{t.TempDir()}, nil, slog.New(slog.DiscardHandler))
	for k := range byte(8) {
		l.rel[fmt.Sprint(k)] = &held{arts: []*assembly{{art: &release.Artifact{Sum: [32]byte{k}}}}}
	}
	first := l.bases()
	for range 20 {
		if now := l.bases(); !reflect.DeepEqual(now, first) {
			t.Fatalf("%x, then %x", first, now)
		}
	}
}
