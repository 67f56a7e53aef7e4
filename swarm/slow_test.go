package swarm_test

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"updraft/swarm"
	"updraft/swarm/wire"
)

// TestTrickle has a member send one blob a few bytes at a time, and answer to everything. Below a pace it is dropped; above
// that it may go on, but for what it sends so slowly nobody waits for long.
func TestTrickle(t *testing.T) {
	for _, x := range []struct {
		rate    int // bytes a second
		waited  time.Duration
		dropped bool
	}{{64, 5 * time.Second, true}, {2 << 10, 80 * time.Second, false}} {
		hostile(t, func(t *testing.T, s *site, _ content, p *raw) {
			c := makeContent(12, 1, 256<<10)
			if err := s.dev[0].Open(c.Object, c.empty(), swarm.OpenOptions{Receive: true}); err != nil {
				t.Fatal(err)
			}
			p.join()
			p.send(wire.AppendInterest(nil, wire.Interest{ID: c.ID, Count: 1, Flags: wire.FlagAll}))
			st, err := p.h.NewStream(t.Context(), p.to, swarm.ProtoBlob)
			if err != nil {
				t.Fatal(err)
			}
			begun, waited := time.Now(), time.Duration(0)
			_, err = st.Write(wire.AppendBlobHeader(nil, wire.BlobHeader{ID: c.ID, Len: c.Sizes[0]}))
			for k := 0; err == nil && p.h.Network().Connectedness(p.to) == network.Connected && k+x.rate < len(c.data[0]); k += x.rate {
				_, err = st.Write(c.data[0][k : k+x.rate])
				_, _ = p.control.Write(wire.AppendFrame(nil, wire.TypePong, nil))
				time.Sleep(time.Second)
				if len(s.dev[0].Missing(c.ID)) == 0 && waited == time.Since(begun)-time.Second {
					waited = time.Since(begun)
				}
			}
			d := time.Since(begun)
			if dropped := p.h.Network().Connectedness(p.to) != network.Connected; dropped != x.dropped || d > time.Minute && dropped {
				t.Errorf("%d bytes a second: dropped %v after %v", x.rate, dropped, d)
			}
			if waited > x.waited+2*time.Second || waited < x.waited/2 {
				t.Errorf("%d bytes a second: waited for %v", x.rate, waited)
			}
		})
	}
}
