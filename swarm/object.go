package swarm

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"updraft/swarm/wire"
)

// object is one that is open on this device. Its fields are guarded by Swarm.mu.
type object struct {
	Object
	blobs   Blobs
	opt     OpenOptions
	have    bitmap
	n       int             // blobs in have
	log     []uint32        // blobs in the order in which they came since the last full announcement
	kept    map[uint32]bool // blobs that are here and not told of yet; they are not in log
	behind  bool            // the log has entries that some member was not told
	busy    map[uint32]coming
	spares  map[uint32]spare
	storing map[uint32]bool // in Put
	avail   []uint16        // members that have the blob
	ready   []time.Duration // from when on, by the swarm's clock, the blob may be asked for; 0: nobody has it
	shares  []*share        // one for each member that knows the object
	asked   map[uint32]*ask
	inject  bitmap // blobs that came from outside and have no relay yet
	injectN int
	only    map[uint32]struct{} // injected blobs of which no copy may have left this device; see unsentLocked
	pending map[uint32]*delegation
	done    chan struct{} // closed when complete
	packing packing

	delta     []byte // encoded log[deltaFrom:deltaTo], shared between members
	deltaFrom int
	deltaTo   int
}

// spare is a copy of a blob that was read over while another was being received or stored; the last of them.
type spare struct {
	by    *member       // who sent it, and does not send it again on request within flightTime
	order bool          // it was to be passed on
	at    time.Duration // when it came
}

// share is what a member and this device have to say to each other about one object.
type share struct {
	m   *member
	id  [32]byte
	obj *object // nil: not open here

	// what the member said
	known   bool
	count   int
	receive bool
	produce bool
	odd     bool // it has said of the object what its table does not
	bits    bitmap
	n       int // blobs in bits

	// what this device told it
	announced bool
	told      int  // entries of obj.log that it knows
	queued    bool // in m.outbox
	waits     bool // it gave this device blobs to pass on, and waits to hear that they are here

	// what this device is to send to it
	owed   bitmap
	owedN  int
	relay  bitmap   // of those owed, to be passed on
	wants  []uint32 // asked for, in order; those not in wanted are no longer
	wanted bitmap
	flight map[uint32]time.Duration // sent, not yet acknowledged by a Have
	active bool                     // in m.work

	// what this device is to tell it once
	gets, cancels, nacks []uint32
}

// lacks reports whether the member wants blob i and has not said that it has it.
func (h *share) lacks(i int) bool {
	return h.obj != nil && h.receive && !h.bits.has(i)
}

