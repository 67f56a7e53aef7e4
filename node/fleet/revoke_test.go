package fleet_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/node/fleet"
	"updraft/node/identity"
)

func TestRevoke(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "fleet")
	now := time.Now()
	f, err := fleet.Init(dir, fleet.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range f.Offline() { // as it should be
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	enroll := func(o fleet.EnrollOptions) *identity.Cert {
		t.Helper()
		e, err := f.Enroll(o)
		if err != nil {
			t.Fatal(err)
		}
		c, err := identity.Verify(e.Cert, e.CA, now)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := enroll(fleet.EnrollOptions{Name: "a"}), enroll(fleet.EnrollOptions{Name: "b"})
	if l, err := f.Revocations(); err != nil || len(l) != 0 {
		t.Fatal(l, err)
	}
	if _, err := f.Revoke("", "nobody"); !errors.Is(err, fleet.ErrUnknown) {
		t.Errorf("unknown device: %v", err)
	}
	if _, err := f.Revoke(strings.Repeat("x", 300), "a"); !errors.Is(err, fleet.ErrOptions) {
		t.Errorf("long reason: %v", err)
	}
	l, err := f.Revoke("stolen", "a")
	if err != nil || !errors.Is(l.Check(a), identity.ErrRevoked) || l.Check(b) != nil {
		t.Fatal(l, err)
	}
	// Within the same second: the new certificate is good, the old one is not.
	again := enroll(fleet.EnrollOptions{Name: "a", Replace: true})
	if l, err = f.Revocations(); err != nil || l.Check(again) != nil || l.Check(a) == nil {
		t.Error(l, err)
	}
	if _, err := f.Restore("b"); !errors.Is(err, fleet.ErrUnknown) {
		t.Errorf("restore what is not revoked: %v", err)
	}
	// That is not undone, also when the new one was revoked by mistake, more than once.
	if _, err = f.Restore("a"); !errors.Is(err, fleet.ErrReplaced) {
		t.Error(err)
	}
	for range 2 {
		if l, err = f.Revoke("", "a"); err != nil || l.Check(again) == nil {
			t.Error(l, err)
		}
		now = now.Add(time.Minute)
	}
	if l, err = f.Restore("a"); err != nil || l.Check(again) != nil || l.Check(a) == nil {
		t.Error(l, err)
	}
	if _, err = f.Restore("a"); !errors.Is(err, fleet.ErrReplaced) {
		t.Error(err)
	}
	if l, err = f.Revoke("", "b"); err != nil || l.Check(b) == nil {
		t.Error(l, err)
	}
	if l, err = f.Restore("b"); err != nil || l.Check(b) != nil || len(l) != 1 {
		t.Error(l, err)
	}
	if list, err := f.Channels(); err != nil || len(list) != 0 {
		t.Errorf("channels %v, %v", list, err)
	}
}

// TestRevokeIsOfAllBefore: also of a certificate that begins after the one that took its place was made.
func TestRevokeIsOfAllBefore(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f, err := fleet.Init(filepath.Join(t.TempDir(), "fleet"), fleet.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	old, err := f.Enroll(fleet.EnrollOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Renew("a"); err != nil { // begins a second later
		t.Fatal(err)
	}
	c, err := old.Certificate(time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(f.Origin(), identity.RenewalName(old.SiteKey, c.Peer)))
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := identity.Verify(b, old.CA, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Enroll(fleet.EnrollOptions{Name: "a", Replace: true}); err != nil {
		t.Fatal(err)
	}
	if l, err := f.Revoke("", "a"); err != nil || l.Check(c) == nil || l.Check(renewed) == nil {
		t.Errorf("%v, %v: renewed at %d", l, err, renewed.NotBefore)
	}
}

// TestReplacedStaysGood: a certificate that was replaced is good until it ends, which the record of
// the device tells, unless the device was revoked before it was enrolled again.
func TestReplacedStaysGood(t *testing.T) {
	t.Parallel()
	f := open(t)
	enroll := func(ttl time.Duration, want *identity.Cert) *identity.Cert {
		t.Helper()
		e, err := f.Enroll(fleet.EnrollOptions{Name: "a", Replace: true, TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		c, err := e.Certificate(time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = new(identity.Cert)
		}
		if l, err := f.Devices(); err != nil || l[0].Earlier != want.NotAfter || l[0].NotAfter != c.NotAfter {
			t.Errorf("%+v, want %d, %v", l, want.NotAfter, err)
		}
		if l, err := f.Revocations(); err != nil || l.Check(c) != nil || want.NotAfter > 0 && l.Check(want) != nil {
			t.Error(l, err)
		}
		return c
	}
	revoke := func() {
		t.Helper()
		if _, err := f.Revoke("", "a"); err != nil {
			t.Fatal(err)
		}
	}
	long := enroll(500*time.Hour, nil)
	enroll(100*time.Hour, long)
	enroll(100*time.Hour, long) // which ends later than the one before this
	if _, err := f.Renew("a"); err != nil {
		t.Fatal(err)
	}
	enroll(0, long)
	revoke()
	last := enroll(50*time.Hour, nil)
	enroll(0, last)
	revoke()
	enroll(0, nil)
}

// TestReasonsStayHere: why devices were revoked is known in the fleet's directory and not at
// the origin, which is public; what earlier programs published there goes with the next list.
func TestReasonsStayHere(t *testing.T) {
	t.Parallel()
	f := open(t)
	for _, name := range []string{"a", "b"} {
		if _, err := f.Enroll(fleet.EnrollOptions{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	repo, err := f.Repo()
	if err != nil {
		t.Fatal(err)
	}
	b, err := identity.Revocations{{Name: "b", At: time.Now().Unix(), Reason: "lost"}}.Encode()
	if err == nil {
		err = repo.SetRevocations(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	check := func(want ...string) {
		t.Helper()
		l, err := f.Revocations()
		for i := range want {
			if err != nil || len(l) != len(want) || l[i].Reason != want[i] {
				t.Errorf("%+v, %v, want %q", l, err, want)
			}
		}
	}
	check("lost")
	if _, err := f.Revoke("stolen from store 12", "a"); err != nil {
		t.Fatal(err)
	}
	check("stolen from store 12", "lost")
	if repo, err = f.Repo(); err == nil {
		b, err = repo.Revocations()
	}
	l, parsed := identity.ParseRevocations(b)
	if err != nil || parsed != nil || len(l) != 2 || l[0].Reason != "" || l[1].Reason != "" {
		t.Errorf("published: %+v, %v, %v", l, err, parsed)
	}
	if _, err := f.Restore("a"); err != nil {
		t.Fatal(err)
	}
	check("lost")
	if _, err := f.Revoke("", "a"); err != nil {
		t.Fatal(err)
	}
	check("", "lost")
}
