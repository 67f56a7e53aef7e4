package node_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/identity"
	"updraft/node/report"
	"updraft/swarm"
)

// refuses waits until status says that a device is not admitted.
func (a *agent) refuses(name string) {
	a.t.Helper()
	a.await("refusing "+name, func(st report.Status) bool {
		for _, p := range st.Problems {
			if p.Code == "refused" && p.Subject == name && strings.Contains(p.Text, "revoked") {
				return st.Peers == 1
			}
		}
		return false
	})
}

// checkAnew has a look that the last one does not answer for.
func checkAnew(a *agent) {
	a.t.Helper()
	time.Sleep(1100 * time.Millisecond)
	if err := check(a); err != nil {
		a.t.Fatal(err)
	}
}

// TestRevoked takes a device out while it is connected: the others close their
// connections, also one that heard of it from its neighbour, and let it in no more,
// not even after a restart.
func TestRevoked(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 1<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	thief := s.start(s.enroll(nil))
	a, b := s.start(s.enroll(nil)), s.start(s.enroll(func(c *node.Config) { c.Origins = []string{"http://127.0.0.1:1"} }))
	for _, x := range []*agent{thief, a, b} {
		x.awaitPeers(2)
	}
	a.look("1.0.0")
	for _, x := range []*agent{thief, a, b} {
		x.awaitVersion("1.0.0")
	}
	if _, err := s.fleet.Revoke("stolen", "dev1"); err != nil {
		t.Fatal(err)
	}
	checkAnew(a)
	a.refuses("dev1")
	b.refuses("dev1")
	thief.await("alone", func(st report.Status) bool { return st.Peers == 0 })
	checkAnew(thief)
	if p := thief.problem("certificate"); !strings.Contains(p.Text, "dev1") || strings.Contains(p.Text, "stolen") || p.Hint == "" {
		t.Errorf("the device itself says %+v", p)
	}

	b.end()
	b = s.start(b.cfg) // dials all who were there before, dev1 too
	b.refuses("dev1")

	// The others go on, and the thief is let in again once it is restored.
	v2 := edited(v1)
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	a.look("1.1.0")
	b.awaitVersion("1.1.0")
	if _, err := s.fleet.Restore("dev1"); err != nil {
		t.Fatal(err)
	}
	checkAnew(a)
	b.await("without problems", func(st report.Status) bool { return len(st.Problems) == 0 })
	thief.end()
	thief = s.start(thief.cfg)
	thief.awaitPeers(2)
	a.await("without problems", func(st report.Status) bool { return len(st.Problems) == 0 })
}

// TestRevokedOnAFullDisk: a list of revocations that cannot be kept on disk is in force, and
// is kept when that is possible again.
func TestRevokedOnAFullDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	s.start(s.enroll(nil))
	a, b := s.start(s.enroll(nil)), s.start(s.enrollBy(s.fleet, fleet.EnrollOptions{}, nil))
	a.look("1.0.0")
	for _, x := range []*agent{a, b} {
		x.awaitPeers(2)
		x.awaitVersion("1.0.0")
	}
	targets := filepath.Join(a.data, "trust", "targets")
	if err := os.Rename(targets, targets+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere/at/all", targets); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fleet.Revoke("stolen", "dev1"); err != nil {
		t.Fatal(err)
	}
	checkAnew(a)
	a.problem("disk")
	a.refuses("dev1")
	b.refuses("dev1") // has it from a alone
	if err := os.Remove(targets); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(targets+".away", targets); err != nil {
		t.Fatal(err)
	}
	checkAnew(a)
	a.await("on disk", func(st report.Status) bool {
		return !slices.ContainsFunc(st.Problems, func(p report.Problem) bool { return p.Code == "disk" })
	})
	a.end()
	a = s.start(a.cfg) // dials dev1
	a.refuses("dev1")
}

