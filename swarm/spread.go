package swarm

import (
	"context"
	"hash/fnv"
	"time"

	"updraft/swarm/wire"
)

const (
	relayRoom    = 1 << 20                // bytes delegated to one relay and not acknowledged
	directUpTo   = 2                      // with this many receivers the injector sends to each itself
	relayTimeout = time.Second            // without a sign of a delegated blob, after it was written; at least 4 rounds of Have
	relayMost    = 8                      // so many of these times, while it acknowledges others
	pullPatience = 400 * time.Millisecond // time that a push has before a blob is asked for; at least 3 rounds of Have
	unsentMost   = 1 << 20                // bytes that only the device that brought them has
	paceLook     = 10 * time.Millisecond  // how often Pace looks
	passOnLeast  = 256 << 10              // bytes a second: members that take less, all together, are not waited for
	paceMost     = 4 * time.Second        // but so long, to see that they do
	flightTime   = 2 * time.Second        // a blob that was sent is not sent again on request for this long
)

// delegation is a blob given to a relay.
type delegation struct {
	to      *share
	size    int64
	given   time.Duration
	written time.Duration // when it was handed to the transport; 0: not yet
}

// Inject tells that this device has blob i from outside of the swarm, over the uplink or made here, and spreads it.
// The blob must be stored already: data, when not nil, only saves reading it again, and is copied. The bytes are not
// checked. Of several devices that produce the object, one spreads each blob; the others only record it. Injecting
// what is known does nothing.
func (s *Swarm) Inject(id [32]byte, i int, data []byte) { s.inject(id, i, data, false) }

// InjectPacked does the same for a blob that came as a zstd frame: the frame is what members get.
func (s *Swarm) InjectPacked(id [32]byte, i int, frame []byte) { s.inject(id, i, frame, true) }

func (s *Swarm) inject(id [32]byte, i int, data []byte, packed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	obj := s.objects[id]
	if obj == nil || i < 0 || i >= len(obj.Sums) || obj.have.has(i) {
		return
	}
	// Where not everybody is connected with a relay, who hears of the blob asks for it. It should ask those who got it
	// from the relay: the injector's link is for relays.
	s.hadLocked(obj, i, s.partialLocked())
	if a := obj.asked[uint32(i)]; a != nil {
		s.unaskLocked(obj, uint32(i), a, true)
	}
	if obj.opt.Produce && !s.chosenLocked(obj, i) {
		s.tellLocked(obj, uint32(i))
		return
	}
	wanted := false
	for _, h := range obj.shares {
		wanted = wanted || h.lacks(i)
	}
	if !wanted {
		s.tellLocked(obj, uint32(i))
		return
	}
	if size := int(obj.Sizes[i]); len(data) == size && !packed || packed && len(data) > 0 && len(data) < size {
		f := newBuffer(len(data))
		copy(f.b, data)
		if packed {
			f.plain = size
		}
		s.cache.add(blobKey{id, uint32(i)}, f)
		f.release()
	}
	if !obj.opt.Produce {
		obj.only[uint32(i)] = struct{}{}
		s.injected += int64(obj.Sizes[i])
	}
	s.injectLocked(obj, i)
	s.assignLocked()
}

// Pace waits while the members cannot take what was injected as fast as it comes: until of at most unsentMost bytes no
// copy has left this device, or ctx ends. Who brings blobs calls it after each: what it has not passed on is lost to
// the others when it dies, and would be brought again. Members that take nothing are not waited for, and those that
// take less than passOnLeast all together not for long: for no longer, in sum, than what they take would at that rate,
// and paceMost.
func (s *Swarm) Pace(ctx context.Context) {
	last := s.now()
	for ctx.Err() == nil && !s.paced(&last) {
		select {
		case <-ctx.Done():
		case <-time.After(paceLook):
		}
	}
}

// paced reports whether Pace is to wait no longer. It counts the time since last as waited for, less what is granted
// for what has been passed on.
func (s *Swarm) paced(last *time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, n := s.now(), s.unsentLocked()
	passed := min(max(s.unsent+s.injected-n, 0), unsentMost)
	s.waited = max(s.waited+now-*last-time.Duration(passed)*time.Second/passOnLeast, 0)
	s.unsent, s.injected, *last = n, 0, now
	if n == 0 {
		s.waited = 0 // what comes next may find others
	}
	return n <= unsentMost || s.waited >= paceMost
}

// unsentLocked returns the bytes of injected blobs that members want and that have not been written to any.
func (s *Swarm) unsentLocked() int64 {
	now, n := s.now(), int64(0)
	for _, obj := range s.order {
		for i := range obj.only {
			if !obj.unsent(i, now) {
				delete(obj.only, i)
				continue
			}
			n += int64(obj.Sizes[i])
		}
	}
	return n
}

