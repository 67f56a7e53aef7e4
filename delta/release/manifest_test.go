package release_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"updraft/delta/release"
)

var update = flag.Bool("update", false, "rewrite the golden manifests")

func sum(s string) [32]byte { return sha256.Sum256([]byte(s)) }

// small is a one-file release with one patch, as most are.
func small() *release.Manifest {
	return &release.Manifest{Format: 1, Channel: "stable", Version: "1.2.0", Sequence: 7, Types: []string{"rpi4"}, Created: 1767225600,
		Artifacts: []release.Artifact{{Name: "app", Kind: release.File, Mode: 0o755, Size: 11 << 20, Sum: sum("app"),
			Index: sum("page"), Pages: [][32]byte{sum("page")}, LastPage: 170, Map: sum("map"), MapSize: 700,
			Patches: []release.Patch{{Base: sum("old"), BaseVersion: "1.1.0", Sum: sum("patch"), Size: 200 << 10, BlockSize: 256 << 10, Profile: "dense", Memory: 9 << 20, Work: 30 << 20}}}},
		Packs: []release.Pack{{Sum: sum("pack"), Size: 4 << 20}}}
}

// large uses every field.
func large() *release.Manifest {
	m := small()
	m.Channel, m.Version, m.Types = "kiosk/stable", "2.0.0-rc.1+b7", []string{"rpi4", "x86_64"}
	m.Packs = append(m.Packs, release.Pack{Sum: sum("pack2"), Size: 1})
	m.Artifacts = append(m.Artifacts,
		release.Artifact{Name: "rootfs", Kind: release.Tree, Size: 40 << 20, ListingSize: 9000, Sum: sum("tree"), Index: sum("pages"),
			Pages: [][32]byte{sum("p0"), sum("p1"), sum("p2")}, LastPage: 256, Map: sum("map2"), MapSize: 5000,
			Patches: []release.Patch{{Base: sum("oldtree"), BaseVersion: "1.9", Sum: sum("tp"), Size: 256<<10 + 1, BlockSize: 256 << 10,
				Blocks: [][32]byte{sum("b0"), sum("b1")}, Profile: "plain"}}},
		release.Artifact{Name: "empty", Kind: release.File, Mode: 0o644, Sum: sha256.Sum256(nil), Index: sha256.Sum256(nil)})
	return m
}

func TestGolden(t *testing.T) {
	for name, m := range map[string]*release.Manifest{"small": small(), "large": large()} {
		b, err := m.Encode()
		if err != nil {
			t.Fatal(name, err)
		}
		file := filepath.Join("testdata", name+".manifest.hex")
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
			t.Errorf("%s: encoding changed:\n%s", name, got)
		}
		back, err := release.Decode(b)
		if err != nil {
			t.Fatal(name, err)
		}
		if !reflect.DeepEqual(back, m) {
			t.Errorf("%s: decoded %+v, want %+v", name, back, m)
		}
		t.Logf("%s: %d bytes", name, len(b))
	}
}

func TestEncodeSortsTypes(t *testing.T) {
	a, b := large(), large()
	b.Types = []string{"x86_64", "rpi4"}
	x, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.Encode()
	if err != nil || !bytes.Equal(x, y) {
		t.Fatal("order of types changes the bytes", err)
	}
	if b.Types[0] != "x86_64" {
		t.Fatal("Encode changed its receiver")
	}
}