// TestRevocationsThatCannotBeRead: a list that is signed and none keeps no device from
// starting, and takes back nothing of the list before.
func TestRevocationsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	thief, a := s.start(s.enroll(nil)), s.start(s.enroll(nil))
	a.awaitPeers(1)
	if _, err := s.fleet.Revoke("stolen", "dev1"); err != nil {
		t.Fatal(err)
	}
	a.look("1.0.0")
	thief.await("alone", func(st report.Status) bool { return st.Peers == 0 })
	repo, err := s.fleet.Repo()
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.SetRevocations([]byte("no list")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	if err := check(a); err == nil || !strings.Contains(err.Error(), identity.ErrMalformed.Error()) {
		t.Errorf("a look says %v", err)
	}
	a.end()
	a = s.start(a.cfg) // dials dev1
	a.await("refusing dev1", func(st report.Status) bool {
		return slices.ContainsFunc(st.Problems, func(p report.Problem) bool { return p.Code == "refused" && p.Subject == "dev1" })
	})
}

// TestCertificateEnds: a device says so in time, and one whose certificate has
// ended is refused by name, also one that was let in before, and also by a device whose
// clock is late.
func TestCertificateEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	cfg := s.enroll(nil)
	short := func(ttl time.Duration) {
		t.Helper()
		e, err := s.fleet.Enroll(fleet.EnrollOptions{Name: "dev1", Type: "lab", Site: "lab", Origins: []string{s.url}, TTL: ttl, Replace: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Write(cfg.Enrollment); err != nil {
			t.Fatal(err)
		}
	}
	short(10 * 24 * time.Hour)
	a := s.start(cfg)
	if err := check(a); err != nil {
		t.Fatal(err)
	}
	if p := a.problem("certificate"); !strings.Contains(p.Text, "will expire") || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	a.end()
	b := s.start(s.enrollBy(s.at(10*time.Minute), fleet.EnrollOptions{Origins: []string{s.url}}, nil)) // by its clock it has no certificate yet
	refused := func(st report.Status) bool {
		for _, p := range st.Problems {
			if p.Code == "refused" && p.Subject == "dev1" && strings.Contains(p.Text, identity.ErrExpired.Error()) {
				return st.Peers == 0
			}
		}
		return false
	}
	short(20 * time.Minute)
	a = s.start(cfg)
	b.awaitPeers(1)
	if _, err := s.at(30 * time.Minute).Refresh(); err != nil {
		t.Fatal(err)
	}
	if err := check(b); err != nil {
		t.Fatal(err)
	}
	b.await("closing the connection with dev1", refused)
	a.end()
	a = s.start(cfg)
	b.await("refusing dev1", refused)
	a.await("alone", func(st report.Status) bool { return st.Peers == 0 })
	b.look("1.0.0")
	b.awaitVersion("1.0.0")
}

// uplinkOfOne returns a site of two devices that have version 1.0.0 in service. Only a has an origin.
func uplinkOfOne(t *testing.T) (s *site, a, b *agent) {
	t.Helper()
	s = newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	a = s.start(s.enroll(nil))
	b = s.start(s.enrollBy(s.fleet, fleet.EnrollOptions{}, nil))
	b.awaitPeers(1)
	a.look("1.0.0")
	b.awaitVersion("1.0.0")
	return s, a, b
}

// TestRevokedWhileItAnswersSlowly: a device that says it has newer metadata, and does not
// send them, keeps its neighbour from nothing that others know, not even that it is revoked.
func TestRevokedWhileItAnswersSlowly(t *testing.T) {
	t.Parallel()
	s, a, b := uplinkOfOne(t)
	asked, ended := make(chan struct{}, 1), make(chan struct{})
	sw := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "evil", Site: "lab"}), b, func(c *swarm.Config) {
		c.Files = func(string) ([]byte, error) {
			select {
			case asked <- struct{}{}:
			default:
			}
			<-ended
			return nil, fs.ErrNotExist
		}
	})
	t.Cleanup(func() { close(ended) })
	if err := sw.Announce(swarm.Profile{Node: []byte{0xa2, 1, 1, 2, 0x1a, 0x7f, 0, 0, 0}}); err != nil { // {1: 1, 2: 0x7f000000}
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-time.After(20 * time.Second):
		t.Fatal("not asked")
	}
	if _, err := s.fleet.Revoke("stolen", "evil"); err != nil {
		t.Fatal(err)
	}
	checkAnew(a)
	known := time.Now()
	b.await("refusing evil", func(st report.Status) bool {
		return st.Peers == 1 && slices.ContainsFunc(st.Problems, func(p report.Problem) bool { return p.Code == "refused" && p.Subject == "evil" })
	})
	if d := time.Since(known); d > 10*time.Second {
		t.Errorf("its neighbour has known for %v by then", d)
	}
}

