package dht

import (
	"context"

	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
)

// NewNode makes the node that Run would run.
func NewNode(cfg Config) (*kad.IpfsDHT, error) {
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	r, err := s.begin(nil, nil)
	if err != nil {
		return nil, err
	}
	return r.node, nil
}

// Announce announces a node of the site once.
func Announce(ctx context.Context, node *kad.IpfsDHT, site [32]byte) error {
	return announce(ctx, node, siteCID(site))
}

// Search looks for the devices of the site once.
func Search(ctx context.Context, node *kad.IpfsDHT, site [32]byte, fn func(peer.AddrInfo) bool) error {
	return search(ctx, node, siteCID(site), fn)
}
