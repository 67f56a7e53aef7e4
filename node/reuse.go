package node

import "crypto/sha256"

// linked reports whether parts of the stream are there without having been written.
func (a *assembly) linked() bool {
	a.swapMu.RLock()
	defer a.swapMu.RUnlock()
	st, ok := a.st.(*treeStream)
	return ok && st.linked()
}

// adopt takes what is at hand of an open page of a tree, now that its files are
// there: with linked the chunks that linked files hold, with reuse those that other
// releases have.
func (a *assembly) adopt(p *page, linked, reuse bool) {
	var buf []byte
	for i, c := range p.chunks {
		if p.Has(i) || p.offs[i] < a.art.ListingSize {
			continue
		}
		ok := false
		if linked {
			b, err := p.Get(i, buf)
			if ok = err == nil && sha256.Sum256(b) == c.Sum; ok {
				p.mark(i)
				ok = a.reg.put(p, i, b) == nil // other places of the page
			}
			buf = b[:0]
		}
		if !ok && reuse {
			var b []byte
			if b, ok = a.reuse(c.Sum, buf); ok {
				ok = a.reg.put(p, i, b) == nil
				buf = b[:0]
			}
		}
		if ok {
			a.reg.sw.Inject(p.id, i, nil)
			a.reused.Add(int64(c.Len))
			a.signal()
		}
	}
}

// copyReused takes chunks that a release held here has as well.
func (a *assembly) copyReused(p *page) {
	var buf []byte
	for i, c := range p.chunks {
		if p.Has(i) || p.offs[i] >= a.art.ListingSize && !a.opened.Load() {
			continue // early contents of a tree would be written twice
		}
		b, ok := a.reuse(c.Sum, buf)
		if !ok {
			continue
		}
		if p.Put(i, b) != nil {
			return
		}
		a.reused.Add(int64(len(b)))
		buf = b[:0]
	}
}
