package discovery_test

import (
	"context"
	"fmt"

	"updraft/discovery"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// A table with one source: peers named in the configuration.
func ExampleTable() {
	addr, err := ma.NewMultiaddr("/ip4/10.0.0.7/tcp/4001")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	table := discovery.NewTable(discovery.TableConfig{Notify: func(ev discovery.Event) {
		fmt.Println(string(ev.Peer.ID), ev.Peer.Addrs, ev.Source, ev.Gone)
		cancel()
	}})
	self := func() peer.AddrInfo { return peer.AddrInfo{ID: "me"} }
	static := discovery.Static([]peer.AddrInfo{{ID: "gateway", Addrs: []ma.Multiaddr{addr}}})
	if err := table.Run(ctx, self, static); err != nil {
		fmt.Println(err)
	}
	// Output: gateway [/ip4/10.0.0.7/tcp/4001] static false
}
