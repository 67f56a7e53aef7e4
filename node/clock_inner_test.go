package node

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"updraft/delta/release"
	"updraft/node/fleet"
	"updraft/node/identity"
)

// enrolledNode makes a fleet at the time now, and a device that is enrolled in it 300 days later, to which it sets now.
func enrolledNode(t *testing.T, now *time.Time) (*fleet.Fleet, *Node) {
	t.Helper()
	dir := t.TempDir()
	f, err := fleet.Init(filepath.Join(dir, "fleet"), fleet.Options{Now: func() time.Time { return *now }})
	if err != nil {
		t.Fatal(err)
	}
	*now = now.Add(300 * 24 * time.Hour)
	e, err := f.Enroll(fleet.EnrollOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Enrollment, cfg.Data, cfg.Listen = filepath.Join(dir, "a.updraft"), filepath.Join(dir, "a"), []string{"/ip4/127.0.0.1/tcp/0"}
	if err := e.Write(cfg.Enrollment); err != nil {
		t.Fatal(err)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return f, n
}

// TestFrozenBeforeItWasEnrolled: a device without a clock that was just set up takes no
// metadata that had expired by then, as the certificate in its enrollment tells.
func TestFrozenBeforeItWasEnrolled(t *testing.T) {
	t.Parallel()
	now := time.Now().Add(-300 * 24 * time.Hour)
	f, n := enrolledNode(t, &now)
	err := n.trust.Refresh(context.Background(), func(_ context.Context, name string, _ int64) ([]byte, error) {
		return os.ReadFile(filepath.Join(f.Origin(), filepath.FromSlash(name)))
	}, time.Unix(0, 0))
	if !errors.Is(err, release.ErrExpired) {
		t.Error(err)
	}
}

// TestRenewalFarAhead: a renewal that begins years from now, signed by whoever had the authority's key for a minute, is not
// taken when it is offered, nor from the disk, where an earlier program kept it, but by a device whose clock is late. It never
// moves the time by which neighbours are judged.
func TestRenewalFarAhead(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, late := range []bool{false, true} {
		now := time.Now().Add(-300 * day)
		if late {
			now = time.Now().Add(100 * day)
		}
		f, n := enrolledNode(t, &now)
		ca, err := release.ReadKey(filepath.Join(filepath.Dir(f.Origin()), "keys", "ca.key"))
		if err != nil {
			t.Fatal(err)
		}
		own := n.own()
		renewal := func(ahead time.Duration) []byte {
			c := *own.Cert
			c.NotBefore = now.Add(ahead).Unix()
			c.NotAfter = max(c.NotBefore, own.NotAfter) + 3600
			b, err := c.Sign(ca)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		far, good := renewal(40*365*day), renewal(day/2)
		if got := n.answerCertificate(far); !bytes.Equal(got, own.raw) {
			t.Error("took one that begins in 40 years")
		}
		if err := n.renew(far); !errors.Is(err, errAhead) {
			t.Error(err)
		}
		if err := identity.WriteSecret(n.paths.certificate(), far); err != nil {
			t.Fatal(err)
		}
		if err := n.loadCertificate(); err != nil {
			t.Fatal(err)
		}
		if kept := bytes.Equal(n.own().raw, far); kept != late {
			t.Errorf("clock late: %v; the one on disk is used: %v", late, kept)
		}
		if _, err := n.certify(own.Peer, own.raw); err != nil {
			t.Errorf("clock late: %v; a neighbour with a certificate like the one before: %v", late, err)
		}
		if late {
			continue
		}
		if got := n.answerCertificate(good); !bytes.Equal(got, good) {
			t.Error("did not take one that begins in half a day")
		}
	}
}
