package identity_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"updraft/node/identity"
)

const tokenSecret = "updraft-token-aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq"

func TestToken(t *testing.T) {
	t.Parallel()
	made, err := identity.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(" " + made.Secret() + "\n")
	if err != nil || !token.Public().Equal(made.Public()) {
		t.Fatal(err)
	}
	for _, s := range []string{"", "updraft-token-", strings.TrimPrefix(tokenSecret, "updraft-"), tokenSecret + "a", strings.ToUpper(tokenSecret)} {
		if _, err := identity.ParseToken(s); !errors.Is(err, identity.ErrMalformed) || strings.Contains(err.Error(), "aaaqea") {
			t.Errorf("%q: %v", s, err)
		}
	}
	b, err := identity.SignRequest(deviceKey("till-7"), "till-7", "rpi4", token)
	if err != nil {
		t.Fatal(err)
	}
	r, err := identity.ParseRequest(b)
	if err != nil || !r.Token.Equal(made.Public()) || r.Name != "till-7" {
		t.Fatalf("%+v, %v", r, err)
	}
	if bytes.Contains(b, []byte(made.Secret()[14:])) || bytes.Contains(b, token.Seed()) {
		t.Error("a request holds the secret")
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := identity.ParseRequest(bad); !errors.Is(err, identity.ErrKey) && !errors.Is(err, identity.ErrMalformed) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	// What one device's request proves does not serve another's key.
	if _, err := identity.Transplant(deviceKey("thief"), "till-7", "rpi4", b); !errors.Is(err, identity.ErrKey) {
		t.Errorf("transplanted: %v", err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(tokenSecret)
	f.Add("updraft-token-")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := identity.ParseToken(s)
		if err != nil {
			if !errors.Is(err, identity.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if again, err := identity.ParseToken(token.Secret()); err != nil || !again.Public().Equal(token.Public()) {
			t.Fatal(err)
		}
	})
}
