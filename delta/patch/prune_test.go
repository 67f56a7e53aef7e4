package patch

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestPrune: a short cover from far away goes where literals are cheaper, moves where
// its bytes are nearby, and stays where its bytes are dear; a long one always stays.
func TestPrune(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	dear := make([]byte, 1<<20)
	for i := range dear {
		dear[i] = byte(rnd.Uint32())
	}
	old := bytes.Clone(dear)
	copy(old[900_000:], "aaaaaaaaaaaaaaaa")
	copy(old[30_000:], dear[700_000:700_040])
	fresh := bytes.Clone(old[:60_000])
	fresh = append(fresh, bytes.Repeat([]byte("a"), 500)...)
	at := len(fresh)
	fresh = append(fresh, old[900_000:900_016]...)
	fresh = append(fresh, old[200_000:200_020]...)
	fresh = append(fresh, old[20_000:30_000]...)
	fresh = append(fresh, old[700_000:700_040]...)
	fresh = append(fresh, old[500_000:500_048]...)
	cs := []cover{{0, 0, 60_000}, {at, 900_000, 16}, {at + 16, 200_000, 20}, {at + 36, 20_000, 10_000}, {at + 10_036, 700_000, 40}, {at + 10_076, 500_000, 48}}
	want := []cover{cs[0], cs[2], cs[3], {at + 10_036, 30_000, 40}, cs[5]}
	got, err := prune(old, bytes.NewReader(fresh), cs)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("covers %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("cover %d is %v, want %v", i, got[i], want[i])
		}
	}
}

// TestPruneUnreadable: what cannot be read is an error.
func TestPruneUnreadable(t *testing.T) {
	if _, err := prune(make([]byte, 100), bytes.NewReader(make([]byte, 20)), []cover{{n: 10, l: 20}}); err == nil {
		t.Error("no error")
	}
}

// TestGuess: bytes that came before take less than those that did not.
func TestGuess(t *testing.T) {
	b := bytes.Repeat([]byte("one and another "), 8)
	b = append(b, "q7#xK!vv0Zp_+w?m"...)
	g := newGuess(bytes.NewReader(b))
	if err := g.learn(0, 64); err != nil {
		t.Fatal(err)
	}
	known, _ := g.bits(64, 80)
	other, _ := g.bits(128, 144)
	if known <= 0 || known > other/2 {
		t.Errorf("known bytes take %d, others %d sixteenths of a bit", known, other)
	}
}
