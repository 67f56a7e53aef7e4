package mdns

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

var errNoAddress = errors.New("this device listens on no address that others could reach")

const (
	randomBits = 20 // of a nonce, behind the number
	maxNumber  = 1<<(64-randomBits) - 1
)

// ordered is base32 in whose alphabet a greater value is the greater string.
var ordered = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// newNonce returns the name of a registration: its number, then random bits.
func newNonce(number uint64) string {
	b := make([]byte, 8)
	rand.Read(b) // never fails
	binary.BigEndian.PutUint64(b, number<<randomBits|binary.BigEndian.Uint64(b)>>(64-randomBits))
	return ordered.EncodeToString(b)
}

// numberOf returns the number in a name that newNonce made.
func numberOf(nonce string) (number uint64, ok bool) {
	b, err := ordered.DecodeString(nonce)
	if err != nil || len(b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b) >> randomBits, true
}

// nextNumber returns the number of a registration that is made now: milliseconds of
// the wall clock, but more than any number of this device that is known.
func nextNumber(now time.Time, known uint64) uint64 {
	return min(max(uint64(max(now.UnixMilli(), 0)), known+1), maxNumber)
}

// announceable picks the addresses to announce on the chosen interfaces, at most
// maxAddrs, TCP and IPv4 first. Addresses of the host's other interfaces are left
// out: nobody on the chosen ones can reach them, or worse, somebody else has the
// same (as the bridges of container engines do). Loopback addresses are announced
// on loopback only, and there they are preferred.
func announceable(addrs []ma.Multiaddr, all, chosen []iface) []ma.Multiaddr {
	here, elsewhere := make(map[netip.Addr]bool), make(map[netip.Addr]bool)
	onLoopback := len(chosen) > 0
	for _, i := range all {
		for _, a := range i.addrs {
			elsewhere[a] = true
		}
	}
	for _, i := range chosen {
		onLoopback = onLoopback && i.loopback()
		for _, a := range i.addrs {
			here[a] = true
		}
	}
	var out, other []ma.Multiaddr
	for _, a := range addrs {
		ip, _, ok := split(a)
		if !ok || ip.IsUnspecified() || ip.IsMulticast() || slices.ContainsFunc(out, a.Equal) {
			continue
		}
		switch {
		case ip.IsLoopback() && onLoopback:
			out = append(out, a)
		case ip.IsLoopback():
		case onLoopback:
			other = append(other, a)
		case here[ip] || !elsewhere[ip]:
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		out = other
	}
	slices.SortFunc(out, func(a, b ma.Multiaddr) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), bytes.Compare(a.Bytes(), b.Bytes()))
	})
	return out[:min(len(out), maxAddrs)]
}

// rank orders addresses: TCP before QUIC, IPv4 before IPv6.
func rank(a ma.Multiaddr) int {
	r := 0
	if a[1].Protocol().Code != ma.P_TCP {
		r += 2
	}
	if a[0].Protocol().Code != ma.P_IP4 {
		r++
	}
	return r
}

// onlyLoopback reports whether a device listens on loopback addresses and no others.
func onlyLoopback(addrs []ma.Multiaddr) bool {
	found := false
	for _, a := range addrs {
		ip, _, ok := split(a)
		if ok && !ip.IsLoopback() {
			return false
		}
		found = found || ok
	}
	return found
}
