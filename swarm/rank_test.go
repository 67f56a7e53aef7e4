package swarm_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm"
	"updraft/swarm/lease"
	"updraft/swarm/wire"
)

// TestGatewayRankNeedsCredential has a member claim the rank of a gateway, in its profile, in its lease messages and in
// a rumor about itself, while another device, longer up, wants the uplink.
func TestGatewayRankNeedsCredential(t *testing.T) {
	for _, may := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, 1, func(c *swarm.Config) {
				c.Admit = func(peer.ID, []byte) (swarm.Identity, error) { return swarm.Identity{Name: "x", Gateway: may}, nil }
			})
			defer s.close()
			d := s.dev[0]
			if err := d.Announce(swarm.Profile{Rank: lease.Rank{Up: 1000}}); err != nil {
				t.Fatal(err)
			}
			p := s.raw(d)
			defer p.h.Close()
			p.join()
			p.send(wire.AppendProfile(nil, wire.Profile{Rank: wire.Rank{Gateway: true}}))
			eventually(t, d, "its profile", func() bool { m := d.Members(); return len(m) == 1 && m[0].Profile.Rank.Gateway == may })

			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := d.Acquire(ctx, swarm.AcquireOptions{})
				done <- err
			}()
			time.Sleep(20 * time.Millisecond) // it waits its turn
			p.send(wire.AppendLease(nil, wire.Lease{Kind: wire.LeaseClaim, Epoch: 1, Rank: wire.Rank{Gateway: true}}))
			want := wire.LeaseObject
			if may {
				want = wire.LeaseConsent
			}
			if got := p.verdictOnClaim(); got != want {
				t.Errorf("may rank as a gateway: %v; the claim is answered by %d, want %d", may, got, want)
			}
			if !may { // it claims itself, and keeps what it then holds at an equal epoch
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				p.send(wire.AppendRumor(nil, wire.Rumor{Kind: wire.LeaseHeartbeat, Epoch: 2, Rank: wire.Rank{Gateway: true}, Number: 1, Holder: string(p.h.ID())}))
				time.Sleep(50 * time.Millisecond)
				if id, ok := d.Holder(); !ok || id != d.host.ID() {
					t.Errorf("%s took the lease", id)
				}
			}
			cancel()
		})
	}
}

// verdictOnClaim reads until the other side objects or consents.
func (p *raw) verdictOnClaim() wire.LeaseKind {
	p.t.Helper()
	for {
		typ, body, err := wire.ReadFrame(p.r, wire.MaxFrame, nil)
		if err != nil {
			p.t.Fatal(err)
		}
		if typ != wire.TypeLease {
			continue
		}
		l, err := wire.ParseLease(body)
		if err != nil {
			p.t.Fatal(err)
		}
		if l.Kind == wire.LeaseObject || l.Kind == wire.LeaseConsent {
			return l.Kind
		}
	}
}

// TestProfileComesWithTheHandshake: a device that has nothing to share says who it is as soon as one that has.
func TestProfileComesWithTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, nil)
		defer s.close()
		if err := s.dev[0].Announce(swarm.Profile{Node: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // nothing else wakes it
		p := s.raw(s.dev[0])
		defer p.h.Close()
		p.join()
		begin := time.Now()
		if typ, _, err := wire.ReadFrame(p.r, wire.MaxFrame, nil); err != nil || typ != wire.TypeProfile || time.Since(begin) > 100*time.Millisecond {
			t.Errorf("message of type %d, %v, after %v", typ, err, time.Since(begin))
		}
	})
}
