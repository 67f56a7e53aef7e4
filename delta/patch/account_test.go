package patch_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"updraft/delta/patch"
)

// costs decodes p and returns what its output takes, which together is all that segments have.
func costs(t *testing.T, p, old []byte) []patch.Cost {
	t.Helper()
	var all []patch.Cost
	in, err := patch.Decode(t.Context(), bytes.NewReader(p), bytes.NewReader(old), io.Discard, patch.DecodeOptions{Account: func(c patch.Cost) { all = append(all, c) }})
	if err != nil {
		t.Fatal(err)
	}
	sum, end := in.HeaderBytes, int64(0)
	for i, c := range all {
		sum += c.Bytes
		if same := i > 0 && c.Off == all[i-1].Off && c.Size == all[i-1].Size; !same && c.Off < end || c.Bytes <= 0 || c.Off+c.Size > in.NewSize {
			t.Errorf("%+v behind %d", c, end)
		}
		end = c.Off + c.Size
	}
	if sum != int64(len(p)) {
		t.Errorf("%d bytes are told of, the patch has %d", sum, len(p))
	}
	return all
}

// TestAccount: of every kind of patch it is told what all of its bytes are for, and where.
func TestAccount(t *testing.T) {
	if underRace {
		t.Skip("one goroutine: nothing for the race detector; runs without it")
	}
	r := rand.New(rand.NewPCG(5, 40))
	old := slices.Concat(random(r, 300<<10), text(r, 60<<10))
	fresh := slices.Concat(old[:200<<10], random(r, 20<<10), old[200<<10:])
	fresh[100] ^= 1 // a residual
	copy(fresh[290<<10:], random(r, 3<<10))
	for _, profile := range []patch.Profile{patch.Plain, patch.Dense} {
		by := map[patch.Part]int64{}
		for _, c := range costs(t, create(t, old, fresh, patch.Options{Profile: profile}), old) {
			by[c.Part] += c.Bytes
			if c.Bytes > 20 && (c.Off < 200<<10 || c.Off+c.Size > 220<<10) && (c.Off < 289<<10 || c.Off+c.Size > 294<<10) {
				t.Errorf("%v: %+v", profile, c)
			}
		}
		if by[patch.Literals] < 20<<10 || by[patch.Literals] > 25<<10 || by[patch.Residual] == 0 || by[patch.Copies] == 0 || by[patch.Parses] != 0 {
			t.Errorf("%v: %v", profile, by)
		}
	}
	a, b := program(183, nil), program(183, map[int]bool{7: true})
	costs(t, create(t, a, b, patch.Options{Profile: patch.Dense}), a)
	p, old, _ := unpackPatch(t)
	costs(t, p, old)
	p, old, _ = squashPatch(t)
	parses := int64(0)
	for _, c := range costs(t, p, old) {
		if c.Part == patch.Parses {
			parses += c.Bytes
		}
	}
	if parses == 0 {
		t.Error("parses take nothing")
	}
}
