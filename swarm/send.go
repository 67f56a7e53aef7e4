package swarm

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"updraft/swarm/wire"
)

// A message that a connection does not take yet lies in memory three times: as the writer's, the multiplexer's and the
// encrypted one. Of many members most can be in that state at once; so the more there are, the shorter are the messages
// to each. A full message and what is made of it fit buffers of powers of two.
const (
	messageMost  = 17 // log2 of the longest message, for few members
	messageLeast = 15
	messageFew   = 8 // members up to which messages have full length; up to twice as many have half of it
)

// turnsAll is what the members share that are sent a blob at the same time; see takeTurn.
const turnsAll = 1 << 10

// writers are the buffers of blob streams that have something to send, by size.
var writers [messageMost - messageLeast + 1]sync.Pool

// newWriter returns a buffer for messages to one of so many members.
func newWriter(st *outflow, members int) (*bufio.Writer, *sync.Pool) {
	if st.slow {
		members = math.MaxInt
	}
	c := messageMost - messageLeast
	for n := messageFew; c > 0 && n < members; n *= 2 {
		c--
	}
	w, _ := writers[c].Get().(*bufio.Writer)
	if w == nil {
		size := 1 << (c + messageLeast)
		cost := sealed(size) - size
		w = bufio.NewWriterSize(nil, size-cost-muxHeader)
	}
	w.Reset(st)
	return w, &writers[c]
}

// sendBlobs sends a member what it asked for and what it is owed, until it is gone.
func (s *Swarm) sendBlobs(ctx context.Context, m *member) {
	var st *outflow
	for {
		select {
		case <-m.gone:
			return
		case <-m.sendWake:
		}
		var err error
		if st, err = s.sendBatch(ctx, m, st); err != nil {
			select {
			case <-m.gone:
			default:
				s.drop(m, "blob stream: "+err.Error())
			}
			return
		}
	}
}

// sendBatch sends until nothing is left, and flushes.
func (s *Swarm) sendBatch(ctx context.Context, m *member, st *outflow) (*outflow, error) {
	var w *bufio.Writer
	var from *sync.Pool
	defer func() {
		if w != nil {
			w.Reset(nil)
			from.Put(w)
		}
	}()
	yield := func() {}
	defer func() { yield() }()
	for {
		yield() // others that wait go first
		var err error
		if yield, err = s.takeTurn(ctx); err != nil {
			return st, err
		}
		s.mu.Lock()
		j, ok := job{}, false
		members := len(s.members)
		if !m.dropped {
			j, ok = s.nextJobLocked(m)
		}
		s.mu.Unlock()
		if !ok {
			break
		}
		f, err := s.load(j)
		if err != nil {
			s.lostBlob(j, err)
			continue
		}
		if st == nil {
			if st, err = openBlobs(ctx, m); err != nil {
				f.release()
				return nil, err
			}
		}
		if w == nil {
			w, from = newWriter(st, members)
		}
		err = s.sendBlob(ctx, w, j, f, yield)
		f.release()
		if err != nil {
			return st, err
		}
	}
	if w == nil {
		return st, nil
	}
	return st, w.Flush()
}

// takeTurn waits until a member may be sent a blob: with a limit only so many are at once that each gets its blob at a pace
// worth waiting for. yield ends the turn; it may be called again.
func (s *Swarm) takeTurn(ctx context.Context) (yield func(), err error) {
	if s.cfg.Upload == nil {
		return func() {}, nil
	}
	part := turnsAll / min(max(s.cfg.Upload.Rate()/paceWorth, 1), turnsAll)
	if err := s.turns.Acquire(ctx, part); err != nil {
		return func() {}, err
	}
	return sync.OnceFunc(func() { s.turns.Release(part) }), nil
}

