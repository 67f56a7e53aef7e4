package node

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"

	"updraft/swarm"
)

// registry opens page objects in the swarm. The same page can occur in several
// artifacts, and several times in one (an image with large empty regions): the
// swarm sees it once, and what comes goes to every place. So it is with the index of an
// artifact that several releases have.
type registry struct {
	sw *swarm.Swarm

	mu      sync.Mutex // guards groups and indexes
	groups  map[[32]byte]*group
	indexes map[[32]byte]*indexGroup
}

// tableID names an object other than a page, which has the digest that its table was read
// from. What a manifest says of the digest of an index or a patch is not enough: the
// manifests of two channels may tell of other blobs for the same, and then honest devices
// would take each other's for wrong ones. A page never has this digest, for what that is
// made of is not a number of records long.
func tableID(what string, o swarm.Object) [32]byte {
	h := sha256.New()
	for i := range o.Sums {
		h.Write(o.Sums[i][:])
		h.Write(binary.LittleEndian.AppendUint32(nil, o.Sizes[i]))
	}
	return sha256.Sum256(h.Sum([]byte("updraft " + what + "\n")))
}

func newRegistry(sw *swarm.Swarm) *registry {
	return &registry{sw: sw, groups: make(map[[32]byte]*group), indexes: make(map[[32]byte]*indexGroup)}
}

// group is the places of one page; it is the page's swarm.Blobs.
type group struct {
	mu    sync.RWMutex // guards pages; a Put holds it for reading until all places have the chunk
	pages []*page
}

func (g *group) list() []*page {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.pages
}

// Has implements swarm.Blobs.
func (g *group) Has(i int) bool {
	for _, p := range g.list() {
		if !p.Has(i) {
			return false
		}
	}
	return true
}

// Get implements swarm.Blobs.
func (g *group) Get(i int, buf []byte) ([]byte, error) {
	err := errNotThere
	for _, p := range g.list() {
		if !p.Has(i) {
			continue
		}
		var b []byte
		if b, err = p.Get(i, buf); err == nil {
			return b, nil
		}
	}
	return nil, err
}

// Put implements swarm.Blobs. A place that cannot take the chunk (an installed
// release that has changed on disk) does not keep the others from it.
func (g *group) Put(i int, data []byte) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var failed error
	taken := false
	for _, p := range g.pages {
		if err := p.Put(i, data); err != nil {
			failed = err
		} else {
			taken = true
		}
	}
	if taken {
		return nil
	}
	return failed
}

// Dropped implements swarm.Dropper.
func (g *group) Dropped(i int) {
	for _, p := range g.list() {
		p.Dropped(i)
	}
}

// open adds p to the places of its page.
func (r *registry) open(p *page, opt swarm.OpenOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.groups[p.id]
	if g == nil {
		g = &group{pages: []*page{p}}
		if err := r.sw.Open(p.object(0), g, opt); err != nil {
			return err
		}
		r.groups[p.id] = g
		return nil
	}
	// First of all p takes part, so that no chunk that comes meanwhile passes it by.
	g.mu.Lock()
	others := &group{pages: g.pages}
	g.pages = append(g.pages[:len(g.pages):len(g.pages)], p)
	g.mu.Unlock()
	var buf []byte
	for i, c := range p.chunks {
		if p.Has(i) || !others.Has(i) {
			continue
		}
		// What is in its place already is not written again.
		b, err := p.Get(i, buf)
		if err == nil && sha256.Sum256(b) == c.Sum {
			p.mark(i)
			buf = b[:0]
			continue
		}
		b, err = others.Get(i, buf)
		if err == nil && sha256.Sum256(b) == c.Sum {
			err = p.Put(i, b)
			buf = b[:0]
		}
		if err != nil || !p.Has(i) {
			r.sw.Drop(p.id, i)
		}
	}
	if opt.Receive || opt.Produce {
		return r.sw.SetOptions(p.id, opt)
	}
	return nil
}

// put writes blob i of p's page to every place of the page that lacks it.
func (r *registry) put(p *page, i int, data []byte) error {
	r.mu.Lock()
	g := r.groups[p.id]
	r.mu.Unlock()
	if g == nil {
		return p.Put(i, data)
	}
	return g.Put(i, data)
}

// share gives the chunks of p, which are all there, to the other places of its
// page: the swarm does not ask again for what one place has.
func (r *registry) share(p *page) {
	r.mu.Lock()
	g := r.groups[p.id]
	r.mu.Unlock()
	if g == nil {
		return
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	var buf []byte
	for _, q := range g.pages {
		for i := range q.chunks {
			if q.Has(i) {
				continue
			}
			b, err := p.Get(i, buf)
			if err != nil || sha256.Sum256(b) != p.chunks[i].Sum {
				r.sw.Drop(p.id, i)
				continue
			}
			_ = q.Put(i, b) // what cannot be written is noted at its assembly
			buf = b[:0]
		}
	}
}

func (r *registry) close(p *page) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.groups[p.id]
	if g == nil {
		return
	}
	var rest []*page
	for _, q := range g.list() {
		if q != p {
			rest = append(rest, q)
		}
	}
	g.mu.Lock()
	g.pages = rest
	g.mu.Unlock()
	switch {
	case len(rest) == 0:
		delete(r.groups, p.id)
		r.sw.Close(p.id)
	case !slices.ContainsFunc(rest, func(q *page) bool { return !q.a.isSeed() }):
		_ = r.sw.SetOptions(p.id, swarm.OpenOptions{}) // an update that was given up has asked for it
	}
}
