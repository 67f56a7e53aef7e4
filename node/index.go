package node

import (
	"crypto/sha256"
	"slices"
	"sync"

	"updraft/swarm"
)

// indexGroup is the assemblies with one index; it is the Blobs of the index object.
type indexGroup struct {
	mu  sync.Mutex // guards all
	all []*assembly
}

func (g *indexGroup) list() []*assembly {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all
}

// Has implements swarm.Blobs.
func (g *indexGroup) Has(i int) bool {
	return !slices.ContainsFunc(g.list(), func(a *assembly) bool { return !a.hasPage(i) })
}

// Get implements swarm.Blobs.
func (g *indexGroup) Get(i int, buf []byte) ([]byte, error) {
	err := errNotThere
	for _, a := range g.list() {
		if !a.hasPage(i) {
			continue
		}
		var b []byte
		if b, err = a.readPage(i, buf); err == nil {
			return b, nil
		}
	}
	return nil, err
}

// Put implements swarm.Blobs. What one assembly cannot write does not keep the others
// from it.
func (g *indexGroup) Put(i int, b []byte) error {
	var failed error
	taken := false
	for _, a := range g.list() {
		if !a.hasPage(i) {
			if err := a.putPage(i, b); err != nil {
				failed = err
				continue
			}
			a.signal()
		}
		taken = true
	}
	if taken {
		return nil
	}
	return failed
}

// openIndex opens the index object of a, or has a take part in it.
func (r *registry) openIndex(a *assembly, receive bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	opt := swarm.OpenOptions{Receive: receive}
	g := r.indexes[a.indexID]
	if g == nil {
		g = &indexGroup{all: []*assembly{a}}
		if err := r.sw.Open(indexObject(a.art), g, opt); err != nil {
			return err
		}
		r.indexes[a.indexID] = g
		return nil
	}
	others := &indexGroup{all: g.list()}
	g.mu.Lock()
	g.all = append(g.all[:len(g.all):len(g.all)], a)
	g.mu.Unlock()
	for i, sum := range a.art.Pages {
		if a.hasPage(i) || !others.Has(i) {
			continue
		}
		b, err := others.Get(i, nil)
		if err == nil && sha256.Sum256(b) == sum {
			err = a.putPage(i, b)
		}
		if err != nil || !a.hasPage(i) {
			r.sw.Drop(a.indexID, i) // it has changed on the disk
		}
	}
	if receive {
		return r.sw.SetOptions(a.indexID, opt)
	}
	return nil
}

// putIndex gives page i to every assembly with the index of a.
func (r *registry) putIndex(a *assembly, i int, b []byte) error {
	r.mu.Lock()
	g := r.indexes[a.indexID]
	r.mu.Unlock()
	if g == nil {
		return a.putPage(i, b)
	}
	return g.Put(i, b)
}

// closeIndex ends the part of a in its index object, which is closed with the last.
func (r *registry) closeIndex(a *assembly) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.indexes[a.indexID]
	if g == nil {
		return
	}
	g.mu.Lock()
	g.all = slices.DeleteFunc(slices.Clone(g.all), func(b *assembly) bool { return b == a })
	left := g.all
	g.mu.Unlock()
	switch {
	case len(left) == 0:
		delete(r.indexes, a.indexID)
		r.sw.Close(a.indexID)
	case !slices.ContainsFunc(left, func(b *assembly) bool { return !b.isSeed() }):
		_ = r.sw.SetOptions(a.indexID, swarm.OpenOptions{})
	}
}
