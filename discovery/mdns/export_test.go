package mdns

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// LookEvery has the source look at the interfaces so often, besides when the kernel tells
// of a change.
func (s *Source) LookEvery(d time.Duration) { s.watch = d }

// Card returns the name and the record of a device's registration at a time.
func Card(key [32]byte, at time.Time, id peer.ID, addrs []ma.Multiaddr) (name string, text []string, err error) {
	name = newNonce(nextNumber(at, 0))
	text, err = newCard(key, name, id, addrs).encode()
	return name, text, err
}