// withholder is a device, evil, that hands out the newest metadata, and keeps some of them back.
type withholder struct {
	sw    *swarm.Swarm
	asked chan struct{} // for what it keeps back
}

// newWithholder makes one a member of to's site. Of files whose name contains part it says that
// it does not have them or, with mute, nothing.
func newWithholder(t *testing.T, s *site, to *agent, part string, mute bool) *withholder {
	t.Helper()
	asked, ended := make(chan struct{}, 1), make(chan struct{})
	sw := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "evil", Site: "lab"}), to, func(c *swarm.Config) {
		c.Files = func(name string) ([]byte, error) {
			if !strings.Contains(name, part) {
				return os.ReadFile(filepath.Join(s.fleet.Origin(), filepath.FromSlash(name)))
			}
			select {
			case asked <- struct{}{}:
			default:
			}
			if mute {
				<-ended
			}
			return nil, fs.ErrNotExist
		}
	})
	t.Cleanup(func() { close(ended) })
	return &withholder{sw, asked}
}

// claim has it say that it has the newest, and waits until it is asked for what it keeps back.
func (w *withholder) claim(t *testing.T) {
	t.Helper()
	if err := w.sw.Announce(swarm.Profile{Node: []byte{0xa2, 1, 1, 2, 0x18, 200}}); err != nil { // {1: 1, 2: 200}
		t.Fatal(err)
	}
	select {
	case <-w.asked:
	case <-time.After(20 * time.Second):
		t.Fatal("not asked")
	}
}

// TestRevocationsKeptBack: a device that hands out the metadata in which it is revoked, and not
// the list that says so, is out as soon as another neighbour knows of it, also where there was a
// restart in between.
func TestRevocationsKeptBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		mute, restart bool
	}{{name: "denied"}, {name: "mute", mute: true}, {name: "restart", restart: true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, a, b := uplinkOfOne(t)
			evil := newWithholder(t, s, b, "revoked", c.mute)
			said := func() int64 { return node.ProfileMeta(evil.sw.Members()[0].Profile.Node) }
			before := said()
			if _, err := s.fleet.Revoke("stolen", "evil"); err != nil {
				t.Fatal(err)
			}
			evil.claim(t)
			if c.restart {
				b.end()
				b = s.start(b.cfg)
				to, err := peer.AddrInfoFromString(b.node.Addrs()[0])
				if err != nil {
					t.Fatal(err)
				}
				evil.sw.Connect(*to)
				b.awaitPeers(2)
				b.await("telling evil of itself", func(report.Status) bool {
					ms := evil.sw.Members()
					return len(ms) > 0 && len(ms[0].Profile.Node) > 0
				})
				if v := said(); v > before {
					t.Errorf("it says that it has metadata %d, of which it lacks a part", v)
				}
			}
			checkAnew(a)
			known := time.Now()
			b.refuses("evil")
			if d := time.Since(known); d > 10*time.Second {
				t.Errorf("its neighbour has known for %v by then", d)
			}
		})
	}
}

