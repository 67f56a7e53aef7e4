package node

import (
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"updraft/discovery"
	"updraft/discovery/dht"
	"updraft/discovery/mdns"
)

// sources returns what finds the other devices of the site.
func (n *Node) sources() ([]discovery.Source, error) {
	var out []discovery.Source
	static, err := peers(append(append([]string(nil), n.enr.Peers...), n.cfg.Peers...))
	if err != nil {
		return nil, err
	}
	if len(static) > 0 {
		out = append(out, discovery.Static(static))
	}
	if n.cfg.MDNS {
		out = append(out, mdns.New(mdns.Config{SiteKey: n.enr.SiteKey, Interfaces: n.cfg.Interfaces, Log: n.log,
			Elsewhere: listensElsewhere(n.cfg.Listen),
			Report:    func(err error) { n.problem(problemMulticast, "multicast", err) },
			Changed:   n.netChanged}))
	}
	if n.cfg.DHT {
		boot, err := peers(append(append([]string(nil), n.enr.Bootstrap...), n.cfg.Bootstrap...))
		if err != nil {
			return nil, err
		}
		d, err := dht.New(dht.Config{Host: n.host, SiteKey: n.enr.SiteKey, Bootstrap: boot, Log: n.log,
			Admitted:   n.admitted,
			Remembered: n.known,
			Report:     func(err error) { n.problem(problemDHT, "dht", err) }})
		if err != nil {
			return nil, fmt.Errorf("node: %w", err)
		}
		out = append(out, d)
	}
	return out, nil
}

// listensElsewhere reports whether one of the multiaddrs is not of loopback.
func listensElsewhere(addrs []string) bool {
	return slices.ContainsFunc(addrs, func(a string) bool {
		m, err := multiaddr.NewMultiaddr(a)
		return err == nil && !manet.IsIPLoopback(m)
	})
}

func (n *Node) admitted(id peer.ID) bool {
	for _, m := range n.sw.Members() {
		if m.ID == id {
			return true
		}
	}
	return false
}

// known returns the devices that discovery knows by now.
func (n *Node) known() []peer.AddrInfo {
	if n.table == nil {
		return nil
	}
	return n.table.Peers()
}

// peers parses multiaddrs that end in /p2p/ID.
func peers(addrs []string) ([]peer.AddrInfo, error) {
	var out []peer.AddrInfo
	for _, s := range addrs {
		ai, err := peer.AddrInfoFromString(s)
		if err != nil {
			return nil, fmt.Errorf("%w: peer %q is not a multiaddr with /p2p/ID: %w", ErrConfig, s, err)
		}
		out = append(out, *ai)
	}
	return out, nil
}
