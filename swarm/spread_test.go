package swarm

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm/lease"
	"updraft/swarm/wire"
)

// deadConn is a connection on which nothing happens.
type deadConn struct{ network.Conn }

func (deadConn) Close() error { return nil }

// nothing is an object of which nothing is stored.
type nothing struct{}

func (nothing) Has(int) bool                    { return false }
func (nothing) Get(int, []byte) ([]byte, error) { return nil, errors.New("nothing is here") }
func (nothing) Put(int, []byte) error           { return nil }

// bare returns a swarm without a host, an object of n blobs that is open in it, and what members with these names are to
// each other about it: each receives it and has nothing.
func bare(t *testing.T, n int, names ...peer.ID) (*Swarm, *object, map[peer.ID]*share) {
	t.Helper()
	s := &Swarm{
		self: "me", start: time.Now().Add(-time.Minute), kick: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler), gate: new(Gate),
		members: map[peer.ID]*member{}, targets: map[peer.ID]*target{}, late: map[peer.ID]lateness{}, objects: map[[32]byte]*object{},
		changed: make(chan struct{}), rumors: map[string]heard{}, lease: lease.New("me", 0), ahead: pullFirst,
	}
	s.cfg.MaxPeers = DefaultMaxPeers
	for _, id := range names {
		s.members[id] = &member{
			id: id, conn: deadConn{}, gone: make(chan struct{}), heard: s.now(), shares: map[[32]byte]*share{},
			controlWake: make(chan struct{}, 1), sendWake: make(chan struct{}, 1),
		}
	}
	o := Object{ID: [32]byte{1}, Sums: make([][32]byte, n), Sizes: slices.Repeat([]uint32{9}, n)}
	if err := s.Open(o, nothing{}, OpenOptions{Receive: true}); err != nil {
		t.Fatal(err)
	}
	shares := map[peer.ID]*share{}
	for _, h := range s.objects[o.ID].shares {
		h.known, h.receive, h.count, h.bits = true, true, n, newBitmap(n)
		shares[h.m.id] = h
	}
	return s, s.objects[o.ID], shares
}

// TestWhatARelayLeavesGoesToAnother at once, whether the relay is gone or has closed the object.
func TestWhatARelayLeavesGoesToAnother(t *testing.T) {
	for what, leave := range map[string]func(*Swarm, *member, [32]byte){
		"is gone":  func(s *Swarm, m *member, _ [32]byte) { s.dropLocked(m, "killed") },
		"retracts": func(s *Swarm, m *member, id [32]byte) { s.retractLocked(m, id) },
	} {
		s, obj, _ := bare(t, 4, "a", "b", "c", "d")
		s.Inject(obj.ID, 0, nil)
		first := obj.pending[0]
		if first == nil {
			t.Fatal("no relay")
		}
		s.mu.Lock()
		leave(s, first.to.m, obj.ID)
		if d := obj.pending[0]; d == nil || d.to == first.to || obj.injectN > 0 {
			t.Errorf("the relay %s: %+v has the blob, %d wait", what, d, obj.injectN)
		}
		s.mu.Unlock()
	}
}

// TestEndGameIsPunctual: what is the last to be missing and has been awaited for pullEnd is asked for a second time then,
// not when something else wakes the loop.
func TestEndGameIsPunctual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, obj, shares := bare(t, 1, "a", "b")
		for _, h := range shares {
			h.bits.set(0)
			h.n++
			s.learnLocked(obj, 0, s.now())
		}
		ctx, cancel := context.WithCancel(t.Context())
		s.asleep = suspended
		go s.loop(ctx)
		defer cancel()
		asked := func() (first, second bool) {
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			a := obj.asked[0]
			return a != nil, a != nil && a.also != nil
		}
		if first, _ := asked(); !first {
			t.Fatal("nobody was asked")
		}
		time.Sleep(pullEnd - time.Millisecond)
		if _, second := asked(); second {
			t.Error("a second member was asked early")
		}
		time.Sleep(2 * time.Millisecond)
		if _, second := asked(); !second {
			t.Errorf("no second member was asked after %v", pullEnd)
		}
	})
}

