package identity_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"updraft/node/identity"
)

func TestRenews(t *testing.T) {
	t.Parallel()
	old := cert(t)
	_, other, err := identity.ParseKey(deviceKey("till-8"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *identity.Cert){
		"":            func(*identity.Cert) {},
		"other key":   func(c *identity.Cert) { c.Peer = other },
		"other name":  func(c *identity.Cert) { c.Name = "till-8" },
		"other type":  func(c *identity.Cert) { c.Type = "rpi5" },
		"other site":  func(c *identity.Cert) { c.Site = "store-13" },
		"other roles": func(c *identity.Cert) { c.Roles = []string{identity.RoleDevice} },
		"not later":   func(c *identity.Cert) { c.NotBefore = old.NotBefore },
		"not longer":  func(c *identity.Cert) { c.NotAfter = old.NotAfter },
	} {
		c := *old
		c.Serial, c.NotBefore, c.NotAfter = 8, old.NotBefore+1000, old.NotAfter+1000
		change(&c)
		if err := c.Renews(old); (err == nil) != (name == "") || err != nil && !errors.Is(err, identity.ErrRenewal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if due := old.Due(); due.Unix() != old.NotAfter-(old.NotAfter-old.NotBefore)/3 || due.Before(time.Unix(old.NotBefore, 0)) {
		t.Error(due)
	}
	names := map[string]bool{}
	for _, key := range [][32]byte{{}, {1}} {
		names[identity.RenewalName(key, old.Peer)] = true
		names[identity.RenewalName(key, other)] = true
	}
	for n := range names {
		if !strings.HasPrefix(n, identity.RenewalDir+"/") || len(n) != len(identity.RenewalDir)+65 {
			t.Error(n)
		}
	}
	if len(names) != 4 {
		t.Error(names)
	}
}
