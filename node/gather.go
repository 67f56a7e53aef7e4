package node

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what is gathered for one file before it is written.
const (
	gatherPiece  = 256 << 10   // written at once, at multiples of itself
	gatherPieces = 4           // in memory
	gatherAll    = 16          // in memory, of all files
	gatherWait   = time.Second // after which what no longer grows is written
)

// gathering is how many pieces there are in memory, and pieceBuffers are those that are not used, of gatherPiece bytes.
var (
	gathering    atomic.Int32
	pieceBuffers sync.Pool
)

// gather collects the chunks of a file, which come in about their order and from many sides, into pieces, and writes each
// with one system call. In a system call the runtime watches whether the thread blocks, by looking every 20 µs until
// nothing runs: one for each chunk was 6 % of the CPU time of a device that receives a release. Pieces that are
// written stay for those who read what has just come, until others need their memory. A crash loses what lies here;
// the site has it. Safe for concurrent use.
type gather struct {
	f     *os.File
	size  int64       // of the file
	count func(n int) // bytes that were written

	mu     sync.Mutex  // guards all below, but not while a piece is being written
	change sync.Cond   // a piece is no longer being written
	pieces []*piece    // the one written to last at the end
	timer  *time.Timer // runs while there are pieces
	closed bool
}

// piece is a part of the file at a multiple of gatherPiece.
type piece struct {
	off     int64
	b       []byte // as far as the file reaches, or is written to
	spans   []span // of b, in order, apart from each other; when clean: all of it
	clean   bool   // the file has it
	writing bool   // and b does not change
	last    time.Time
}

// meets reports whether p at off of the file lies in the piece, in part at least.
func (q *piece) meets(p []byte, off int64) bool {
	return q.off < off+int64(len(p)) && off < q.off+gatherPiece
}

// newGather returns the gather of a file that has size bytes.
func newGather(f *os.File, size int64, count func(n int)) *gather {
	g := &gather{f: f, size: size, count: count}
	g.change.L = &g.mu
	return g
}

