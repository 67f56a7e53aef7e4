package swarm

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"updraft/swarm/limit"
	"updraft/swarm/wire"
)

const (
	busyTime  = time.Second     // a blob that is being received is not taken from another member for this long
	busyMost  = 5 * time.Second // and counts as on its way for this long, or as long as it moves
	holdMost  = 5 * time.Second // a blob that comes slowly keeps no other from coming for longer
	junkBytes = 16 << 20        // of what nobody here wanted, before a member is dropped; plus a quarter of all that it sent
	junkTime  = time.Hour       // in which so much is forgotten: of a slow member the second copy often comes first
)

// waitMember returns the member of a connection; the other side may know of the end of the handshake a moment earlier.
func (s *Swarm) waitMember(ctx context.Context, c network.Conn) *member {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	for {
		s.mu.Lock()
		m, changed := s.members[c.RemotePeer()], s.changed
		_, strange := s.strange[c]
		s.mu.Unlock()
		if m != nil && m.conn == c {
			return m
		}
		if !strange {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// acceptBlobs serves the blob stream of a member.
func (s *Swarm) acceptBlobs(ctx context.Context, st network.Stream) {
	m := s.waitMember(ctx, st.Conn())
	if m == nil || !s.claimStream(m) {
		_ = st.Reset()
		return
	}
	err := s.receiveBlobs(ctx, m, st)
	if isBreach(err) {
		s.blame(m, fmt.Errorf("%w: %w", ErrBreach, err), breachBase)
	}
	_ = st.Reset()
	s.drop(m, "blob stream: "+err.Error())
}

// claimStream allows one blob stream for each member.
func (s *Swarm) claimStream(m *member) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.receiving || m.dropped {
		return false
	}
	m.receiving = true
	return true
}

func (s *Swarm) receiveBlobs(ctx context.Context, m *member, st network.Stream) error {
	in := &inflow{m: m, st: st}
	r := bufio.NewReaderSize(in, 4<<10)
	body := limit.Reader(ctx, r, s.cfg.Download)
	for {
		if err := in.between(); err != nil {
			return err
		}
		h, err := wire.ReadBlobHeader(r)
		if err != nil {
			return err
		}
		if err := in.begin(h.Follows()); err != nil {
			return err
		}
		obj, err := s.expect(m, h)
		if err != nil {
			return err
		}
		if obj == nil {
			if _, err := io.CopyN(io.Discard, body, int64(h.Follows())); err != nil {
				return err
			}
			continue
		}
		if err := s.receiveBlob(ctx, m, body, h, obj); err != nil {
			return err
		}
	}
}

// expect decides what to do with a blob whose header has come: nil means that it is not needed.
func (s *Swarm) expect(m *member, h wire.BlobHeader) (*object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	n := int64(h.Follows())
	m.bytesIn += n
	m.heard, m.pinged, m.mute = now, 0, false
	s.count.BytesIn += n
	s.count.BlobsIn++
	if h.Packed > 0 {
		s.count.PackedIn++
		s.count.Saved += int64(h.Len) - n
	}
	if h.Flags&wire.BlobRelay != 0 {
		s.count.Relayed++
	}
	obj := s.objects[h.ID]
	if obj == nil || !obj.opt.Receive {
		return nil, m.wasted(now, n)
	}
	if int(h.Index) >= len(obj.Sums) || h.Len != obj.Sizes[h.Index] {
		return nil, fmt.Errorf("%w: blob %d of %d bytes is not in the table", wire.ErrMalformed, h.Index, h.Len)
	}
	if obj.have.has(int(h.Index)) || obj.storing[h.Index] || now-obj.busySince(h.Index) < busyTime {
		s.duplicateLocked(obj, m, h)
		return nil, m.wasted(now, n)
	}
	obj.busy[h.Index] = coming{now, m}
	m.blobUntil = now + timeFor(n, paceWorth)
	return obj, nil
}

// coming is a blob that is being received.
type coming struct {
	since time.Duration
	from  *member
}

// busySince returns since when a blob is being received, long ago if it is not.
func (obj *object) busySince(i uint32) time.Duration {
	if b, ok := obj.busy[i]; ok {
		return b.since
	}
	return -busyMost
}

// onItsWay reports whether a blob is being received at a pace worth waiting for.
func (obj *object) onItsWay(i uint32, now time.Duration) bool {
	b, ok := obj.busy[i]
	return ok && (now-b.since < busyMost || b.from.flows(now) && now < b.from.blobUntil)
}

// duplicateLocked counts a blob that is here already, and does what its flags still ask for.
func (s *Swarm) duplicateLocked(obj *object, m *member, h wire.BlobHeader) {
	m.dup += int64(h.Follows())
	s.count.DupBytes += int64(h.Follows())
	s.count.DupBlobs++
	s.hurriedLocked()
	if a := obj.asked[h.Index]; a != nil && a.from.m == m {
		s.unaskLocked(obj, h.Index, a, false)
	}
	order := h.Flags&wire.BlobRelay != 0
	switch {
	case !obj.have.has(int(h.Index)):
		if order || !obj.spares[h.Index].order {
			obj.spares[h.Index] = spare{by: m, order: order, at: s.now()}
		}
	case order:
		s.waitsLocked(m, obj)
		s.relayLocked(obj, int(h.Index), m, m)
	}
}

// waitsLocked notes that a member waits to hear that this device has what it gave it to pass on.
func (s *Swarm) waitsLocked(m *member, obj *object) {
	if h := m.shares[obj.ID]; h != nil {
		h.waits, s.owing = true, true
		if s.stale {
			s.soonLocked(s.flushAtLocked())
		}
	}
}

// wasted counts bytes that were of no use; too many of them end the connection.
func (m *member) wasted(now time.Duration, n int64) error {
	forgotten := int64(junkBytes * min(1, (now-m.junkAt).Seconds()/junkTime.Seconds()))
	m.junk, m.junkAt = max(0, m.junk-forgotten)+n, now
	if m.junk > junkBytes+m.bytesIn/4 {
		return fmt.Errorf("%w: %d bytes that nobody wants", wire.ErrMalformed, m.junk)
	}
	return nil
}

// receiveBlob reads, checks, stores and passes on one blob.
func (s *Swarm) receiveBlob(ctx context.Context, m *member, r io.Reader, h wire.BlobHeader, obj *object) error {
	need := int64(h.Len) + int64(h.Packed)
	if err := s.hold(ctx, m, need); err != nil {
		return err
	}
	defer s.unhold(m, need)
	f := newBuffer(h.Follows())
	defer f.release()
	begun := s.now()
	if _, err := io.ReadFull(r, f.b); err != nil {
		s.cutShort(obj, m, h.Index, begun)
		return err
	}
	s.came(m)
	plain, err := s.codec.open(f, h, obj.Sums[h.Index])
	if err != nil {
		s.unexpect(obj, h.Index)
		s.blame(m, fmt.Errorf("%w: blob %d of %x: %w", ErrWrongBlob, h.Index, h.ID[:8], err), shunBase)
		return err
	}
	defer plain.release()
	if !s.beginStore(obj, m, h) {
		return nil
	}
	err = obj.blobs.Put(int(h.Index), plain.b)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(obj.storing, h.Index)
	if err != nil {
		s.log.Error("blob not stored", "blob", h.Index, "error", err)
		if a := obj.asked[h.Index]; a != nil {
			s.unaskLocked(obj, h.Index, a, false)
		}
		again := s.now() + flightTime // it would not be sent sooner
		obj.ready[h.Index] = again
		s.soonLocked(again)
		return nil
	}
	s.storedLocked(obj, m, h, f)
	return nil
}

// hold takes the memory that a blob of a member needs while it comes, and waits until there is as much. Each holdMost it
// ends the slowest that keeps it waiting.
func (s *Swarm) hold(ctx context.Context, m *member, need int64) error {
	if !s.budget.TryAcquire(need) {
		wait, done := context.WithCancel(ctx)
		defer done()
		s.wg.Go(func() {
			for t := time.Tick(holdMost); ; {
				select {
				case <-wait.Done():
					return
				case <-t:
					s.endSlowest(m, need)
				}
			}
		})
		if err := s.budget.Acquire(ctx, need); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.holds, m.heldRead = s.now(), m.read.Load()
	m.heldIn, _ = m.raw.traffic()
	return nil
}

// came notes that the blob for which a member was given memory is all there: how long the memory is needed from now on is
// up to the disk of this device.
func (s *Swarm) came(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.holds = 0
}

func (s *Swarm) unhold(m *member, need int64) {
	s.came(m)
	s.budget.Release(need)
}

// endSlowest drops the member that sends most slowly into memory for which m waits: if nobody waits for what comes so
// slowly, or m would have sent its own blob long ago.
func (s *Swarm) endSlowest(m *member, need int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	var slowest *member
	least := math.Inf(1)
	for _, h := range s.members {
		held := now - h.holds
		if h.holds == 0 || held < holdMost {
			continue
		}
		in, _ := h.raw.traffic() // within a message of the multiplexer the reader sees nothing
		pace := float64(max(h.read.Load()-h.heldRead, in-h.heldIn)) / held.Seconds()
		if pace < least && (pace < paceWorth || m.outruns(need, held)) {
			slowest, least = h, pace
		}
	}
	if slowest != nil {
		s.lateLocked(slowest, now)
		s.dropLocked(slowest, "keeps others from sending")
	}
}

// open returns the blob that came as f, when its digest is sum; f itself if it is not compressed.
func (c *codec) open(f *buffer, h wire.BlobHeader, sum [32]byte) (*buffer, error) {
	if h.Packed > 0 {
		f.plain = int(h.Len)
		return c.unpack(f.b, f.plain, sum)
	}
	if sha256.Sum256(f.b) != sum {
		return nil, errors.New("its digest differs")
	}
	return f.retain(), nil
}

// cutShort takes back a blob that did not come to its end. Who has sent it slowly since begun is not asked again soon.
func (s *Swarm) cutShort(obj *object, m *member, i uint32, begun time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now-begun >= busyMost {
		s.lateLocked(m, now)
	}
	delete(obj.busy, i)
	s.soonLocked(now)
}

func (s *Swarm) unexpect(obj *object, i uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(obj.busy, i)
	s.soonLocked(s.now())
}

// beginStore lets one of several copies through to Put.
func (s *Swarm) beginStore(obj *object, m *member, h wire.BlobHeader) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(obj.busy, h.Index)
	m.blobUntil = 0
	if s.objects[obj.ID] != obj {
		return false
	}
	if obj.have.has(int(h.Index)) || obj.storing[h.Index] {
		s.duplicateLocked(obj, m, h)
		return false
	}
	obj.storing[h.Index] = true
	return true
}

// storedLocked records a blob that was stored, and passes it on, in the form f in which it came, if that or another copy
// came with that order.
func (s *Swarm) storedLocked(obj *object, m *member, h wire.BlobHeader, f *buffer) {
	if s.objects[obj.ID] != obj {
		return
	}
	i, now := int(h.Index), s.now()
	asked := false
	if a := obj.asked[h.Index]; a != nil {
		asked = true
		switch {
		case a.from.m == m:
			s.pacedLocked(m, a, int64(h.Len), now)
		case a.also != nil && a.also.m == m:
			a.from.m.outpacedLocked(a, now)
		}
		if a.from.m == m || a.also != nil && a.also.m == m {
			s.servedLocked(m)
		}
		s.unaskLocked(obj, h.Index, a, a.from.m != m || a.also != nil)
	}
	m.lastBlob, s.whole = now, now
	if h.Flags&wire.BlobRelay != 0 {
		s.waitsLocked(m, obj)
	}
	sp := obj.spares[h.Index]
	if sp.order {
		s.waitsLocked(sp.by, obj)
	}
	s.hadLocked(obj, i, false)
	if h.Flags&wire.BlobRelay != 0 || sp.order {
		s.cache.add(blobKey{obj.ID, h.Index}, f)
		s.relayLocked(obj, i, m, sp.by)
	}
	if asked && s.pullRoomLocked() {
		s.soonLocked(s.pullLocked(s.now()))
	}
}

// isBreach reports whether err says that a member does not keep to the protocol.
func isBreach(err error) bool {
	return errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrTooLarge)
}

// blame drops and shuns a member for what it sent: for a time of base, doubled each time. why is ErrWrongBlob or ErrBreach.
func (s *Swarm) blame(m *member, why error, base time.Duration) {
	s.mu.Lock()
	if s.gate.Shunned(m.id) {
		s.mu.Unlock()
		return // what it sent besides is still being read
	}
	d := s.gate.Shun(m.id, base)
	s.mu.Unlock()
	s.log.Warn("peer is shunned", "peer", m.id, "name", m.ident.Name, "error", why, "for", d)
	if s.cfg.Blamed != nil {
		s.cfg.Blamed(m.id, m.ident, why, d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(why, ErrWrongBlob) {
		s.count.BadBlobs++
	}
	s.count.Shunned++
	if t := s.targets[m.id]; t != nil {
		t.next = s.now() + d
	}
	s.dropLocked(m, why.Error())
}
