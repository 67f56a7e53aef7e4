package swarm

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm/lease"
	"updraft/swarm/wire"
)

const (
	maxShares     = 4096             // objects that one member may speak of
	maxShareBytes = 1 << 20          // bytes of bitmaps that one member may make us keep
	maxLeaseQueue = 64               // lease messages that wait for a member
	controlBatch  = 16 << 10         // a batch of frames is written when it is this long
	maxWants      = 4096             // blobs of one object that one member may have asked for
	workFor       = 30 * time.Second // work goes on for this long after the last blob
	pingAfter     = 5 * time.Second  // while work is going on, silence that makes us ask
	deadAfter     = 15 * time.Second // silence, after that question, that ends a connection
)

// member is a device with which a connection is up. Its fields but the first ones are guarded by Swarm.mu.
type member struct {
	id       peer.ID
	ident    Identity
	conn     network.Conn
	control  network.Stream
	instance uint64
	dialled  bool // by this device
	packs    bool // takes compressed blobs
	since    time.Time
	joined   time.Duration // the same
	gone     chan struct{} // closed when it is no longer a member

	controlWake, sendWake chan struct{} // one token: there is something to write
	requests              chan struct{} // one token for each of its requests that is being served

	raw  *recordConn  // nil where it is not over TCP
	read atomic.Int64 // bytes read from its blob stream

	dropped    bool
	profile    Profile
	shares     map[[32]byte]*share
	shareBytes int

	outbox     []*share // shares of which it is to be told something
	retracts   [][32]byte
	leases     []wire.Lease
	rumors     []wire.Rumor
	rumorRoom  time.Duration // a new rumor of it is taken up if this is not far in the future
	profileDue bool
	pingDue    bool
	pongDue    bool

	work        []*share // shares with blobs to send
	outstanding int64    // bytes delegated to it and not acknowledged
	lastAck     time.Duration
	asked       int           // blobs asked of it
	askedBytes  int64         // and their bytes
	askedAt     time.Duration // since when it is asked for something without a break
	room        int64         // bytes that may be asked for if some are asked of it; as of the last look
	lastBlob    time.Duration // when a blob came from it that was of use
	pace        float64       // bytes a second of what it was asked for; 0: not known
	slowUntil   time.Duration // not asked before
	mute        bool          // has not acknowledged in time, nor said anything since
	heard       time.Duration // when it last said anything
	pinged      time.Duration // when it was asked for a sign of life, 0: not
	proving     time.Duration // since when it has to show that it is there, 0: it need not
	moved       int64         // proof, as of proving
	oneWay      bool          // what is acknowledged is no proof
	receiving   bool          // its blob stream is open
	blobUntil   time.Duration // the blob that comes from it is worth waiting for until then; 0: none comes
	holds       time.Duration // since when there is memory for a blob that comes from it, 0: none comes
	heldRead    int64         // read, as of then
	heldIn      int64         // what the kernel had received then
	seen        int64         // arrived, as of looked
	looked      time.Duration
	flowed      time.Duration // when bytes were last seen to come from it
	junk        int64         // bytes that nobody wanted,
	junkAt      time.Duration // as of then

	bytesIn, bytesOut, dup int64
}

func (m *member) wakeControl() {
	select {
	case m.controlWake <- struct{}{}:
	default:
	}
}

func (m *member) wakeSend() {
	select {
	case m.sendWake <- struct{}{}:
	default:
	}
}

// suspect reports whether the member has not answered lately.
func (m *member) suspect(now time.Duration) bool {
	return m.mute || now < m.slowUntil || m.pinged != 0 && now-m.pinged > 2*time.Second
}

// runMember serves a member until it is gone. It reads the control stream itself.
func (s *Swarm) runMember(ctx context.Context, m *member, r *bufio.Reader) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.drop(m, "stopping") })
	defer stop()
	s.wg.Go(func() { s.writeControl(m) })
	s.wg.Go(func() { s.sendBlobs(ctx, m) })
	err := s.readControl(m, r)
	s.drop(m, err.Error())
}

func (s *Swarm) drop(m *member, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(m, why)
}

// dropLocked ends a membership: what the member had and owed is given to others.
func (s *Swarm) dropLocked(m *member, why string) {
	if m.dropped {
		return
	}
	m.dropped = true
	s.heardOf = max(s.heardOf, m.heard)
	close(m.gone)
	s.log.Debug("member left", "peer", m.id, "name", m.ident.Name, "why", why)
	for _, h := range m.shares {
		if h.obj != nil {
			s.severLocked(h)
		}
	}
	m.shares, m.outbox, m.work = nil, nil, nil
	if s.members[m.id] == m {
		delete(s.members, m.id)
		s.runLocked(s.lease.Down(s.now(), string(m.id)))
	}
	if t := s.targets[m.id]; t != nil {
		t.lost = s.now()
		t.next = max(t.next, t.lost+s.politenessLocked(m.id)+dialPolite/4)
	}
	s.wg.Go(func() { _ = m.conn.Close() })
	s.soonLocked(s.now())
	if !s.closed {
		s.assignLocked()
		s.notifyLocked()
	}
}

