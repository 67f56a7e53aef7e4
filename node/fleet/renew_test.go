package fleet_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"updraft/node/fleet"
	"updraft/node/identity"
)

// TestRenew renews what is due, by name what is not, and never what is revoked.
func TestRenew(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now := time.Now()
	f, err := fleet.Init(filepath.Join(t.TempDir(), "fleet"), fleet.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	enroll := func(o fleet.EnrollOptions) *identity.Enrollment {
		t.Helper()
		e, err := f.Enroll(o)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	a := enroll(fleet.EnrollOptions{Name: "a", Site: "x", Roles: []string{identity.RoleDevice}, TTL: 90 * day})
	b := enroll(fleet.EnrollOptions{Name: "b", Site: "y", TTL: 300 * day})
	gone := enroll(fleet.EnrollOptions{Name: "gone", TTL: 90 * day})
	if _, err := f.Revoke("", "gone"); err != nil {
		t.Fatal(err)
	}
	renew := func(want int, names ...string) {
		t.Helper()
		l, err := f.Renew(names...)
		if err != nil || len(l) != want {
			t.Fatalf("%v, %v", l, err)
		}
	}
	file := func(e *identity.Enrollment) string {
		c, err := e.Certificate(time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(f.Origin(), filepath.FromSlash(identity.RenewalName(e.SiteKey, c.Peer)))
	}
	renewal := func(e *identity.Enrollment, life time.Duration) *identity.Cert {
		t.Helper()
		raw, err := os.ReadFile(file(e))
		if err != nil {
			t.Fatal(err)
		}
		c, err := identity.Verify(raw, e.CA, now)
		old, _ := e.Certificate(time.Time{})
		if err != nil || c.Renews(old) != nil || c.NotAfter-c.NotBefore != int64(life/time.Second) || c.Serial == old.Serial {
			t.Fatalf("%+v, %v, %v", c, err, c.Renews(old))
		}
		return c
	}
	version := func() int64 {
		t.Helper()
		repo, err := f.Repo()
		if err != nil {
			t.Fatal(err)
		}
		return repo.Version()
	}
	renew(0)
	now = now.Add(59 * day)
	before := version()
	renew(0)
	if version() != before {
		t.Error("nothing was renewed, and a timestamp was signed")
	}
	now = now.Add(2 * day)
	renew(1)
	renewal(a, 90*day)
	if version() == before {
		t.Error("no new timestamp tells of a renewal")
	}
	renew(0)
	renew(1, "b")
	first := renewal(b, 300*day)
	renew(1, "b") // within the same second
	if c := renewal(b, 300*day); c.Renews(first) != nil {
		t.Errorf("%+v", c)
	}
	if _, err := os.Stat(file(gone)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a revoked device's certificate: %v", err)
	}
	if _, err := f.Renew("a", "gone"); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	if _, err := f.Renew("nobody"); !errors.Is(err, fleet.ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}

	// The revocation counts for what was just renewed, too, and its file goes.
	l, err := f.Revoke("", "b")
	if err != nil || !errors.Is(l.Check(renewal(b, 300*day)), identity.ErrRevoked) {
		t.Errorf("%v, %v", l, err)
	}
	renew(0)
	if _, err := os.Stat(file(b)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("revoked: %v", err)
	}

	// Enrolled anew, with another key: the certificate of the old key goes.
	enroll(fleet.EnrollOptions{Name: "a", Site: "x", Replace: true, TTL: 90 * day})
	renew(0)
	if _, err := os.Stat(file(a)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("replaced: %v", err)
	}
	// One that has ended is renewed as well: the device may have been away.
	now = now.Add(200 * day)
	renew(1)
}
