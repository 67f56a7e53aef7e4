package identity_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"updraft/node/identity"
)

var update = flag.Bool("update", false, "rewrite the golden certificate")

// authority is a fleet's key from a seed, so that vectors stay the same.
func authority(seed string) ed25519.PrivateKey {
	s := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(s[:])
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// deviceKey is the libp2p encoding of a key from a seed: key type 1, then 64 bytes.
func deviceKey(seed string) []byte {
	return append([]byte{0x08, 0x01, 0x12, 0x40}, authority(seed)...)
}

func cert(t testing.TB) *identity.Cert {
	t.Helper()
	_, id, err := identity.ParseKey(deviceKey("till-7"))
	if err != nil {
		t.Fatal(err)
	}
	return &identity.Cert{Serial: 7, Peer: id, Name: "till-7", Type: "rpi4", Site: "store-12",
		Roles: []string{identity.RoleDevice, identity.RoleGateway}, NotBefore: 1767225600, NotAfter: 1830297600}
}

func TestCert(t *testing.T) {
	ca := authority("ca")
	b, err := cert(t).Sign(ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(b))
	const golden = "testdata/cert.hex"
	if *update {
		if err := os.WriteFile(golden, []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(b) != strings.TrimSpace(string(want)) {
		t.Errorf("encoding changed: %x", b)
	}
	c, err := identity.Verify(b, public(ca), time.Unix(1800000000, 0))
	if err != nil || !reflect.DeepEqual(c, cert(t)) {
		t.Fatalf("%+v, %v", c, err)
	}
	if !c.Has(identity.RoleGateway) || c.Has(identity.RoleOperator) {
		t.Error("roles")
	}
	if c, err = identity.Verify(b, public(ca), time.Unix(1830297601, 0)); !errors.Is(err, identity.ErrExpired) || c == nil {
		t.Error(err)
	}
	if _, err = identity.Verify(b, public(ca), time.Unix(0, 0)); err != nil {
		t.Error("a clock at 1970 must not refuse it:", err)
	}
	if _, err = identity.Verify(b, public(authority("other")), time.Time{}); !errors.Is(err, identity.ErrForeign) {
		t.Error(err)
	}
	if _, err = identity.Verify(b, nil, time.Time{}); !errors.Is(err, identity.ErrMalformed) {
		t.Error(err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := identity.Verify(bad, public(ca), time.Time{}); !errors.Is(err, identity.ErrForeign) && !errors.Is(err, identity.ErrMalformed) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := identity.Verify(b[:i], public(ca), time.Time{}); !errors.Is(err, identity.ErrMalformed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	for name, spoil := range map[string]func(c *identity.Cert){
		"no peer":   func(c *identity.Cert) { c.Peer = "" },
		"bad peer":  func(c *identity.Cert) { c.Peer = "\x12\x20" },
		"no name":   func(c *identity.Cert) { c.Name = "" },
		"name path": func(c *identity.Cert) { c.Name = "../x" },
		"long site": func(c *identity.Cert) { c.Site = strings.Repeat("s", 65) },
		"no roles":  func(c *identity.Cert) { c.Roles = nil },
		"many":      func(c *identity.Cert) { c.Roles = make([]string, 9) },
		"no time":   func(c *identity.Cert) { c.NotAfter = c.NotBefore },
		"for ever":  func(c *identity.Cert) { c.NotAfter = 1 << 60 },
	} {
		c := cert(t)
		spoil(c)
		if _, err := c.Sign(authority("ca")); !errors.Is(err, identity.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cert(t).Sign(nil); !errors.Is(err, identity.ErrMalformed) {
		t.Error(err)
	}
}

func TestRequest(t *testing.T) {
	key, b, err := identity.NewRequest("till-8", "rpi4", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := identity.ParseRequest(b)
	if err != nil {
		t.Fatal(err)
	}
	_, id, err := identity.ParseKey(key)
	if err != nil || r.Peer != id || r.Name != "till-8" || r.Type != "rpi4" {
		t.Fatalf("%+v, %v", r, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := identity.ParseRequest(bad); !errors.Is(err, identity.ErrKey) && !errors.Is(err, identity.ErrMalformed) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	// A certificate is not a request, nor the other way round.
	c, err := cert(t).Sign(authority("till-7"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.ParseRequest(c); err == nil {
		t.Error("took a certificate for a request")
	}
	if _, _, err := identity.NewRequest("a b", "x", nil); !errors.Is(err, identity.ErrMalformed) {
		t.Error(err)
	}
	if _, err := identity.ParseRequest(make([]byte, 1<<20)); !errors.Is(err, identity.ErrMalformed) {
		t.Error(err)
	}
}

func enrollment(t testing.TB) *identity.Enrollment {
	t.Helper()
	ca := authority("ca")
	b, err := cert(t).Sign(ca)
	if err != nil {
		t.Fatal(err)
	}
	return &identity.Enrollment{Fleet: "shops", CA: public(ca), Root: []byte(`{"signed":{}}`), Key: deviceKey("till-7"), Cert: b,
		SiteKey: sha256.Sum256([]byte("site")), Name: "till-7", Type: "rpi4", Site: "store-12", Channel: "stable",
		Origins: []string{"https://updates.example/"}, Peers: []string{"/ip4/192.0.2.1/tcp/4001/p2p/x"}}
}

func TestEnrollment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "till-7.updraft")
	e := enrollment(t)
	if err := e.Write(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	back, err := identity.ReadEnrollment(path)
	if err != nil || !reflect.DeepEqual(back, e) {
		t.Fatalf("%+v, %v", back, err)
	}
	if _, id, err := back.PrivateKey(); err != nil || id != cert(t).Peer {
		t.Error(id, err)
	}
	if c, err := back.Certificate(time.Unix(1900000000, 0)); !errors.Is(err, identity.ErrExpired) || c.Name != "till-7" {
		t.Error(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.ReadEnrollment(path); !errors.Is(err, identity.ErrPermissions) {
			t.Error(mode, err)
		}
	}
	if _, err := identity.ReadEnrollment(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := identity.ReadEnrollment(t.TempDir()); err == nil {
		t.Error("read a directory")
	}
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.ReadEnrollment(path); !errors.Is(err, identity.ErrMalformed) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}

func TestEnrollmentRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(e *identity.Enrollment)
		want  error
	}{
		"other key":   {func(e *identity.Enrollment) { e.Key = deviceKey("x") }, identity.ErrKey},
		"bad key":     {func(e *identity.Enrollment) { e.Key = []byte{1} }, identity.ErrMalformed},
		"other fleet": {func(e *identity.Enrollment) { e.CA = public(authority("x")) }, identity.ErrForeign},
		"other name":  {func(e *identity.Enrollment) { e.Name = "till-8" }, identity.ErrMalformed},
		"no channel":  {func(e *identity.Enrollment) { e.Channel = "" }, identity.ErrMalformed},
		"no root":     {func(e *identity.Enrollment) { e.Root = nil }, identity.ErrMalformed},
		"root":        {func(e *identity.Enrollment) { e.Root = []byte("{{") }, identity.ErrMalformed},
		"origins":     {func(e *identity.Enrollment) { e.Origins = []string{""} }, identity.ErrMalformed},
		"peers":       {func(e *identity.Enrollment) { e.Peers = make([]string, 65) }, identity.ErrMalformed},
	} {
		e := enrollment(t)
		c.spoil(e)
		if err := e.Write(filepath.Join(t.TempDir(), "e")); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestDeviceMadeKey goes through request, approval and completion.
func TestDeviceMadeKey(t *testing.T) {
	key, req, err := identity.NewRequest("till-7", "rpi4", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := identity.ParseRequest(req)
	if err != nil {
		t.Fatal(err)
	}
	e, c := enrollment(t), cert(t)
	c.Peer, e.Key = r.Peer, nil
	if e.Cert, err = c.Sign(authority("ca")); err != nil {
		t.Fatal(err)
	}
	b, err := e.Encode()
	if err != nil || bytes.Contains(b, []byte(`"key"`)) {
		t.Fatalf("%s %v", b, err)
	}
	got, err := identity.ParseEnrollment(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := got.PrivateKey(); !errors.Is(err, identity.ErrKey) {
		t.Error(err)
	}
	if err := got.Complete(deviceKey("till-7")); !errors.Is(err, identity.ErrKey) || got.Key != nil {
		t.Error("completed with another key:", err)
	}
	if err := got.Complete(key); err != nil {
		t.Fatal(err)
	}
	if _, id, err := got.PrivateKey(); err != nil || id != r.Peer {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	b, err := cert(f).Sign(authority("ca"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := identity.Verify(b, public(authority("ca")), time.Time{})
		if err == nil && c.Serial != 7 {
			t.Fatal("forged")
		}
		// What is inside, as if the authority had signed it.
		if c, err := identity.ParseCert(b); err == nil {
			if _, err := c.Sign(authority("ca")); err != nil {
				t.Fatal("parsed but cannot be signed:", err)
			}
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	token, err := identity.ParseToken(tokenSecret)
	if err != nil {
		f.Fatal(err)
	}
	for _, tok := range []*identity.Token{nil, token} {
		b, err := identity.SignRequest(deviceKey("till-7"), "till-7", "rpi4", tok)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := identity.ParseRequest(b)
		if err != nil {
			return
		}
		if identity.CheckName(r.Name) != nil || len(r.Token) != 0 && len(r.Token) != ed25519.PublicKeySize {
			t.Fatalf("%+v", r)
		}
	})
}

func FuzzParseEnrollment(f *testing.F) {
	b, err := enrollment(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"updraft_enrollment":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := identity.ParseEnrollment(b); err == nil {
			if _, err := e.Encode(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
