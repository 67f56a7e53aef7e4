package identity_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"updraft/node/identity"
)

func TestRevocations(t *testing.T) {
	t.Parallel()
	var l identity.Revocations
	for i, name := range []string{"till-7", "camera", "till-10", "camera"} {
		l = l.With(identity.Revocation{Name: name, At: int64(100 + i), Reason: "stolen"})
	}
	if len(l) != 3 || l[0].Name != "camera" || l[0].At != 103 || l[2].Name != "till-7" {
		t.Fatalf("%v", l)
	}
	b, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := identity.ParseRevocations(b); err != nil || !reflect.DeepEqual(back, l) {
		t.Fatalf("%v, %v", back, err)
	}
	for _, c := range []struct {
		cert identity.Cert
		bad  bool
	}{
		{identity.Cert{Name: "camera", NotBefore: 103}, true},
		{identity.Cert{Name: "camera", NotBefore: 104}, false}, // enrolled anew
		{identity.Cert{Name: "camera-2", NotBefore: 1}, false},
	} {
		if err := l.Check(&c.cert); errors.Is(err, identity.ErrRevoked) != c.bad || c.bad && !strings.Contains(err.Error(), "stolen") {
			t.Errorf("%+v: %v", c.cert, err)
		}
	}
	if l = l.Without("camera"); l.Check(&identity.Cert{Name: "camera", NotBefore: 1}) != nil || len(l) != 2 {
		t.Error(l)
	}
	if (identity.Revocations)(nil).Check(&identity.Cert{Name: "x"}) != nil {
		t.Error("an empty list revokes")
	}
}

func TestRevocationsRefused(t *testing.T) {
	t.Parallel()
	many := make(identity.Revocations, identity.MaxRevocations+1)
	for i := range many {
		many[i] = identity.Revocation{Name: fmt.Sprintf("d%06d", i), At: 1}
	}
	for name, l := range map[string]identity.Revocations{
		"bad name":     {{Name: "../x", At: 1}},
		"twice":        {{Name: "a", At: 1}, {Name: "a", At: 2}},
		"out of order": {{Name: "b", At: 1}, {Name: "a", At: 1}},
		"no time":      {{Name: "a"}},
		"far future":   {{Name: "a", At: 1 << 50}},
		"long reason":  {{Name: "a", At: 1, Reason: strings.Repeat("x", 300)}},
		"too many":     many,
	} {
		if _, err := l.Encode(); !errors.Is(err, identity.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := many[:identity.MaxRevocations].Encode(); err != nil || len(b) > 1<<20 {
		t.Errorf("the longest list: %d bytes, %v", len(b), err)
	}
}

func FuzzRevocations(f *testing.F) {
	b, err := identity.Revocations{{Name: "a", At: 1}, {Name: "b", At: 2, Reason: "why"}}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa2, 1, 1, 2, 0x9a, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := identity.ParseRevocations(b)
		if err != nil {
			if !errors.Is(err, identity.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if again, err := l.Encode(); err != nil || string(again) != string(b) {
			t.Fatalf("%x, %v", again, err)
		}
	})
}
