package mdns

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// testPeer returns the peer ID of a key made from n.
func testPeer(t testing.TB, n byte) peer.ID {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	pub, err := crypto.UnmarshalEd25519PublicKey(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func testAddrs(t testing.TB, texts ...string) []ma.Multiaddr {
	t.Helper()
	var out []ma.Multiaddr
	for _, s := range texts {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

func texts(addrs []ma.Multiaddr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// The record is part of the protocol: devices of other versions read it.
func TestCardVector(t *testing.T) {
	var key [32]byte
	for i := range key {
		key[i] = byte(i)
	}
	id := testPeer(t, 1)
	c := newCard(key, "abcdefghijklm", id, testAddrs(t, "/ip4/10.0.0.1/tcp/4001", "/ip6/fd00::1/udp/4001/quic-v1"))
	got, err := c.encode()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"n=abcdefghijklm",
		"t=zxec4jytpoitbhnxbgm6t7l2tn",
		"p=12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X",
		"a=ip4/10.0.0.1/tcp/4001",
		"a=ip6/fd00::1/udp/4001/quic-v1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	back, err := parseCard(got)
	if err != nil || back.peer != id || back.nonce != c.nonce || !same(back.addrs, c.addrs) {
		t.Errorf("back: %+v, %v", back, err)
	}
	if err := back.verify(key); err != nil {
		t.Error(err)
	}
	key[31]++
	if err := back.verify(key); !errors.Is(err, errForeign) {
		t.Errorf("another site's key: %v", err)
	}
	key[31]--
	for _, change := range []func(*card){
		func(c *card) { c.peer = testPeer(t, 2) },
		func(c *card) { c.nonce = "abcdefghijkln" },
		func(c *card) { c.tag = strings.Repeat("a", tagLen) },
		func(c *card) { c.texts = c.texts[:1] },
		func(c *card) { c.texts = append(c.texts, "ip4/10.0.0.9/tcp/4001") },
		func(c *card) { c.texts = []string{c.texts[0] + c.texts[1]} },
	} {
		bad := back
		bad.texts = slices.Clone(back.texts)
		change(&bad)
		if err := bad.verify(key); !errors.Is(err, errForeign) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestNames: a later registration has the greater name, whatever the clock says.
func TestNames(t *testing.T) {
	if got := newNonce(1_800_000_000_000); len(got) != 13 || !strings.HasPrefix(got, "38oobh80") {
		t.Errorf("name %s", got)
	}
	known, last := uint64(0), ""
	for _, at := range []int64{-5, 0, 1000, 1000, 1_800_000_000, 30, 31, 1 << 40} {
		number := nextNumber(time.Unix(at, 0), known)
		name := newNonce(number)
		if got, ok := numberOf(name); !ok || got != number || number <= known || name <= last {
			t.Errorf("at %d: number %d after %d, name %s after %s, read as %d", at, number, known, name, last, got)
		}
		if at > 1e12 && number != maxNumber {
			t.Errorf("at %d: number %d", at, number)
		}
		if _, ok := instanceOf(name + "." + serviceName); !ok {
			t.Errorf("%s is no instance", name)
		}
		known, last = number, name
	}
	if got := nextNumber(time.Unix(1, 0), known); got != maxNumber {
		t.Errorf("beyond the greatest number: %d", got)
	}
	for _, name := range []string{"", "abc", "zzzzzzzzzzzzz", "00000000000000000000"} {
		if n, ok := numberOf(name); ok {
			t.Errorf("%q has the number %d", name, n)
		}
	}
}

func TestCardTooLarge(t *testing.T) {
	c := card{nonce: strings.Repeat("n", 300), peer: testPeer(t, 1)}
	if _, err := c.encode(); !errors.Is(err, errMalformed) {
		t.Errorf("string of 302 bytes: %v", err)
	}
	c = card{nonce: "n", peer: testPeer(t, 1), addrs: make([]ma.Multiaddr, maxAddrs+1)}
	if _, err := c.encode(); !errors.Is(err, errMalformed) {
		t.Errorf("nine addresses: %v", err)
	}
}

func TestParseCard(t *testing.T) {
	id := testPeer(t, 1).String()
	tag := strings.Repeat("t", tagLen)
	good := []string{"n=abc", "t=" + tag, "p=" + id}
	for name, c := range map[string]struct {
		text  []string
		addrs []string
		bad   bool
	}{
		"plain":              {text: good},
		"unknown keys":       {text: append([]string{"v=2", "flag", "", "="}, good...)},
		"upper case keys":    {text: []string{"N=abc", "T=" + tag, "P=" + id}},
		"first counts":       {text: append(slices.Clone(good), "p=junk", "n=")},
		"addresses":          {text: append(slices.Clone(good), "a=ip4/1.2.3.4/tcp/5", "a=ip4/1.2.3.4/tcp/5"), addrs: []string{"/ip4/1.2.3.4/tcp/5"}},
		"of a later version": {text: append(slices.Clone(good), "a=ip4/1.2.3.4/tcp/5", "a=carrier-pigeon/7"), addrs: []string{"/ip4/1.2.3.4/tcp/5"}},
		"names are no IPs":   {text: append(slices.Clone(good), "a=dns4/evil.example/tcp/5", "a=ip4/1.2.3.4/tcp/5/ws", "a=ip4/1.2.3.4", "a=junk", "a=", "a=/", "a=unix/x")},
		"relays are no IPs":  {text: append(slices.Clone(good), "a=ip4/1.2.3.4/tcp/5/p2p/"+id+"/p2p-circuit")},
		"nothing":            {text: nil, bad: true},
		"no peer":            {text: good[:2], bad: true},
		"no tag":             {text: []string{good[0], good[2]}, bad: true},
		"short tag":          {text: []string{good[0], "t=abc", good[2]}, bad: true},
		"no nonce":           {text: good[1:], bad: true},
		"long nonce":         {text: []string{"n=" + strings.Repeat("n", maxNonce+1), good[1], good[2]}, bad: true},
		"bad peer":           {text: []string{good[0], good[1], "p=12D3KooWjunk"}, bad: true},
		"peer without key":   {text: []string{good[0], good[1], "p=QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"}, bad: true},
		"long peer":          {text: []string{good[0], good[1], "p=" + strings.Repeat("1", 200)}, bad: true},
		"beyond the limit":   {text: append(make([]string, maxStrings), good...), bad: true},
	} {
		got, err := parseCard(c.text)
		if (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
		if c.bad && !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v does not wrap errMalformed", name, err)
		}
		if !slices.Equal(texts(got.addrs), c.addrs) {
			t.Errorf("%s: addresses %v", name, got.addrs)
		}
	}
}

// FuzzCard: what parses is within the limits, and says the same when encoded and
// parsed again. The strings of the record are separated by newlines.
func FuzzCard(f *testing.F) {
	f.Add("n=abc\nt=" + strings.Repeat("t", tagLen) + "\np=" + testPeer(f, 1).String() + "\na=ip4/10.0.0.1/tcp/4001")
	f.Add("n=\nt=\np=\na=ip6zone/eth0/ip6/fe80::1/tcp/1")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCard(strings.Split(s, "\n"))
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatal(err)
			}
			return
		}
		if c.peer == "" || len(c.addrs) > maxAddrs || c.peer.Validate() != nil {
			t.Fatalf("%+v", c)
		}
		for _, a := range c.addrs {
			if _, _, ok := split(a); !ok {
				t.Fatalf("address %v", a)
			}
		}
		out, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseCard(out)
		if err != nil || back.peer != c.peer || back.tag != c.tag || back.nonce != c.nonce || !same(back.addrs, c.addrs) {
			t.Fatalf("%+v\n%+v\n%v", c, back, err)
		}
	})
}
