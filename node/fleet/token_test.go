package fleet_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"updraft/node/fleet"
	"updraft/node/identity"
)

// request is that of a device that has a token.
func request(t *testing.T, name, typ, secret string) []byte {
	t.Helper()
	token, err := identity.ParseToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	_, b, err := identity.NewRequest(name, typ, token)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTokens lets as many devices in as a token is for, each once, and refuses the
// others by name.
func TestTokens(t *testing.T) {
	t.Parallel()
	now := time.Now()
	dir := filepath.Join(t.TempDir(), "fleet")
	f, err := fleet.Init(dir, fleet.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	create := func(o fleet.TokenOptions) (string, *fleet.Token) {
		t.Helper()
		secret, token, err := f.CreateToken(o)
		if err != nil {
			t.Fatal(err)
		}
		return secret, token
	}
	refuse := func(req []byte, want error) {
		t.Helper()
		if e, err := f.Approve(req); !errors.Is(err, want) || e != nil {
			t.Errorf("%v, want %v", err, want)
		}
	}
	const day = 24 * time.Hour
	secret, token := create(fleet.TokenOptions{Uses: 2, TTL: day, Device: fleet.EnrollOptions{Type: "rpi4", Site: "store-12", Channel: "beta",
		Roles: []string{identity.RoleDevice}, Origins: []string{"https://updates.example"}, TTL: 90 * day}})
	first := request(t, "till-1", "rpi4", secret)
	e, err := f.Approve(first)
	if err != nil || e.Name != "till-1" || e.Site != "store-12" || e.Channel != "beta" || len(e.Origins) != 1 || len(e.Key) != 0 {
		t.Fatalf("%+v, %v", e, err)
	}
	c, err := e.Certificate(now)
	if err != nil || c.Has(identity.RoleGateway) || c.NotAfter-c.NotBefore != int64(90*day/time.Second) {
		t.Errorf("%+v, %v", c, err)
	}
	refuse(request(t, "till-2", "rpi5", secret), fleet.ErrTokenType)
	refuse(request(t, "till-1", "rpi4", secret), fleet.ErrExists) // another key under the name
	// Again, for one whose answer was lost, also before it was noted: it counts once.
	for range 3 {
		if _, err := f.Approve(first); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "devices", "till-1.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Approve(first); err != nil {
		t.Fatal(err)
	}
	second := request(t, "till-2", "rpi4", secret)
	if _, err := f.Approve(second); err != nil {
		t.Fatal(err)
	}
	refuse(request(t, "till-3", "rpi4", secret), fleet.ErrTokenUsed)
	if l, err := f.Tokens(); err != nil || len(l) != 1 || len(l[0].Used) != 2 || l[0].ID != token.ID {
		t.Errorf("%+v, %v", l, err)
	}

	// A device that was taken out does not come back by itself.
	if _, err := f.Revoke("", "till-2"); err != nil {
		t.Fatal(err)
	}
	refuse(second, identity.ErrRevoked)

	other, _ := create(fleet.TokenOptions{Uses: 5, TTL: time.Hour})
	late := request(t, "till-4", "x", other)
	now = now.Add(time.Hour)
	refuse(late, fleet.ErrTokenExpired)
	third, token := create(fleet.TokenOptions{Uses: 1, TTL: day})
	if err := f.RevokeToken(token.ID); err != nil {
		t.Fatal(err)
	}
	refuse(request(t, "till-5", "x", third), fleet.ErrTokenUnknown)
	if err := f.RevokeToken(token.ID); !errors.Is(err, fleet.ErrTokenUnknown) {
		t.Error(err)
	}
	strange, err := identity.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	refuse(request(t, "till-6", "x", strange.Secret()), fleet.ErrTokenUnknown)
	_, none, err := identity.NewRequest("till-7", "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	refuse(none, fleet.ErrTokenUnknown)
	for name, o := range map[string]fleet.TokenOptions{
		"no uses": {TTL: day}, "no time": {Uses: 1}, "a name": {Uses: 1, TTL: day, Device: fleet.EnrollOptions{Name: "x"}},
		"bad site": {Uses: 1, TTL: day, Device: fleet.EnrollOptions{Site: "a b"}}, "many": {Uses: 1 << 30, TTL: day},
	} {
		if _, _, err := f.CreateToken(o); !errors.Is(err, fleet.ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTokenAtOnce has more devices come at once than a token is for, each to a process
// of its own.
func TestTokenAtOnce(t *testing.T) {
	t.Parallel()
	f := open(t)
	secret, _, err := f.CreateToken(fleet.TokenOptions{Uses: 3, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		req := request(t, fmt.Sprint("till-", i), "x", secret)
		wg.Go(func() {
			own, err := fleet.Open(filepath.Dir(f.Origin()), fleet.Options{})
			for err == nil {
				if _, errs[i] = own.Approve(req); !errors.Is(errs[i], fleet.ErrBusy) {
					return
				}
				time.Sleep(time.Millisecond)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	in := 0
	for _, err := range errs {
		if err == nil {
			in++
		} else if !errors.Is(err, fleet.ErrTokenUsed) {
			t.Error(err)
		}
	}
	if d, err := f.Devices(); in != 3 || len(d) != 3 || err != nil {
		t.Errorf("%d were let in, %v, %v", in, d, err)
	}
}

// TestTokenOtherName: who comes with the key of another device is not let in, with whichever
// token, so that nobody is revoked under one name and stays under another.
func TestTokenOtherName(t *testing.T) {
	t.Parallel()
	f := open(t)
	secret := func() *identity.Token {
		t.Helper()
		text, _, err := f.CreateToken(fleet.TokenOptions{Uses: 9, TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		token, err := identity.ParseToken(text)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	key, req, err := identity.NewRequest("till-7", "any", secret())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Approve(req); err != nil {
		t.Fatal(err)
	}
	if req, err = identity.SignRequest(key, "till-8", "any", secret()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Approve(req); !errors.Is(err, fleet.ErrExists) {
		t.Error(err)
	}
	if _, err := f.Revoke("stolen", "till-7"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Approve(req); !errors.Is(err, identity.ErrRevoked) {
		t.Error(err)
	}
	if l, err := f.Devices(); err != nil || len(l) != 1 {
		t.Error(l, err)
	}
}
