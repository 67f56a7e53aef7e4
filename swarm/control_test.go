package swarm

import (
	"bufio"
	"bytes"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm/wire"
)

// TestConsentComesLast: a consent says that what this device has was told before, however many batches that takes; what
// else there is to say of the lease waits for nothing.
func TestConsentComesLast(t *testing.T) {
	const objects, blobs = 600, 256
	s := &Swarm{start: time.Now(), members: map[peer.ID]*member{}, objects: map[[32]byte]*object{}}
	m := &member{id: "m", shares: map[[32]byte]*share{}, controlWake: make(chan struct{}, 1)}
	for k := range objects {
		obj := &object{Object: Object{ID: [32]byte{byte(k), byte(k >> 8)}, Sums: make([][32]byte, blobs), Sizes: make([]uint32, blobs)}, have: newBitmap(blobs)}
		obj.have.set(k % blobs)
		obj.n = 1
		s.attachLocked(m, obj)
	}
	m.leases = []wire.Lease{{Kind: wire.LeaseWant}, {Kind: wire.LeaseConsent, Epoch: 1}}
	told, wanted, consented := 0, 0, 0
	for b := s.appendControlLocked(m, nil); len(b) > 0; b = s.appendControlLocked(m, nil) {
		for r := bufio.NewReader(bytes.NewReader(b)); ; {
			typ, body, err := wire.ReadFrame(r, wire.MaxFrame, make([]byte, 1<<10))
			if err != nil {
				break
			}
			switch typ {
			case wire.TypeInterest:
				told++
			case wire.TypeLease:
				l, err := wire.ParseLease(body)
				if err != nil {
					t.Fatal(err)
				}
				if l.Kind == wire.LeaseConsent {
					consented = told
				} else {
					wanted = told
				}
			}
		}
	}
	if told != objects || consented != objects || wanted == 0 || wanted == objects {
		t.Errorf("%d of %d objects were told, %d before the consent, %d before the wish", told, objects, consented, wanted)
	}
}