// TestUnfitReleaseIsAskedForOnce: a release that is refused as it was signed is complete: nobody is
// asked for more of it.
func TestUnfitReleaseIsAskedForOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	b := s.start(s.enroll(nil))
	twin := filepath.Join(s.dir, "twin") // of a publisher that goes on from an old copy
	if out, err := exec.Command("cp", "-a", filepath.Join(s.dir, "fleet"), twin).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.publish("1.1.0", s.write("v2/app.bin", noise(2, 100<<10)))
	b.look("1.1.0")
	f, err := fleet.Open(twin, fleet.Options{Now: func() time.Time { return time.Now().Add(300 * 24 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	s.fleet = f
	if roles, err := f.Refresh(); err != nil || !slices.Contains(roles, "stable") {
		t.Fatalf("%v signed anew: %v", roles, err)
	}
	s.publish("1.2.0", s.write("v3/app.bin", noise(4, 100<<10))) // with the sequence of 1.1.0
	evil := newWithholder(t, s, b, "nothing", false)
	raw, err := os.ReadFile(filepath.Join(f.Origin(), release.TimestampName))
	if err != nil {
		t.Fatal(err)
	}
	var stamp struct{ Signed struct{ Version byte } }
	if err := json.Unmarshal(raw, &stamp); err != nil {
		t.Fatal(err)
	}
	if err := evil.sw.Announce(swarm.Profile{Node: []byte{0xa2, 1, 1, 2, stamp.Signed.Version}}); err != nil { // {1: 1, 2: version}
		t.Fatal(err)
	}
	if p := b.problem("peer-metadata"); !strings.Contains(p.Text, "another manifest for sequence 2") {
		t.Errorf("%+v", p)
	}
	if b.node.AsksMembers() {
		t.Error("asked once more")
	}
}

// TestReleaseKeptBack: so it is with the manifest of a release.
func TestReleaseKeptBack(t *testing.T) {
	t.Parallel()
	s, a, b := uplinkOfOne(t)
	evil := newWithholder(t, s, b, "targets/stable/", false)
	s.publish("1.1.0", s.write("v2/app.bin", noise(2, 100<<10)))
	evil.claim(t)
	a.look("1.1.0")
	b.awaitVersion("1.1.0")
}

// TestFastForwardAmongNeighbours: with stolen online keys a time is signed at which the
// certificates of the site have ended. That ends none, and a device that reaches the
// origin through its neighbours alone learns from them of the keys that replace those.
func TestFastForwardAmongNeighbours(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	const day = 24 * time.Hour
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	near := s.enrollBy(s.fleet, fleet.EnrollOptions{Origins: []string{s.url}, TTL: 30 * day}, nil)
	far := s.enrollBy(s.fleet, fleet.EnrollOptions{TTL: 60 * day}, nil)
	a, b := s.start(near), s.start(far)
	b.awaitPeers(1)
	a.look("1.0.0")
	for _, x := range []*agent{a, b} {
		x.awaitVersion("1.0.0")
	}
	good := t.TempDir()
	if err := os.CopyFS(good, os.DirFS(s.fleet.Origin())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.at(40 * day).Refresh(); err != nil { // the thief signs ahead
		t.Fatal(err)
	}
	stolen, err := os.ReadFile(filepath.Join(s.fleet.Origin(), "metadata", "timestamp.json"))
	if err != nil {
		t.Fatal(err)
	}
	checkAnew(a)
	b.await("fast forward", func(report.Status) bool {
		has, err := os.ReadFile(filepath.Join(far.Data, "trust", "metadata", "timestamp.json"))
		return err == nil && bytes.Equal(has, stolen)
	})
	for _, x := range []*agent{a, b} { // each is to let the other in with what it knows
		x.end()
	}
	lies, err := os.ReadDir(s.fleet.Origin())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range lies { // the directory itself is being served
		if err := os.RemoveAll(filepath.Join(s.fleet.Origin(), e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(s.fleet.Origin(), os.DirFS(good)); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"timestamp", "snapshot"} {
		if err := s.fleet.Rotate(role); err != nil {
			t.Fatal(err)
		}
	}
	s.publish("2.0.0", s.write("v2/app.bin", noise(2, 100<<10)))
	s.peers = nil
	a = s.start(near)
	a.look("2.0.0")
	a.awaitVersion("2.0.0")
	b = s.start(far)
	b.awaitPeers(1)
	if err := check(b); err != nil {
		t.Error(err)
	}
	b.awaitVersion("2.0.0")
}