// Open makes an object known to every member: what this device has of it, and what it means to do. An object that is
// open already is left as it is, but for its options.
func (s *Swarm) Open(o Object, b Blobs, opt OpenOptions) error {
	if len(o.Sums) == 0 || len(o.Sums) > wire.MaxBlobs || len(o.Sums) != len(o.Sizes) {
		return fmt.Errorf("swarm: object of %d digests and %d sizes", len(o.Sums), len(o.Sizes))
	}
	for i, n := range o.Sizes {
		if n == 0 || n > wire.MaxBlob {
			return fmt.Errorf("%w: blob %d of %d bytes", ErrTooLarge, i, n)
		}
	}
	if s.isOpen(o.ID) {
		return s.SetOptions(o.ID, opt)
	}
	n := len(o.Sums)
	obj := &object{
		Object: o, blobs: b, opt: opt, have: newBitmap(n), busy: map[uint32]coming{}, storing: map[uint32]bool{}, spares: map[uint32]spare{},
		avail: make([]uint16, n), ready: make([]time.Duration, n), asked: map[uint32]*ask{}, inject: newBitmap(n),
		pending: map[uint32]*delegation{}, done: make(chan struct{}), kept: map[uint32]bool{}, only: map[uint32]struct{}{},
	}
	for i := range n {
		if b.Has(i) {
			obj.have.set(i)
			obj.n++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.objects[o.ID] != nil {
		return s.setOptionsLocked(s.objects[o.ID], opt)
	}
	s.objects[o.ID] = obj
	s.worked = s.now()
	at, _ := slices.BinarySearchFunc(s.order, obj, func(a, b *object) int {
		if a.Priority >= b.Priority {
			return -1
		}
		return 1
	})
	s.order = slices.Insert(s.order, at, obj)
	if obj.n == n {
		close(obj.done)
	}
	for _, m := range s.members {
		s.attachLocked(m, obj)
	}
	s.soonLocked(s.now())
	s.touchLocked()
	return nil
}

func (s *Swarm) isOpen(id [32]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[id] != nil
}

// attachLocked joins an open object with what a member said of it, and queues its announcement.
func (s *Swarm) attachLocked(m *member, obj *object) {
	h := m.shares[obj.ID]
	if h == nil {
		h = &share{m: m, id: obj.ID}
		m.shares[obj.ID] = h
	}
	if h.obj == nil {
		h.obj = obj
		obj.shares = append(obj.shares, h)
		if h.known && h.count != len(obj.Sums) {
			s.otherTableLocked(h, h.count)
			h.forget()
		}
		now := s.now()
		for i := h.bits.next(0); i >= 0; i = h.bits.next(i + 1) {
			s.learnLocked(obj, i, now)
		}
	}
	s.queueLocked(h)
}

// forget drops what the member said.
func (h *share) forget() {
	h.m.shareBytes -= len(h.bits) * 8
	h.known, h.receive, h.produce, h.bits, h.n, h.count = false, false, false, nil, 0, 0
}

// learnLocked counts one more member that has blob i; it may be asked for from at on.
func (s *Swarm) learnLocked(obj *object, i int, at time.Duration) {
	if obj.avail[i] < math.MaxUint16 {
		obj.avail[i]++
	}
	if obj.ready[i] == 0 {
		obj.ready[i] = max(at, 1)
	}
}

// unlearnLocked counts one member less.
func (obj *object) unlearn(i int) {
	if obj.avail[i] > 0 {
		obj.avail[i]--
	}
	if obj.avail[i] == 0 {
		obj.ready[i] = 0
	}
}

// queueLocked has the member told what changed about h, as soon as its control stream takes it.
func (s *Swarm) queueLocked(h *share) {
	if h.queued {
		return
	}
	h.queued = true
	h.m.outbox = append(h.m.outbox, h)
	h.m.wakeControl()
}

// flushLocked queues Haves of every object for the members that wait for them; for all members when that is due, or with
// all, or where blobs are asked for.
func (s *Swarm) flushLocked(now time.Duration, all bool) {
	all = all || s.pulledLocked() || now >= s.toAll+max(flushAll, 2*s.tickLocked())
	s.stale, s.owing = false, false
	s.flushed = now
	if all {
		s.toAll = now
	}
	for _, obj := range s.order {
		if !obj.behind {
			continue
		}
		obj.behind = false
		for _, h := range obj.shares {
			switch {
			case h.told == len(obj.log):
			case all || h.waits:
				s.queueLocked(h)
			default:
				obj.behind, s.stale = true, true
			}
			h.waits = false
		}
	}
}

// hadLocked records a blob that this device has from now on. With keep, nobody is told until tellLocked.
func (s *Swarm) hadLocked(obj *object, i int, keep bool) {
	if !obj.have.set(i) {
		return
	}
	obj.n++
	delete(obj.spares, uint32(i))
	s.worked = s.now()
	s.lease.Progress(s.worked)
	s.touchLocked()
	if obj.n == len(obj.Sums) {
		close(obj.done)
	}
	obj.kept[uint32(i)] = true
	if !keep {
		s.tellLocked(obj, uint32(i))
	}
}

// tellLocked has members told of a blob, if they were not.
func (s *Swarm) tellLocked(obj *object, i uint32) {
	if !obj.kept[i] {
		return
	}
	delete(obj.kept, i)
	obj.log = append(obj.log, i)
	obj.behind = true
	if obj.n == len(obj.Sums) && len(obj.kept) == 0 {
		s.flushLocked(s.now(), true)
		return
	}
	s.stale = true
	s.soonLocked(s.flushAtLocked())
}

// Close makes an object unknown again: nothing more is sent, received or asked for. Closing what is not open does nothing.
func (s *Swarm) Close(id [32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	obj := s.objects[id]
	if obj == nil {
		return
	}
	delete(s.objects, id)
	s.order = slices.DeleteFunc(s.order, func(o *object) bool { return o == obj })
	for i, d := range obj.pending {
		s.undelegateLocked(obj, i, d)
	}
	for i, a := range obj.asked {
		s.unaskLocked(obj, i, a, true)
	}
	for _, h := range obj.shares {
		if h.announced {
			h.m.retracts = append(h.m.retracts, id)
			h.m.wakeControl()
		}
		s.detachLocked(h)
	}
	obj.shares = nil
	s.touchLocked()
}

// detachLocked clears what h has to do with an open object; what the member said is kept.
func (s *Swarm) detachLocked(h *share) {
	h.obj, h.announced, h.told = nil, false, 0
	h.owed, h.owedN, h.relay, h.wants, h.wanted, h.flight = nil, 0, nil, nil, nil, nil
	h.gets, h.cancels, h.nacks = nil, nil, nil
	if !h.known {
		delete(h.m.shares, h.id)
	}
}

// SetOptions changes what this device means to do with an open object.
func (s *Swarm) SetOptions(id [32]byte, opt OpenOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	obj := s.objects[id]
	if obj == nil {
		return ErrUnknown
	}
	return s.setOptionsLocked(obj, opt)
}

func (s *Swarm) setOptionsLocked(obj *object, opt OpenOptions) error {
	if obj.opt == opt {
		return nil
	}
	obj.opt = opt
	for _, h := range obj.shares {
		h.announced = false
		s.queueLocked(h)
	}
	if !opt.Receive {
		for i, a := range obj.asked {
			s.unaskLocked(obj, i, a, true)
		}
	}
	s.soonLocked(s.now())
	return nil
}

// Drop tells that this device no longer has blob i. If it receives the object, it asks for it again.
func (s *Swarm) Drop(id [32]byte, i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if obj := s.objects[id]; obj != nil && i >= 0 && i < len(obj.Sums) {
		s.dropBlobLocked(obj, i)
	}
}

func (s *Swarm) dropBlobLocked(obj *object, i int) {
	if !obj.have.clear(i) {
		return
	}
	if obj.n == len(obj.Sums) {
		obj.done = make(chan struct{})
	}
	obj.n--
	delete(obj.kept, uint32(i))
	obj.log, obj.delta, obj.deltaFrom, obj.deltaTo = nil, nil, 0, 0
	if obj.inject.clear(i) {
		obj.injectN--
	}
	if d := obj.pending[uint32(i)]; d != nil {
		s.undelegateLocked(obj, uint32(i), d)
	}
	s.cache.drop(blobKey{obj.ID, uint32(i)})
	for _, h := range obj.shares {
		h.announced, h.told = false, 0
		h.disown(i)
		s.queueLocked(h)
	}
	s.soonLocked(s.now())
	s.touchLocked()
}

// Missing returns the blobs of an open object that neither this device nor a member that answers has, nor sends now, at
// a pace worth waiting for.
func (s *Swarm) Missing(id [32]byte) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	obj := s.objects[id]
	if obj == nil {
		return nil
	}
	now := s.now()
	var miss []int
	for i := range obj.Sums {
		if obj.have.has(i) || obj.storing[uint32(i)] {
			continue
		}
		if obj.avail[i] > 0 && slices.ContainsFunc(obj.shares, func(h *share) bool { return h.bits.has(i) && !h.m.suspect(now) }) {
			continue
		}
		if obj.onItsWay(uint32(i), now) {
			continue
		}
		miss = append(miss, i)
	}
	return miss
}

// Progress returns how many blobs of an open object are here, of how many.
func (s *Swarm) Progress(id [32]byte) (have, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if obj := s.objects[id]; obj != nil {
		return obj.n, len(obj.Sums)
	}
	return 0, 0
}

// Wait returns when every blob of an open object is here, with ErrUnknown when the object is not open or is closed
// meanwhile, or with the error of ctx.
func (s *Swarm) Wait(ctx context.Context, id [32]byte) error {
	for {
		s.mu.Lock()
		obj, closed, changed := s.objects[id], s.closed, s.changed
		s.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case obj == nil:
			return ErrUnknown
		}
		s.mu.Lock()
		done, full := obj.done, obj.n == len(obj.Sums)
		s.mu.Unlock()
		if full {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
		case <-changed:
		}
	}
}
