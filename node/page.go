package node

import (
	"fmt"
	"sync"

	"updraft/delta/chunk"
	"updraft/swarm"
)

// page is one index page and the state of its chunks. It is the Blobs of the
// page's object.
type page struct {
	a      *assembly
	id     [32]byte
	off    int64 // of its first chunk in the stream
	chunks []chunk.Chunk
	offs   []int64 // of each chunk in the stream

	mu   sync.Mutex // guards have, left
	have []bool
	left int // chunks missing
}

func newPage(a *assembly, id [32]byte, off int64, cs []chunk.Chunk) *page {
	p := &page{a: a, id: id, off: off, chunks: cs, have: make([]bool, len(cs)), left: len(cs), offs: make([]int64, len(cs))}
	for i, c := range cs {
		p.offs[i] = off + c.Offset
	}
	return p
}

// Has implements swarm.Blobs.
func (p *page) Has(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have[i]
}

// Get implements swarm.Blobs.
func (p *page) Get(i int, buf []byte) ([]byte, error) {
	n := p.chunks[i].Len
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := p.a.readAt(buf, p.offs[i]); err != nil {
		return nil, fmt.Errorf("node: read chunk: %w", err)
	}
	return buf, nil
}

// Put implements swarm.Blobs.
func (p *page) Put(i int, data []byte) error {
	if p.Has(i) {
		return nil
	}
	if err := p.a.writeAt(data, p.offs[i]); err != nil {
		p.a.fail(fmt.Errorf("node: write chunk: %w", err))
		return err
	}
	full := p.mark(i)
	// Contents that come before the tree is open would be written twice.
	if a := p.a; !a.opened.Load() && p.offs[i] < a.art.ListingSize {
		if err := a.openTree(nil, 0); err != nil {
			a.fail(err)
			return err
		}
	}
	if n := p.a.unsaid.Add(int64(len(data))); full || n >= wakeBytes {
		p.a.unsaid.Store(0)
		p.a.signal()
	}
	return nil
}

// wakeBytes is what comes before the one who awaits the artifact looks at it again: waking him for each chunk costs more
// than what he does.
const wakeBytes = 1 << 20

// mark notes that chunk i is there, and reports whether the page is full with it.
func (p *page) mark(i int) (full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.have[i] {
		p.have[i] = true
		p.left--
	}
	return p.left == 0
}

func (p *page) markAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.have {
		p.have[i] = true
	}
	p.left = 0
}

// Dropped implements swarm.Dropper.
func (p *page) Dropped(i int) {
	p.mu.Lock()
	if p.have[i] {
		p.have[i] = false
		p.left++
		p.a.lost.Add(1)
	}
	p.mu.Unlock()
	p.a.mu.Lock()
	lost := p.a.onLost
	p.a.mu.Unlock()
	if lost != nil {
		lost(p.a.art)
	}
}

func (p *page) missing() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left
}

func (p *page) object(prio int) swarm.Object {
	o := swarm.Object{ID: p.id, Sums: make([][32]byte, len(p.chunks)), Sizes: make([]uint32, len(p.chunks)), Priority: prio}
	for i, c := range p.chunks {
		o.Sums[i], o.Sizes[i] = c.Sum, uint32(c.Len)
	}
	return o
}
