package mdns

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"sort"
	"strings"
)

// maxIfaces bounds the interfaces that are joined; Linux allows 20 memberships
// per socket (net.ipv4.igmp_max_memberships).
const maxIfaces = 16

// maxListed bounds the interfaces that are looked at, in the order of their
// making: hosts with hundreds are hosts of containers, and each costs a request.
const maxListed = 128

// iface is a network interface with its addresses as they were when looked at.
type iface struct {
	net.Interface
	addrs []netip.Addr // unzoned
}

func (i iface) loopback() bool { return i.Flags&net.FlagLoopback != 0 }

// has reports whether the interface has an address of a family.
func (i iface) has(six bool) bool {
	return slices.ContainsFunc(i.addrs, func(a netip.Addr) bool { return a.Is6() == six })
}

// usable reports whether the interface is up, has carrier and takes part in
// multicast. Loopback interfaces pass without the multicast flag: Linux does not
// set it on lo, yet delivers IPv4 multicast there.
func (i iface) usable() bool {
	const up = net.FlagUp | net.FlagRunning
	return i.Flags&up == up && len(i.addrs) > 0 && (i.loopback() || i.Flags&net.FlagMulticast != 0)
}

// linkLocal is the preference of an interface with link-local IPv6 only.
const linkLocal = 2

// preference orders interfaces when there are too many: those with IPv4, then
// those with a routable IPv6 address, then those with a link-local one, which
// are often the host's ends of containers.
func (i iface) preference() int {
	best := linkLocal
	for _, a := range i.addrs {
		switch {
		case a.Is4() && !a.IsLinkLocalUnicast():
			return 0
		case !a.IsLinkLocalUnicast():
			best = min(best, 1)
		}
	}
	return best
}

// listIfaces returns all interfaces of the host. An interface that vanishes
// meanwhile is left out.
func listIfaces() ([]iface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	out := make([]iface, 0, len(all))
	for _, n := range all[:min(len(all), maxListed)] {
		addrs, err := n.Addrs()
		if err != nil {
			continue
		}
		i := iface{Interface: n}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				i.addrs = append(i.addrs, p.Addr().Unmap())
			}
		}
		sort.Slice(i.addrs, func(j, k int) bool { return i.addrs[j].Less(i.addrs[k]) })
		out = append(out, i)
	}
	return out, nil
}

// choose picks the interfaces to join. patterns (path.Match) decide when given.
// Otherwise: every usable interface, loopback last; loopback alone if the device
// listens on loopback only, since nobody else could reach it then. Loopback is
// joined besides others so that agents on one machine find each other even if
// the network drops multicast. Interfaces with link-local IPv6 only are used if
// there are no others: libp2p does not listen on such addresses by name.
func choose(all []iface, patterns []string, onlyLoopback bool) []iface {
	var out, loop []iface
	for _, i := range all {
		switch {
		case !i.usable():
		case len(patterns) > 0:
			if matches(patterns, i.Name) {
				out = append(out, i)
			}
		case i.loopback():
			loop = append(loop, i)
		case !onlyLoopback:
			out = append(out, i)
		}
	}
	if len(patterns) == 0 && slices.ContainsFunc(out, func(i iface) bool { return i.preference() < linkLocal }) {
		out = slices.DeleteFunc(out, func(i iface) bool { return i.preference() == linkLocal })
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].preference() < out[j].preference() })
	return append(out[:min(len(out), maxIfaces)], loop...)
}

// lans is how many of the interfaces are not loopback.
func lans(ifaces []iface) (n int) {
	for _, i := range ifaces {
		if !i.loopback() {
			n++
		}
	}
	return n
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// links changes when an interface comes, goes, or gets or loses its carrier.
func links(all []iface) string {
	var b strings.Builder
	for _, i := range all {
		fmt.Fprintf(&b, "%d %v\n", i.Index, i.Flags)
	}
	return b.String()
}

// fingerprint changes when sockets and registrations on these interfaces have to
// be made anew: index (deleted and recreated), carrier, addresses.
func fingerprint(ifaces []iface) string {
	var b strings.Builder
	for _, i := range ifaces {
		fmt.Fprintf(&b, "%d %s %v %v\n", i.Index, i.Name, i.Flags, i.addrs)
	}
	return b.String()
}