// severLocked takes a member that is going out of an open object.
func (s *Swarm) severLocked(h *share) {
	s.withdrawLocked(h)
	h.obj.shares = slices.DeleteFunc(h.obj.shares, func(o *share) bool { return o == h })
	h.obj = nil
}

// withdrawLocked takes what a member has of an open object, is to fetch or was asked for
// out of account.
func (s *Swarm) withdrawLocked(h *share) {
	obj := h.obj
	for i := h.bits.next(0); i >= 0; i = h.bits.next(i + 1) {
		obj.unlearn(i)
	}
	for i, d := range obj.pending {
		if d.to == h {
			s.undelegateLocked(obj, i, d)
			s.injectLocked(obj, int(i))
		}
	}
	for i, a := range obj.asked {
		if a.from == h || a.also == h {
			s.unaskLocked(obj, i, a, false)
		}
	}
}

// readControl applies the member's messages until the stream ends.
func (s *Swarm) readControl(m *member, r *bufio.Reader) error {
	speed := newMeter()
	buf := make([]byte, 1<<10) // larger frames are rare, and get a slice of their own
	var idx []uint32
	for {
		typ, body, err := wire.ReadFrame(r, wire.MaxFrame, buf)
		if err == nil && !speed.await(m, frameCost(typ, body)) {
			return errGone
		}
		if err == nil {
			idx, err = s.control(m, typ, body, idx)
		}
		if isBreach(err) {
			s.blame(m, fmt.Errorf("%w: %w", ErrBreach, err), breachBase)
		}
		if err != nil {
			return err
		}
	}
}

// control applies one message. The rest of idx is scratch.
func (s *Swarm) control(m *member, typ wire.Type, body []byte, idx []uint32) ([]uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.dropped {
		return idx, errGone
	}
	s.count.MessagesIn++
	s.count.ControlIn += int64(len(body)) + 2
	m.heard, m.pinged, m.mute = s.now(), 0, false
	switch typ {
	case wire.TypeProfile:
		p, err := wire.ParseProfile(body)
		if err != nil {
			return idx, err
		}
		m.profile = Profile{Rank: m.rankFrom(p.Rank), Node: slices.Clone(p.Node)}
		s.notifyLocked()
	case wire.TypeInterest:
		in, err := wire.ParseInterest(body)
		if err != nil {
			return idx, err
		}
		s.interestLocked(m, in)
	case wire.TypeRetract:
		id, err := wire.ParseRetract(body)
		if err != nil {
			return idx, err
		}
		s.retractLocked(m, id)
	case wire.TypeHave, wire.TypeGet, wire.TypeCancel, wire.TypeNack:
		id, list, err := wire.ParseIndexes(body, idx)
		if err != nil {
			return idx, err
		}
		s.indexesLocked(m, typ, id, list)
		return list, nil
	case wire.TypeLease:
		l, err := wire.ParseLease(body)
		if err != nil {
			return idx, err
		}
		s.runLocked(s.lease.Recv(s.now(), string(m.id), lease.Message{Kind: lease.Kind(l.Kind), Epoch: l.Epoch, Rank: m.rankFrom(l.Rank), Holder: l.Holder}))
	case wire.TypeRumor:
		r, err := wire.ParseRumor(body)
		if err != nil {
			return idx, err
		}
		s.rumorLocked(m, r)
	case wire.TypePing:
		m.pongDue = true
		m.wakeControl()
	case wire.TypeHello, wire.TypeAdmit:
		return idx, fmt.Errorf("%w: hello after the handshake", wire.ErrMalformed)
	}
	return idx, nil
}

// rankFrom returns a rank that the member claims: that of a gateway only if it may have it.
func (m *member) rankFrom(r wire.Rank) lease.Rank {
	return lease.Rank{Gateway: r.Gateway && m.ident.Gateway, Link: r.Link, Reach: r.Reach, Up: int64(r.Up)}
}

func rankTo(r lease.Rank) wire.Rank {
	return wire.Rank{Gateway: r.Gateway, Link: r.Link, Reach: r.Reach, Up: uint32(min(max(r.Up, 0), 1<<31))}
}