// WriteAt implements io.WriterAt. An error may be that of an earlier write, of which nothing is lost.
func (g *gather) WriteAt(p []byte, off int64) (int, error) {
	if len(p) >= gatherPiece {
		if err := g.flush(func(q *piece) bool { return q.meets(p, off) }); err != nil {
			return 0, err
		}
		n, err := g.f.WriteAt(p, off)
		g.count(n)
		return n, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	done := 0
	for done < len(p) {
		at := off + int64(done)
		part := p[done:min(int64(len(p)), int64(done)+gatherPiece-at%gatherPiece)]
		q, err := g.pieceLocked(at - at%gatherPiece)
		switch {
		case err != nil:
			return done, err
		case q == nil || at-q.off+int64(len(part)) > int64(len(q.b)): // no room for it
			n, err := g.f.WriteAt(part, at)
			g.count(n)
			if done += n; err != nil {
				return done, err
			}
			continue
		}
		done += copy(q.b[at-q.off:], part)
		q.add(span{at - q.off, int64(len(part))})
		if q.spans[0].n == int64(len(q.b)) {
			if err := g.writeLocked(q); err != nil {
				return done, err
			}
		}
	}
	return len(p), nil
}

// pieceLocked returns the piece at off, to be written to; nil if there is no room for it in memory.
func (g *gather) pieceLocked(off int64) (*piece, error) {
	for {
		if g.closed { // maybe while it waited
			return nil, os.ErrClosed
		}
		i := slices.IndexFunc(g.pieces, func(q *piece) bool { return q.off == off })
		if i < 0 {
			if len(g.pieces) < gatherPieces && gathering.Add(1) <= gatherAll {
				return g.addLocked(off), nil
			} else if len(g.pieces) < gatherPieces {
				gathering.Add(-1)
			}
			if len(g.pieces) == 0 {
				return nil, nil
			}
			i = slices.IndexFunc(g.pieces, func(q *piece) bool { return !q.writing })
		}
		if i < 0 || g.pieces[i].writing {
			g.change.Wait()
			continue
		}
		q := g.pieces[i]
		if q.off == off && !q.clean {
			g.pieces = append(append(g.pieces[:i], g.pieces[i+1:]...), q)
			q.last = time.Now()
			return q, nil
		}
		if err := g.dropLocked(q); err != nil {
			return nil, err
		}
	}
}

// addLocked adds the piece at off.
func (g *gather) addLocked(off int64) *piece {
	q := &piece{off: off, last: time.Now()}
	if n := min(gatherPiece, g.size-off); n < gatherPiece {
		q.b = make([]byte, max(n, 0))
	} else if b, ok := pieceBuffers.Get().(*[gatherPiece]byte); ok {
		q.b = b[:]
	} else {
		q.b = make([]byte, gatherPiece)
	}
	g.pieces = append(g.pieces, q)
	if g.timer == nil && !g.closed {
		g.timer = time.AfterFunc(gatherWait, g.rest)
	}
	return q
}

// removeLocked takes a piece out of memory.
func (g *gather) removeLocked(q *piece) {
	i := slices.Index(g.pieces, q)
	if i < 0 {
		return // somebody else has meanwhile
	}
	g.pieces = append(g.pieces[:i], g.pieces[i+1:]...)
	gathering.Add(-1)
	if len(q.b) == gatherPiece {
		pieceBuffers.Put((*[gatherPiece]byte)(q.b))
	}
}

// add notes that s has been written into the piece.
func (q *piece) add(s span) {
	i := 0
	for i < len(q.spans) && q.spans[i].off+q.spans[i].n < s.off {
		i++
	}
	j, end := i, s.off+s.n
	for j < len(q.spans) && q.spans[j].off <= end {
		end = max(end, q.spans[j].off+q.spans[j].n)
		s.off = min(s.off, q.spans[j].off)
		j++
	}
	q.spans = slices.Replace(q.spans, i, j, span{s.off, end - s.off})
}

// writeLocked writes what the piece has; mu is not held meanwhile. The piece is neither clean nor being written.
func (g *gather) writeLocked(q *piece) error {
	q.writing = true
	g.mu.Unlock()
	var err error
	for _, s := range q.spans {
		var n int
		n, err = g.f.WriteAt(q.b[s.off:s.off+s.n], q.off+s.off)
		g.count(n)
		if err != nil {
			break
		}
	}
	g.mu.Lock()
	q.writing, q.clean = false, err == nil
	g.change.Broadcast()
	return err
}

// dropLocked writes a piece that is not being written, if it must be, and takes its memory.
func (g *gather) dropLocked(q *piece) error {
	if !q.clean {
		if err := g.writeLocked(q); err != nil {
			return err
		}
	}
	g.removeLocked(q)
	return nil
}

// flush writes and drops the pieces that match.
func (g *gather) flush(match func(q *piece) bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.flushLocked(match)
}

func (g *gather) flushLocked(match func(q *piece) bool) error {
	for {
		i := slices.IndexFunc(g.pieces, match)
		switch {
		case i < 0:
			return nil
		case g.pieces[i].writing:
			g.change.Wait()
		default:
			if err := g.dropLocked(g.pieces[i]); err != nil {
				return err
			}
		}
	}
}

// rest writes what has not grown for a while.
func (g *gather) rest() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = nil
	now := time.Now()
	// A write that fails is tried again, and sync tells of it.
	_ = g.flushLocked(func(q *piece) bool { return now.Sub(q.last) >= gatherWait })
	if !g.closed && len(g.pieces) > 0 && g.timer == nil { // else a write has set one meanwhile
		g.timer = time.AfterFunc(gatherWait, g.rest)
	}
}

// ReadAt implements io.ReaderAt.
func (g *gather) ReadAt(p []byte, off int64) (int, error) {
	g.mu.Lock()
	near := slices.ContainsFunc(g.pieces, func(q *piece) bool { return q.meets(p, off) })
	if !near {
		g.mu.Unlock()
		return g.f.ReadAt(p, off)
	}
	defer g.mu.Unlock()
	if n := g.copyLocked(p, off); n == len(p) {
		return n, nil
	}
	n, err := g.f.ReadAt(p, off)
	g.copyLocked(p, off)
	return n, err
}

// copyLocked copies what the pieces have of the bytes at off to their places in p. It returns how many of the first bytes
// of p came from one piece after the other.
func (g *gather) copyLocked(p []byte, off int64) int {
	front := 0
	end := off + int64(len(p))
	for base := off - off%gatherPiece; base < end; base += gatherPiece {
		for _, q := range g.pieces {
			if q.off != base {
				continue
			}
			for _, s := range q.spans {
				from, to := max(off, base+s.off), min(end, base+s.off+s.n)
				if from >= to {
					continue
				}
				copy(p[from-off:to-off], q.b[from-base:])
				if from == off+int64(front) {
					front = int(to - off)
				}
			}
		}
	}
	return front
}

// sync writes everything, and has it on the disk.
func (g *gather) sync() error {
	if err := g.flush(func(*piece) bool { return true }); err != nil {
		return err
	}
	return g.f.Sync()
}

// Close writes everything and closes the file. What cannot be written does not keep the rest from it.
func (g *gather) Close() error {
	g.mu.Lock()
	g.closed = true
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	var err error
	for len(g.pieces) > 0 {
		q := g.pieces[0]
		for q.writing {
			g.change.Wait()
		}
		if !q.clean {
			err = errors.Join(err, g.writeLocked(q))
		}
		g.removeLocked(q)
	}
	g.mu.Unlock()
	return errors.Join(err, g.f.Close())
}
