package mdns

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	tagLen     = 26  // characters: 130 bits
	maxNonce   = 32  // characters that are accepted
	maxPeerID  = 100 // characters of a peer ID that are accepted
	maxString  = 255 // bytes of one TXT string (RFC 1035)
	maxStrings = 24  // TXT strings that are looked at
	maxAddrs   = 8   // addresses announced and accepted per device
)

var (
	errMalformed = errors.New("malformed TXT record")
	errForeign   = errors.New("tag of another site")
)

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// card is what a TXT record says.
type card struct {
	nonce string
	tag   string
	peer  peer.ID
	texts []string       // where the device can be dialled, as the record says it
	addrs []ma.Multiaddr // those of them that this version understands
}

// newCard makes the card of one registration.
func newCard(key [32]byte, nonce string, id peer.ID, addrs []ma.Multiaddr) card {
	c := card{nonce: nonce, peer: id, addrs: addrs}
	for _, a := range addrs {
		c.texts = append(c.texts, strings.TrimPrefix(a.String(), "/"))
	}
	c.tag = c.siteTag(key)
	return c
}

// siteTag binds all that the card says to the site key: who does not have the key
// can neither make a tag, nor tell which site it is for, nor have it say another
// address.
func (c card) siteTag(key [32]byte) string {
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(c.nonce))
	mac.Write([]byte(c.peer))
	for _, a := range c.texts {
		mac.Write([]byte{byte(len(a))}) // a string of a TXT record has at most 255 bytes
		mac.Write([]byte(a))
	}
	return encoding.EncodeToString(mac.Sum(nil))[:tagLen]
}

// encode returns the strings of the TXT record, each of 1 to 255 bytes. It fails
// when a peer ID or address does not fit.
func (c card) encode() ([]string, error) {
	out := []string{"n=" + c.nonce, "t=" + c.tag, "p=" + c.peer.String()}
	if len(c.addrs) > maxAddrs {
		return nil, fmt.Errorf("%w: %d addresses", errMalformed, len(c.addrs))
	}
	for _, a := range c.texts {
		out = append(out, "a="+a)
	}
	for _, s := range out {
		if len(s) > maxString {
			return nil, fmt.Errorf("%w: string of %d bytes", errMalformed, len(s))
		}
	}
	return out, nil
}

// parseCard reads a TXT record. Unknown keys are skipped, so that later versions
// can add some; of a key given twice the first counts (RFC 6763, 6.4), except
// for a=. Addresses that do not parse are skipped too: they may be of a transport
// that this version does not know.
func parseCard(text []string) (card, error) {
	var c card
	seen := make(map[string]bool, 3)
	for _, s := range text[:min(len(text), maxStrings)] {
		key, value, ok := strings.Cut(s, "=")
		if !ok || len(s) > maxString {
			continue
		}
		key = strings.ToLower(key)
		if key == "a" {
			c.texts = append(c.texts, value)
			if a, ok := parseAddr(value); ok && len(c.addrs) < maxAddrs && !slices.ContainsFunc(c.addrs, a.Equal) {
				c.addrs = append(c.addrs, a)
			}
			continue
		}
		if seen[key] {
			continue
		}
		switch key {
		case "n":
			c.nonce = value
		case "t":
			c.tag = value
		case "p":
			if len(value) > maxPeerID {
				return card{}, fmt.Errorf("%w: peer ID of %d bytes", errMalformed, len(value))
			}
			id, err := peer.Decode(value)
			if err == nil {
				_, err = id.ExtractPublicKey() // device keys are Ed25519: the ID holds the key
			}
			if err != nil {
				return card{}, fmt.Errorf("%w: peer ID: %w", errMalformed, err)
			}
			c.peer = id
		default:
			continue
		}
		seen[key] = true
	}
	if c.peer == "" || len(c.tag) != tagLen || c.nonce == "" || len(c.nonce) > maxNonce {
		return card{}, fmt.Errorf("%w: n, t or p missing or of a wrong length", errMalformed)
	}
	return c, nil
}

// verify returns errForeign unless the tag was made with this site's key, for just
// this card.
func (c card) verify(key [32]byte) error {
	if !hmac.Equal([]byte(c.tag), []byte(c.siteTag(key))) {
		return errForeign
	}
	return nil
}

// parseAddr reads an address without its leading slash. Only plain IP transports
// with a port are taken: a device of the site is not behind a name or a relay.
func parseAddr(s string) (ma.Multiaddr, bool) {
	a, err := ma.NewMultiaddr("/" + s)
	if err != nil {
		return nil, false
	}
	_, _, ok := split(a)
	return a, ok
}

// plain reports whether an address is an IP and a TCP port, or an IP, a UDP port
// and QUIC: what devices of a site dial.
func plain(a ma.Multiaddr) bool {
	var codes []int
	for _, c := range a {
		codes = append(codes, c.Protocol().Code)
	}
	if len(codes) < 2 || codes[0] != ma.P_IP4 && codes[0] != ma.P_IP6 {
		return false
	}
	tcp := slices.Equal(codes[1:], []int{ma.P_TCP})
	return tcp || slices.Equal(codes[1:], []int{ma.P_UDP, ma.P_QUIC_V1})
}