// otherTableLocked notes that a member says that an object has count blobs: once, however often it does.
func (s *Swarm) otherTableLocked(h *share, count int) {
	if !h.odd {
		s.log.Warn("member has another table for an object", "peer", h.m.id, "blobs", count, "expected", len(h.obj.Sums))
	}
	h.odd = true
}

// interestLocked replaces what a member said of an object.
func (s *Swarm) interestLocked(m *member, in wire.Interest) {
	h := m.shares[in.ID]
	count := int(in.Count)
	words := (count + 63) / 64
	if h == nil {
		if len(m.shares) >= maxShares {
			s.log.Debug("member speaks of too many objects", "peer", m.id)
			return
		}
		h = &share{m: m, id: in.ID, obj: nil}
		m.shares[in.ID] = h
	}
	if h.obj != nil && count != len(h.obj.Sums) {
		s.otherTableLocked(h, count)
		return
	}
	if m.shareBytes+(words-len(h.bits))*8 > maxShareBytes {
		s.log.Debug("member makes us remember too much", "peer", m.id)
		return
	}
	bits := newBitmap(count)
	if in.Flags&wire.FlagAll != 0 {
		for i := range count {
			bits.set(i)
		}
	} else {
		bits = bitmapFrom(in.Bits, count)
	}
	old := h.bits
	m.shareBytes += (words - len(old)) * 8
	h.known, h.count, h.bits, h.n = true, count, bits, bits.count()
	h.receive, h.produce = in.Flags&wire.FlagReceive != 0, in.Flags&wire.FlagProduce != 0
	obj := h.obj
	if obj == nil {
		return
	}
	now := s.now()
	for i := range count {
		switch a, b := old.has(i), bits.has(i); {
		case b && !a:
			s.learnLocked(obj, i, now)
			s.ackLocked(h, uint32(i), now)
		case a && !b:
			obj.unlearn(i)
		}
	}
	if !h.receive {
		h.owed, h.owedN, h.relay, h.flight = nil, 0, nil, nil // what is on its way is read over
	}
	s.touchLocked()
	s.assignLocked()
	s.soonLocked(now)
}

func (s *Swarm) retractLocked(m *member, id [32]byte) {
	h := m.shares[id]
	if h == nil {
		return
	}
	if h.obj != nil {
		s.withdrawLocked(h)
		h.owed, h.owedN, h.relay, h.wants, h.wanted, h.flight = nil, 0, nil, nil, nil, nil
		h.forget()
		s.assignLocked()
	} else {
		h.forget()
		delete(m.shares, id)
	}
	s.touchLocked()
}

// indexesLocked applies a Have, Get, Cancel or Nack. What it says of objects and blobs unknown here is ignored: the
// other side may not know yet that an object was closed.
func (s *Swarm) indexesLocked(m *member, typ wire.Type, id [32]byte, list []uint32) {
	h := m.shares[id]
	if h == nil {
		return
	}
	now := s.now()
	obj, news := h.obj, false
	for _, u := range list {
		i := int(u)
		if i >= h.count && typ == wire.TypeHave || obj != nil && i >= len(obj.Sums) {
			return
		}
		switch typ {
		case wire.TypeHave:
			if h.known && h.bits.set(i) {
				h.n++
				news = true
				if obj != nil {
					s.learnLocked(obj, i, now+s.patienceLocked())
					s.ackLocked(h, u, now)
				}
			}
		case wire.TypeGet:
			if obj != nil {
				s.wantLocked(h, u, now)
			}
		case wire.TypeCancel:
			h.wanted.clear(i)
		case wire.TypeNack:
			if obj != nil {
				s.nackLocked(h, u)
			}
		}
	}
	if id, ok := s.lease.Holder(now); news && obj == nil && ok && id == string(m.id) {
		s.lease.Vouch(now)
	}
	if typ == wire.TypeHave && obj != nil {
		s.assignLocked()
		s.touchLocked()
		s.soonLocked(now + s.patienceLocked())
	}
}

// watchLocked looks for connections that died silently and for strangers, and returns when to look again.
func (s *Swarm) watchLocked(now time.Duration) time.Duration {
	next := now + idleWake
	for c, x := range s.strange {
		if time.Now().After(x.until) {
			delete(s.strange, c)
			s.wg.Go(func() { _ = c.Close() })
		}
	}
	if s.lease.State() == lease.Idle && now-s.worked > workFor {
		return next
	}
	next = min(next, s.flowLocked(now))
	for _, m := range s.members {
		switch {
		case m.pinged == 0 && now-m.heard > pingAfter:
			m.pinged = now
			m.pingDue = true
			m.wakeControl()
		case m.pinged != 0 && now-m.pinged > deadAfter:
			s.dropLocked(m, "silent")
		}
	}
	return next
}