func TestRefuses(t *testing.T) {
	cases := map[string]func(m *release.Manifest){
		"no version":        func(m *release.Manifest) { m.Version = "" },
		"version climbs":    func(m *release.Manifest) { m.Version = "../1" },
		"version hidden":    func(m *release.Manifest) { m.Version = ".1" },
		"version slash":     func(m *release.Manifest) { m.Version = "a/b" },
		"version long":      func(m *release.Manifest) { m.Version = strings.Repeat("1", 65) },
		"channel reserved":  func(m *release.Manifest) { m.Channel = "timestamp" },
		"channel climbs":    func(m *release.Manifest) { m.Channel = "a/../b" },
		"channel upper":     func(m *release.Manifest) { m.Channel = "Stable" },
		"channel deep":      func(m *release.Manifest) { m.Channel = "a/b/c/d" },
		"channel glob":      func(m *release.Manifest) { m.Channel = "a*" },
		"type any":          func(m *release.Manifest) { m.Types = []string{"any"} },
		"type twice":        func(m *release.Manifest) { m.Types = []string{"a", "a"} },
		"type slash":        func(m *release.Manifest) { m.Types = []string{"a/b"} },
		"sequence 0":        func(m *release.Manifest) { m.Sequence = 0 },
		"created":           func(m *release.Manifest) { m.Created = -1 },
		"no artifacts":      func(m *release.Manifest) { m.Artifacts = nil },
		"name climbs":       func(m *release.Manifest) { m.Artifacts[0].Name = ".." },
		"name separator":    func(m *release.Manifest) { m.Artifacts[0].Name = "a/b" },
		"name NUL":          func(m *release.Manifest) { m.Artifacts[0].Name = "a\x00b" },
		"name escape":       func(m *release.Manifest) { m.Artifacts[0].Name = "a\x1b[2J" },
		"name not UTF-8":    func(m *release.Manifest) { m.Artifacts[0].Name = "a\xff" },
		"name reserved":     func(m *release.Manifest) { m.Artifacts[0].Name = ".updraft-x" },
		"name twice":        func(m *release.Manifest) { m.Artifacts[1].Name = m.Artifacts[0].Name },
		"kind":              func(m *release.Manifest) { m.Artifacts[0].Kind = "device" },
		"mode":              func(m *release.Manifest) { m.Artifacts[0].Mode = 0o100644 },
		"size negative":     func(m *release.Manifest) { m.Artifacts[0].Size = -1 },
		"size huge":         func(m *release.Manifest) { m.Artifacts[0].Size = 1 << 50 },
		"size over chunks":  func(m *release.Manifest) { m.Artifacts[0].Size = 171 << 20 },
		"size under chunks": func(m *release.Manifest) { m.Artifacts[0].Size = 169 },
		"listing of a file": func(m *release.Manifest) { m.Artifacts[0].ListingSize = 1 },
		"tree, no listing":  func(m *release.Manifest) { m.Artifacts[1].ListingSize = 0 },
		"listing too long":  func(m *release.Manifest) { m.Artifacts[1].ListingSize = 41 << 20 },
		"listing huge": func(m *release.Manifest) {
			m.Artifacts[1].Size, m.Artifacts[1].ListingSize = 65<<20, release.MaxListing+1
		},
		"last page":        func(m *release.Manifest) { m.Artifacts[0].LastPage = 257 },
		"index":            func(m *release.Manifest) { m.Artifacts[0].Index = sum("x") },
		"empty, pages":     func(m *release.Manifest) { m.Artifacts[2].LastPage = 1 },
		"map":              func(m *release.Manifest) { m.Artifacts[0].MapSize = 0 },
		"patch to itself":  func(m *release.Manifest) { m.Artifacts[0].Patches[0].Base = m.Artifacts[0].Sum },
		"patch empty":      func(m *release.Manifest) { m.Artifacts[0].Patches[0].Size = 0 },
		"patch block size": func(m *release.Manifest) { m.Artifacts[0].Patches[0].BlockSize = 0 },
		"patch one block":  func(m *release.Manifest) { m.Artifacts[0].Patches[0].Blocks = [][32]byte{sum("x")} },
		"patch blocks":     func(m *release.Manifest) { m.Artifacts[1].Patches[0].Blocks = nil },
		"patch profile":    func(m *release.Manifest) { m.Artifacts[1].Patches[0].Profile = "a b" },
		"patch memory":     func(m *release.Manifest) { m.Artifacts[1].Patches[0].Memory = -1 },
		"pack empty":       func(m *release.Manifest) { m.Packs[0].Size = 0 },
		"pack twice":       func(m *release.Manifest) { m.Packs[0].Sum = m.Packs[1].Sum },
	}
	for name, spoil := range cases {
		m := large()
		spoil(m)
		if _, err := m.Encode(); !errors.Is(err, release.ErrManifest) {
			t.Errorf("%s: %v, want ErrManifest", name, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := small().Encode()
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Clone(good)
	newer[2] = 2
	if _, err := release.Decode(newer); !errors.Is(err, release.ErrFormat) {
		t.Errorf("later format: %v, want ErrFormat", err)
	}
	cut := good[:len(good)-1]
	for name, b := range map[string][]byte{"nothing": nil, "cut": cut, "trailing": append(bytes.Clone(good), 0),
		"not a map": {0x80, 1, 1}, "huge": make([]byte, release.MaxManifest+1), "indefinite": append([]byte{0xbf}, good[1:]...),
		"huge array": {0xa8, 1, 1, 7, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		if _, err := release.Decode(b); !errors.Is(err, release.ErrManifest) {
			t.Errorf("%s: %v, want ErrManifest", name, err)
		}
	}
	// The same version as a non-minimal integer says the same but is not canonical.
	wide := bytes.Replace(good, []byte{4, 7}, []byte{4, 0x18, 7}, 1)
	if _, err := release.Decode(wide); !errors.Is(err, release.ErrManifest) {
		t.Errorf("non-minimal integer: %v, want ErrManifest", err)
	}
}

func TestNames(t *testing.T) {
	if got := release.TargetName("stable", ""); got != "stable/any" {
		t.Error(got)
	}
	for _, c := range []string{"stable", "kiosk/stable", "a.b_c-1", "1"} {
		if err := release.CheckChannel(c); err != nil {
			t.Error(err)
		}
	}
	m := small()
	if !m.Fits("rpi4") || m.Fits("x") {
		t.Error("Fits")
	}
	if m.Types = nil; !m.Fits("x") {
		t.Error("empty types must fit any")
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []*release.Manifest{small(), large()} {
		b, err := m.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := release.Decode(b)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("decoded but encodes differently: %v", err)
		}
	})
}