// sendBlob writes one blob and counts it. It yields its turn if the member does not take what the limit allows.
func (s *Swarm) sendBlob(ctx context.Context, w *bufio.Writer, j job, f *buffer, yield func()) error {
	head := wire.BlobHeader{ID: j.obj.ID, Index: j.i, Len: uint32(f.size()), Flags: j.flags}
	if f.plain > 0 {
		head.Packed = uint32(len(f.b))
	}
	var b [64]byte
	if _, err := w.Write(wire.AppendBlobHeader(b[:0], head)); err != nil {
		return err
	}
	piece := s.piece()
	for b := f.b; len(b) > 0; { // all at once, what is longer than the buffer would be a longer message
		k := min(len(b), max(w.Available(), 1), piece)
		if err := s.cfg.Upload.WaitN(ctx, k); err != nil {
			return fmt.Errorf("upload limit: %w", err)
		}
		n, err := w.Write(b[:k])
		if err != nil {
			return err
		}
		b = b[n:]
		if s.cfg.Upload != nil { // the other side should not wait with what may have gone
			late := time.AfterFunc(slowWrite, yield)
			err := w.Flush()
			late.Stop()
			if err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int64(len(f.b))
	j.h.m.bytesOut += n
	s.count.BytesOut += n
	s.count.BlobsOut++
	if head.Packed > 0 {
		s.count.PackedOut++
		s.count.Saved += int64(head.Len) - n
	}
	if d := j.obj.pending[j.i]; d != nil && d.to == j.h {
		d.written = s.now()
	}
	if !j.obj.owed(j.i) {
		s.cache.drop(blobKey{j.obj.ID, j.i})
	}
	return nil
}

// piece returns how many bytes to send at once: with a limit a sixteenth of a second's, so that they come evenly.
func (s *Swarm) piece() int {
	if s.cfg.Upload == nil {
		return muxMessage
	}
	return int(min(max(s.cfg.Upload.Rate()/16, bulkLeast), muxMessage))
}

// owed reports whether the blob waits to be sent to anybody.
func (obj *object) owed(i uint32) bool {
	return slices.ContainsFunc(obj.shares, func(h *share) bool { return h.owed.has(int(i)) })
}

// load returns the checked bytes of a blob, compressed if that pays.
func (s *Swarm) load(j job) (*buffer, error) {
	if j.data != nil {
		return j.data, nil
	}
	size := int(j.obj.Sizes[j.i])
	f := newBuffer(size)
	b, err := j.obj.blobs.Get(int(j.i), f.b[:0])
	if err == nil && (len(b) != size || sha256.Sum256(b) != j.obj.Sums[j.i]) {
		err = errors.New("its bytes have changed")
	}
	if err != nil {
		f.release()
		return nil, fmt.Errorf("swarm: read blob %d: %w", j.i, err)
	}
	if &b[0] != &f.b[0] {
		copy(f.b, b)
	}
	if j.pack && !noise(f.b) {
		p := s.codec.pack(f.b)
		s.mu.Lock()
		j.obj.packing.learnLocked(p != nil)
		s.mu.Unlock()
		if p != nil {
			f.release()
			f = p
		}
	}
	if j.flags&wire.BlobAsked == 0 {
		s.mu.Lock()
		if !s.closed {
			s.cache.add(blobKey{j.obj.ID, j.i}, f)
		}
		s.mu.Unlock()
	}
	return f, nil
}

// lostBlob takes back the announcement of a blob that cannot be read.
func (s *Swarm) lostBlob(j job, err error) {
	s.log.Warn("blob is no longer here", "object", fmt.Sprintf("%x", j.obj.ID[:8]), "blob", j.i, "error", err)
	s.mu.Lock()
	if s.objects[j.obj.ID] == j.obj {
		s.dropBlobLocked(j.obj, int(j.i))
		if j.h.obj == j.obj && j.flags&wire.BlobAsked != 0 {
			j.h.nacks = append(j.h.nacks, j.i)
			s.queueLocked(j.h)
		}
	}
	s.mu.Unlock()
	if d, ok := j.obj.blobs.(Dropper); ok {
		d.Dropped(int(j.i))
	}
}
