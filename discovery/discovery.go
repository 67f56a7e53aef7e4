// Package discovery says who else is on the site.
//
// A [Source] is one way of learning it: multicast DNS (package mdns), a private
// Kademlia (package dht), or a fixed list ([Static]). Each tells what it learns
// as a stream of [Event]; a [Table] runs the sources, merges their words about
// the same peer, lets the words that are not repeated expire, and passes the
// outcome on to one listener, in order and one at a time.
//
// What is guaranteed, and what is not:
//
//   - An event is a hint: "this peer may be reached there". Nothing here proves
//     that the peer exists, is alive or belongs to the fleet; that is found out
//     by connecting to it. A peer that discovery gives up may well be connected.
//   - What the network says is bounded: peers, addresses per peer, and the
//     length of an address have limits, and what exceeds them is dropped.
//   - Sources fail softly: a source that ends with an error is started again
//     after a pause that doubles from one second to a minute, and the others go
//     on meanwhile.
//   - Constructors start nothing. Run owns every goroutine it starts and returns
//     after the last one has ended.
package discovery

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Event is one source's word about one peer.
type Event struct {
	// Peer names the peer and all addresses at which this source believes it to
	// be reachable; they replace what the source said before. Empty when Gone.
	Peer peer.AddrInfo
	// Source is the name of the source; in what a Table passes on, the names of
	// all sources that know the peer, sorted and joined by commas.
	Source string
	// Gone takes the source's earlier word back.
	Gone bool
	// TTL is how long the word holds unless it is repeated; zero: until Gone.
	TTL time.Duration
	// Wanted says that somebody waits for a connection with the peer: the word is
	// passed on though nothing in it is new.
	Wanted bool
}

// Source finds peers.
type Source interface {
	// Name is short, constant and unique among the sources of a Table.
	Name() string
	// Run finds peers and sends an event for each new peer, each change of its
	// addresses, and each peer that has left, until ctx ends. It calls self, from
	// any goroutine and often, for the identity and the current addresses of this
	// device, and never sends an event about this device. It returns nil when ctx
	// has ended, and an error only when the source cannot go on by itself; a
	// degraded network is not such an error. It returns after the last goroutine
	// that it started has ended, and does not close events.
	Run(ctx context.Context, self func() peer.AddrInfo, events chan<- Event) error
}

// Static is a source of peers known beforehand, such as those of the
// configuration. It names them once and never takes them back. Entries with the
// same ID are joined, this device itself is left out. The name is "static".
func Static(peers []peer.AddrInfo) Source {
	return static(mergeInfos(peers))
}

type static []peer.AddrInfo

func (static) Name() string { return "static" }

func (s static) Run(ctx context.Context, self func() peer.AddrInfo, events chan<- Event) error {
	me := self().ID
	for _, p := range s {
		if p.ID == me {
			continue
		}
		select {
		case events <- Event{Peer: p, Source: s.Name()}:
		case <-ctx.Done():
			return nil
		}
	}
	<-ctx.Done()
	return nil
}

// mergeInfos joins entries of the same peer, in order of first appearance, and
// copies what it keeps.
func mergeInfos(peers []peer.AddrInfo) []peer.AddrInfo {
	index := make(map[peer.ID]int, len(peers))
	var out []peer.AddrInfo
	for _, p := range peers {
		i, ok := index[p.ID]
		if !ok {
			i = len(out)
			index[p.ID] = i
			out = append(out, peer.AddrInfo{ID: p.ID})
		}
		out[i].Addrs = appendAddrs(out[i].Addrs, p.Addrs)
	}
	return out
}
