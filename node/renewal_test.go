package node_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/identity"
	"updraft/node/report"
)

// at opens the fleet with a clock that is d ahead.
func (s *site) at(d time.Duration) *fleet.Fleet {
	s.t.Helper()
	f, err := fleet.Open(filepath.Join(s.dir, "fleet"), fleet.Options{Now: func() time.Time { return time.Now().Add(d) }})
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// pass has devices that look at the origin believe that it is d later: a new root says so,
// against which their clocks do not count.
func (s *site) pass(d time.Duration) {
	s.t.Helper()
	if err := s.at(d).Rotate("snapshot"); err != nil {
		s.t.Fatal(err)
	}
}

// enrollEnding makes a device whose certificate was made for a time of which half is
// over.
func (s *site) enrollEnding(half time.Duration, origins ...string) node.Config {
	s.t.Helper()
	return s.enrollBy(s.at(-half), fleet.EnrollOptions{Origins: origins, TTL: 2 * half}, nil)
}

// since tells when the connections of an agent were made, by the peer's name.
func since(a *agent) map[string]time.Time {
	m := map[string]time.Time{}
	for _, p := range a.node.Peers() {
		m[p.Name] = p.Since
	}
	return m
}

// TestRenewedWithoutAVisit: the certificates of a site end, but for one they are renewed
// before, though one device alone reaches the origin. Nobody is disconnected for that,
// and what comes after reaches all but the one.
func TestRenewedWithoutAVisit(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 1<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	const half = 24 * time.Minute
	cfgs := []node.Config{s.enrollEnding(half, s.url), s.enrollEnding(half), s.enrollEnding(half), s.enrollEnding(half)}
	ends := time.Now().Add(half)
	var as []*agent
	for _, cfg := range cfgs {
		as = append(as, s.start(cfg))
	}
	for _, x := range as {
		x.awaitPeers(3)
	}
	as[0].look("1.0.0")
	for _, x := range as {
		x.awaitVersion("1.0.0")
	}
	if p := as[1].problem("certificate"); !strings.Contains(p.Text, "will expire") {
		t.Errorf("before: %+v", p)
	}
	s.pass(half / 2) // due
	checkAnew(as[0])
	if l, err := s.fleet.Renew("dev1", "dev2", "dev3"); err != nil || len(l) != 3 {
		t.Fatal(l, err)
	}
	checkAnew(as[0])
	for _, x := range as[:3] {
		if info, err := os.Stat(filepath.Join(x.data, "certificate")); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal(info, err)
		}
	}
	if _, err := os.Stat(filepath.Join(as[3].data, "certificate")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("of dev4, which was not renewed:", err)
	}
	if end := as[1].node.Status().NotAfter; !end.After(ends.Add(time.Minute)) {
		t.Errorf("status says that the certificate ends on %v", end)
	}
	before := since(as[1])

	s.pass(half + half/2) // ended
	checkAnew(as[0])
	v2 := edited(v1)
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	checkAnew(as[0])
	for _, x := range as[:3] {
		x.awaitVersion("1.1.0")
		x.await("closing the connection with dev4", func(st report.Status) bool {
			for _, p := range st.Problems {
				if p.Code == "refused" && p.Subject == "dev4" && strings.Contains(p.Text, identity.ErrExpired.Error()) {
					return st.Peers == 2
				}
			}
			return false
		})
	}
	for name, at := range since(as[1]) {
		if at != before[name] {
			t.Errorf("the connection with %s is not the one from before", name)
		}
	}
	if st := as[3].node.Status(); st.Current != "1.0.0" {
		t.Errorf("dev4 has %s", st.Current)
	}

	// After a restart the renewal counts, not the enrollment; and who lost it finds it at
	// the origin, and is let in then.
	as[1].end()
	s.start(cfgs[1]).awaitPeers(2)
	as[2].end()
	if err := os.Remove(filepath.Join(cfgs[2].Data, "certificate")); err != nil {
		t.Fatal(err)
	}
	cfgs[2].Origins = []string{s.url}
	c := s.start(cfgs[2])
	c.await("alone with its old certificate", func(st report.Status) bool { return st.Peers == 0 })
	_ = check(c)
	c.awaitPeers(2)
}

// TestRenewalRefused has a device of the site offer another one certificates that are
// no renewal of the one it has.
func TestRenewalRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	cfg := s.enroll(nil)
	a := s.start(cfg)
	thief := enrollment(t, s.fleet, fleet.EnrollOptions{Name: "thief", Site: "lab"})
	sw := join(t, thief, a)
	own, err := identity.ReadEnrollment(cfg.Enrollment)
	if err != nil {
		t.Fatal(err)
	}
	other, err := fleet.Init(filepath.Join(s.dir, "other"), fleet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"none":                  nil,
		"junk":                  []byte("junk"),
		"of another device":     thief.Cert,
		"of another fleet":      enrollment(t, other, fleet.EnrollOptions{Name: "dev1", Site: "lab"}).Cert,
		"not newer":             own.Cert,
		"longer than it may be": bytes.Repeat([]byte{0x41}, 5<<10),
	} {
		got, err := sw.Invoke(t.Context(), a.node.ID(), "certificate", b)
		if err == nil && !bytes.Equal(got, own.Cert) {
			t.Errorf("%s: answered %d bytes", name, len(got))
		}
	}
	if _, err := os.Stat(filepath.Join(a.data, "certificate")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("took one of them:", err)
	}
	// One that is newer, brought by whomever, is taken.
	if _, err := s.fleet.Renew("dev1"); err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(s.fleet.Origin(), identity.RenewalDir, "*"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	renewal, err := os.ReadFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := sw.Invoke(t.Context(), a.node.ID(), "certificate", renewal); err != nil || !bytes.Equal(got, renewal) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
}