// unsent reports whether a member that takes something wants blob i, nobody has it and it was written to nobody.
func (obj *object) unsent(i uint32, now time.Duration) bool {
	if obj.avail[i] > 0 {
		return false
	}
	wanted := false
	for _, h := range obj.shares {
		if _, ok := h.flight[i]; ok {
			return false
		}
		wanted = wanted || h.lacks(int(i)) && !h.m.suspect(now)
	}
	return wanted
}

// chosenLocked reports whether this device is the one of the producers that spreads blob i: the one with the highest
// hash of blob and peer.
func (s *Swarm) chosenLocked(obj *object, i int) bool {
	mine := rendezvous(string(s.self), obj.ID, i)
	for _, h := range obj.shares {
		if h.produce && rendezvous(string(h.m.id), obj.ID, i) > mine {
			return false
		}
	}
	return true
}

func rendezvous(id string, obj [32]byte, i int) uint64 {
	f := fnv.New64a()
	_, _ = f.Write(obj[:8])
	_, _ = f.Write([]byte{byte(i), byte(i >> 8)})
	_, _ = f.Write([]byte(id))
	x := f.Sum64() // FNV alone does not mix its last bytes well
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// injectLocked makes a blob wait for a relay.
func (s *Swarm) injectLocked(obj *object, i int) {
	if obj.have.has(i) && obj.inject.set(i) {
		obj.injectN++
	}
}

// assignLocked gives blobs that wait for one to relays with room.
func (s *Swarm) assignLocked() {
	for _, obj := range s.order {
		if obj.injectN == 0 {
			continue
		}
		receivers := 0
		for _, h := range obj.shares {
			if h.receive && h.n < len(obj.Sums) {
				receivers++
			}
		}
		for i := obj.inject.next(0); i >= 0; i = obj.inject.next(i + 1) {
			if !s.assignBlobLocked(obj, i, receivers <= directUpTo) {
				break
			}
		}
	}
}

// assignBlobLocked finds a relay for one blob; it returns false when no relay has room.
func (s *Swarm) assignBlobLocked(obj *object, i int, direct bool) bool {
	now := s.now()
	size := int64(obj.Sizes[i])
	var best *share
	lacking := 0
	for k := range obj.shares {
		h := obj.shares[(k+s.turn)%len(obj.shares)]
		if !h.lacks(i) {
			continue
		}
		lacking++
		switch {
		case direct:
			s.oweLocked(h, i, false)
		case best == nil, rank(h.m, now) < rank(best.m, now):
			best = h
		}
	}
	if lacking > 0 && !direct {
		if best.m.outstanding > 0 && best.m.outstanding+size > relayRoom {
			return false
		}
		s.turn++
		best.m.outstanding += size
		obj.pending[uint32(i)] = &delegation{to: best, size: size, given: now}
		s.oweLocked(best, i, lacking > 1)
		s.soonLocked(now + relayTimeout/2)
	} else {
		s.tellLocked(obj, uint32(i))
	}
	obj.inject.clear(i)
	obj.injectN--
	return true
}

// rank orders relays: least to do first, those that do not answer last.
func rank(m *member, now time.Duration) int64 {
	if m.suspect(now) {
		return m.outstanding + 1<<40
	}
	return m.outstanding
}

// undelegateLocked takes a blob back from its relay.
func (s *Swarm) undelegateLocked(obj *object, i uint32, d *delegation) {
	d.to.m.outstanding -= d.size
	delete(obj.pending, i)
}

// redelegateLocked gives blobs of relays that do not acknowledge to others; it returns when to look again.
func (s *Swarm) redelegateLocked(now time.Duration) time.Duration {
	limit := max(relayTimeout, 4*s.tickLocked()) << s.slackLocked()
	any, again := false, false
	for _, obj := range s.order {
		for i, d := range obj.pending {
			any = true
			// One that is not written yet waits behind others: only a relay that takes nothing for long is given up.
			wait := limit
			if d.written == 0 {
				wait = 3 * limit
			}
			// Others that it acknowledges show that it is at work, for a while.
			at := max(d.given, d.written)
			if now-max(at, min(d.to.m.lastAck, at+relayMost*limit)) < wait {
				continue
			}
			s.undelegateLocked(obj, i, d)
			d.to.disown(int(i))
			d.to.m.mute = true
			s.count.Redelegated++
			s.injectLocked(obj, int(i))
			again = true
		}
	}
	if again {
		s.assignLocked()
	}
	if !any {
		return now + idleWake
	}
	return now + limit/4
}

// oweLocked makes the sender of a member send a blob.
func (s *Swarm) oweLocked(h *share, i int, relay bool) {
	if h.owed == nil {
		h.owed = newBitmap(len(h.obj.Sums))
	}
	if t, ok := h.flight[uint32(i)]; ok && s.now()-t < flightTime {
		return
	}
	if relay {
		if h.relay == nil {
			h.relay = newBitmap(len(h.obj.Sums))
		}
		h.relay.set(i)
	}
	if h.owed.set(i) {
		h.owedN++
		s.activateLocked(h)
	}
}

func (s *Swarm) activateLocked(h *share) {
	if !h.active {
		h.active = true
		h.m.work = append(h.m.work, h)
	}
	h.m.wakeSend()
}

// disown forgets that a blob is to be sent.
func (h *share) disown(i int) {
	if h.owed.clear(i) {
		h.owedN--
	}
	h.relay.clear(i)
	delete(h.flight, uint32(i))
}

// ackLocked notes that a member has a blob.
func (s *Swarm) ackLocked(h *share, i uint32, now time.Duration) {
	h.disown(int(i))
	if d := h.obj.pending[i]; d != nil && d.to == h {
		h.m.lastAck = now
		s.undelegateLocked(h.obj, i, d)
		s.tellLocked(h.obj, i)
	}
}

// relayLocked owes a blob to everybody who lacks it but the one that sent it and the one that ordered it passed on.
func (s *Swarm) relayLocked(obj *object, i int, from, by *member) {
	for _, h := range obj.shares {
		if h.m != from && h.m != by && h.lacks(i) {
			s.oweLocked(h, i, false)
		}
	}
}

// wantLocked applies a request for a blob.
func (s *Swarm) wantLocked(h *share, i uint32, now time.Duration) {
	s.asking = now
	if !h.obj.have.has(int(i)) {
		if len(h.nacks) < maxWants { // one that takes no answer may ask again
			h.nacks = append(h.nacks, i)
			s.queueLocked(h)
		}
		return
	}
	if t, ok := h.flight[i]; ok && now-t < flightTime || len(h.wants) >= maxWants {
		return
	}
	if h.wanted == nil {
		h.wanted = newBitmap(len(h.obj.Sums))
	}
	if !h.wanted.set(int(i)) {
		return
	}
	if h.owed.clear(int(i)) {
		h.owedN--
	}
	h.wants = append(h.wants, i)
	s.activateLocked(h)
}

// job is one blob to be sent.
type job struct {
	h     *share
	obj   *object
	i     uint32
	flags byte
	data  *buffer // from the cache, or nil
	pack  bool    // worth compressing
}

// nextJobLocked takes the next blob to be sent to a member: of the object of the highest priority, what it asked for
// before what it is owed.
func (s *Swarm) nextJobLocked(m *member) (job, bool) {
	for {
		var best *share
		keep := m.work[:0]
		for _, h := range m.work {
			if h.obj == nil || h.owedN == 0 && len(h.wants) == 0 {
				h.active = false
				continue
			}
			keep = append(keep, h)
			if best == nil || h.obj.Priority > best.obj.Priority {
				best = h
			}
		}
		clear(m.work[len(keep):])
		m.work = keep
		if best == nil {
			return job{}, false
		}
		if j, ok := s.takeLocked(best); ok {
			return j, true
		}
	}
}

// takeLocked takes one blob off a share; false when there is nothing to send about it any more.
func (s *Swarm) takeLocked(h *share) (job, bool) {
	j := job{h: h, obj: h.obj}
	if len(h.wants) > 0 {
		j.i = h.wants[0]
		h.wants = h.wants[1:]
		if !h.wanted.clear(int(j.i)) {
			return j, false
		}
		j.flags = wire.BlobAsked
	} else {
		i := h.owed.next(0)
		if i < 0 {
			h.owedN = 0
			return j, false
		}
		h.owed.clear(i)
		h.owedN--
		j.i = uint32(i)
	}
	i := int(j.i)
	if h.relay.clear(i) {
		j.flags |= wire.BlobRelay
	}
	if h.bits.has(i) {
		return j, false
	}
	if !h.obj.have.has(i) {
		if j.flags&wire.BlobAsked != 0 {
			h.nacks = append(h.nacks, j.i)
			s.queueLocked(h)
		}
		return j, false
	}
	if h.flight == nil {
		h.flight = map[uint32]time.Duration{}
	}
	h.flight[j.i] = s.now()
	if j.data = s.cache.get(blobKey{h.id, j.i}); j.data != nil && j.data.plain > 0 && !h.m.packs {
		j.data.release()
		j.data = nil
	}
	j.pack = j.data == nil && h.m.packs && j.obj.Sizes[j.i] >= packLeast && j.obj.packing.worthLocked()
	return j, true
}