// TestOrderToPassOnIsNotLost: the blob that is to be passed on is being received from another, or being stored, when it
// comes. Nobody else will pass it on: that it is here counts as having done so.
func TestOrderToPassOnIsNotLost(t *testing.T) {
	for _, storing := range []bool{false, true} {
		s, obj, shares := bare(t, 2, "a", "b", "c", "d")
		from, by := shares["a"].m, shares["b"].m
		h := wire.BlobHeader{ID: obj.ID, Len: 9}
		order := h
		order.Flags = wire.BlobRelay
		if o, err := s.expect(from, h); o != obj || err != nil {
			t.Fatalf("the first copy: %v, %v", o, err)
		}
		if storing && !s.beginStore(obj, from, h) {
			t.Fatal("the first copy is not stored")
		}
		if o, err := s.expect(by, order); o != nil || err != nil {
			t.Fatalf("the second copy: %v, %v", o, err)
		}
		f := newBuffer(9)
		s.mu.Lock()
		s.storedLocked(obj, from, h, f)
		for id, h := range shares {
			if want := id == "c" || id == "d"; h.owed.has(0) != want || h.waits != (id == "b") {
				t.Errorf("storing %v: %s is owed it: %v; waits: %v", storing, id, h.owed.has(0), h.waits)
			}
		}
		if len(obj.spares) > 0 {
			t.Errorf("kept: %v", obj.spares)
		}
		s.mu.Unlock()
		f.release()
	}
}

// TestWhoseCopyWasReadOverIsNotAskedSoon: it does not send what it has just sent, and would be taken for one that does
// not answer.
func TestWhoseCopyWasReadOverIsNotAskedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, obj, shares := bare(t, 1, "a", "b")
		h := wire.BlobHeader{ID: obj.ID, Len: 9}
		shares["a"].bits.set(0)
		s.learnLocked(obj, 0, s.now())
		for _, id := range []peer.ID{"b", "a"} {
			if _, err := s.expect(shares[id].m, h); err != nil {
				t.Fatal(err)
			}
		}
		s.cutShort(obj, shares["b"].m, 0, s.now())
		s.pullLocked(s.now())
		time.Sleep(flightTime - time.Millisecond)
		s.pullLocked(s.now())
		if len(obj.asked) > 0 {
			t.Error("asked for what it has just sent")
		}
		time.Sleep(time.Millisecond)
		s.pullLocked(s.now())
		if len(obj.asked) == 0 || len(s.late) > 0 {
			t.Errorf("not asked afterwards; late: %v", s.late)
		}
	})
}

// TestWhatAClosedObjectMissedIsSentAgain: blobs that were on their way when a member closed an object are sent when it
// asks for them.
func TestWhatAClosedObjectMissedIsSentAgain(t *testing.T) {
	for what, leave := range map[string]func(s *Swarm, m *member, id [32]byte){
		"closed": func(s *Swarm, m *member, id [32]byte) { s.retractLocked(m, id) },
		"no more received": func(s *Swarm, m *member, id [32]byte) {
			s.interestLocked(m, wire.Interest{ID: id, Count: 2, Bits: []byte{0}})
		},
	} {
		s, obj, shares := bare(t, 2, "a")
		h := shares["a"]
		obj.have.set(0)
		s.wantLocked(h, 0, s.now())
		if _, ok := s.nextJobLocked(h.m); !ok {
			t.Fatal("not sent")
		}
		leave(s, h.m, obj.ID)
		s.interestLocked(h.m, wire.Interest{ID: obj.ID, Count: 2, Flags: wire.FlagReceive, Bits: []byte{0}})
		s.wantLocked(h, 0, s.now())
		if _, ok := s.nextJobLocked(h.m); !ok {
			t.Errorf("%s and opened again: not sent", what)
		}
	}
}
