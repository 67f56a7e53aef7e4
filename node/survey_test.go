package node_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/identity"
)

// TestSurvey: an operator learns of each device of a site how it is, but for one that
// was revoked; nobody else is told.
func TestSurvey(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	a := s.start(s.enroll(nil))
	b := s.start(s.enroll(func(c *node.Config) { c.Origins = []string{"http://127.0.0.1:1"} }))
	thief := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "thief", Site: "lab"}), a)
	a.awaitPeers(2)
	a.look("1.0.0")
	b.awaitVersion("1.0.0")
	a.awaitVersion("1.0.0") // later than b, to which it lends
	if got, err := thief.Invoke(t.Context(), a.node.ID(), "status", nil); err == nil || !strings.Contains(err.Error(), node.ErrOperator.Error()) {
		t.Errorf("a device was told %d bytes, %v", len(got), err)
	}

	survey := func(e *identity.Enrollment, quiet time.Duration) ([]node.Answer, error) {
		t.Helper()
		cfg := node.DefaultConfig()
		dir := t.TempDir()
		cfg.Enrollment, cfg.Data, cfg.MDNS, cfg.Peers = filepath.Join(dir, "e"), filepath.Join(dir, "data"), false, s.peers
		cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
		if err := e.Write(cfg.Enrollment); err != nil {
			t.Fatal(err)
		}
		n, err := node.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return n.Survey(t.Context(), quiet)
	}
	if _, err := survey(enrollment(t, s.fleet, fleet.EnrollOptions{Name: "dev9", Site: "lab"}), time.Second); !errors.Is(err, node.ErrOperator) {
		t.Errorf("by a device: %v", err)
	}
	anna := enrollment(t, s.fleet, fleet.EnrollOptions{Name: "anna", Site: "lab", Roles: []string{identity.RoleOperator}})
	// A device may be busy and come late: then it takes more patience.
	surveyed := func(n int) (list []node.Answer) {
		t.Helper()
		for quiet := time.Second; len(list) != n || list == nil; quiet *= 2 {
			var err error
			if list, err = survey(anna, quiet); err != nil || quiet > 16*time.Second {
				t.Fatalf("%+v, %v", list, err)
			}
		}
		return list
	}
	list := surveyed(2)
	for i, name := range []string{"dev1", "dev2"} {
		if x := list[i]; x.Name != name || x.Status == nil || x.Status.Current != "1.0.0" || x.Status.Name != name {
			t.Errorf("%+v", x)
		}
	}

	// One that was taken out since is not believed, nor an operator.
	if _, err := s.fleet.Revoke("", "dev2"); err != nil {
		t.Fatal(err)
	}
	checkAnew(a)
	if list = surveyed(1); list[0].Name != "dev1" {
		t.Errorf("%+v", list)
	}
	if _, err := s.fleet.Revoke("", "anna"); err != nil {
		t.Fatal(err)
	}
	checkAnew(a)
	if list, err := survey(anna, time.Second); err != nil || len(list) > 0 && list[0].Name == "dev1" {
		t.Errorf("a revoked operator was told %+v, %v", list, err)
	}
}
