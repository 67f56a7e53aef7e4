package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"
	"sync/atomic"

	"updraft/delta/chunk"
	"updraft/delta/release"
	"updraft/swarm"
)

// pageBytes is the length of a full index page.
const pageBytes = chunk.PageLen * chunk.RecordSize

// assembly is one artifact on this device, from nothing to complete: its chunk
// index, its stream and which chunks of it are there. A complete one is a seed.
type assembly struct {
	art     *release.Artifact
	reg     *registry
	index   *os.File // the pages, at their places
	indexID [32]byte // of the object whose blobs are the pages
	resumed bool     // the stream may hold chunks from before
	reuse   func(sum [32]byte, buf []byte) ([]byte, bool)
	written counter       // bytes written to the stream
	reused  counter       // of them: copied from releases held here
	wake    chan struct{} // something has come
	planned chan struct{} // the site's plan has changed
	opened  atomic.Bool   // contents go to their files: not a tree, or its listing is there
	unsaid  atomic.Int64  // bytes put since the one who awaits it was woken
	lost    atomic.Int64  // chunks that were there and were given up
	hashed  *prefix       // of the stream; used by the one who awaits it
	trail   behind        // of the stream; used by the one who awaits it

	swapMu sync.RWMutex // guards st against being swapped while it is read
	st     stream

	advMu   sync.Mutex // serialises advance
	adopted bool       // what linked files hold was looked for; guarded by advMu

	mu      sync.Mutex // guards all below
	got     []bool     // index pages in the index file
	pages   []*page    // opened pages, a prefix of the index
	next    int64      // stream offset after the last opened page
	receive bool       // chunks are taken from the swarm
	produce bool       // chunks are made here
	rough   span       // of the stream: what rebuilds wrote, or an earlier run, and no chunk says yet
	failed  error      // what stops it
	closed  bool
	seed    bool                      // installed: every chunk is believed to be there until read
	onLost  func(a *release.Artifact) // told of a chunk that is no longer there; nil: nobody is
}

// newAssembly starts the assembly of art in st; pages in the index file that
// have the right digest are taken as known.
func newAssembly(art *release.Artifact, reg *registry, st stream, index *os.File) *assembly {
	a := &assembly{art: art, reg: reg, st: st, index: index, indexID: indexObject(art).ID, got: make([]bool, len(art.Pages)), wake: make(chan struct{}, 1), planned: make(chan struct{}, 1)}
	a.opened.Store(art.Kind != release.Tree)
	st.countTo(&a.written)
	return a
}

func (a *assembly) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *assembly) signalPlan() {
	select {
	case a.planned <- struct{}{}:
	default:
	}
}

// becomeSeed notes that the artifact is installed; lost is told of a chunk that is no longer there.
func (a *assembly) becomeSeed(lost func(*release.Artifact)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seed, a.onLost = true, lost
}

func (a *assembly) isSeed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seed
}

func (a *assembly) readAt(b []byte, off int64) (int, error) {
	a.swapMu.RLock()
	defer a.swapMu.RUnlock()
	n, err := a.st.ReadAt(b, off)
	if n == len(b) {
		err = nil
	}
	return n, err
}

// swap puts s, the same bytes elsewhere, in the place of the stream.
func (a *assembly) swap(s stream) error {
	a.swapMu.Lock()
	defer a.swapMu.Unlock()
	old := a.st
	a.st = s
	return old.Close()
}

func (a *assembly) fail(err error) {
	a.mu.Lock()
	if a.failed == nil {
		a.failed = err
	}
	a.mu.Unlock()
	a.signal()
}

func (a *assembly) err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed
}

// pageSize returns the length in bytes of index page i.
func pageSize(art *release.Artifact, i int) int {
	if i == len(art.Pages)-1 {
		return art.LastPage * chunk.RecordSize
	}
	return pageBytes
}

// start opens the index object and whatever pages are known already.
func (a *assembly) start(receive bool) error {
	a.mu.Lock()
	a.receive = receive
	if a.resumed {
		a.rough = span{0, a.art.Size}
	}
	a.mu.Unlock()
	buf := make([]byte, pageBytes)
	for i := range a.art.Pages {
		b := buf[:pageSize(a.art, i)]
		if _, err := a.index.ReadAt(b, int64(i)*pageBytes); err == nil && sha256.Sum256(b) == a.art.Pages[i] {
			a.mu.Lock()
			a.got[i] = true
			a.mu.Unlock()
		}
	}
	if len(a.art.Pages) > 0 {
		if err := a.reg.openIndex(a, receive); err != nil {
			return fmt.Errorf("node: open index object: %w", err)
		}
	}
	return a.advance()
}

// indexObject is the object whose blobs are the index pages of art.
func indexObject(art *release.Artifact) swarm.Object {
	o := swarm.Object{Sums: art.Pages, Sizes: make([]uint32, len(art.Pages)), Priority: 2}
	for i := range o.Sizes {
		o.Sizes[i] = uint32(pageSize(art, i))
	}
	o.ID = tableID("index", o)
	return o
}

func (a *assembly) hasPage(i int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.got[i]
}

// readPage reads index page i, in buf if that is large enough.
func (a *assembly) readPage(i int, buf []byte) ([]byte, error) {
	n := pageSize(a.art, i)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := a.index.ReadAt(buf, int64(i)*pageBytes); err != nil {
		return nil, fmt.Errorf("node: read index page: %w", err)
	}
	return buf, nil
}

func (a *assembly) putPage(i int, b []byte) error {
	if _, err := a.index.WriteAt(b, int64(i)*pageBytes); err != nil {
		err = fmt.Errorf("node: write index page: %w", err)
		a.fail(err)
		return err
	}
	a.mu.Lock()
	a.got[i] = true
	a.mu.Unlock()
	return nil
}

// advance opens every page that has become known and follows those before it,
// and opens the tree when its listing is complete.
func (a *assembly) advance() error {
	a.advMu.Lock()
	defer a.advMu.Unlock()
	for {
		a.mu.Lock()
		k := len(a.pages)
		ready := k < len(a.got) && a.got[k] && !a.closed
		off, receive, produce, rough, seed := a.next, a.receive, a.produce, a.rough, a.seed
		a.mu.Unlock()
		if !ready {
			break
		}
		p, err := a.loadPage(k, off)
		if err != nil {
			return err
		}
		last := p.chunks[len(p.chunks)-1]
		end := off + last.Offset + int64(last.Len)
		if seed {
			p.markAll()
		} else {
			overlaps := rough.off < end && rough.off+rough.n > off
			a.recheck(p, end, a.resumed || !produce && (a.linked() || overlaps))
		}
		if receive && a.reuse != nil {
			a.copyReused(p)
		}
		if err := a.reg.open(p, swarm.OpenOptions{Receive: receive, Produce: produce}); err != nil {
			return fmt.Errorf("node: open page object: %w", err)
		}
		a.mu.Lock()
		a.pages = append(a.pages, p)
		a.next = end
		a.mu.Unlock()
	}
	if err := a.openTree(nil, 0); err != nil || !a.opened.Load() || a.adopted || a.isSeed() || a.art.Kind != release.Tree {
		return err
	}
	a.adopted = true
	a.mu.Lock()
	pages, reuse, linked := a.pages, a.receive && a.reuse != nil, !a.produce && a.linked()
	a.mu.Unlock()
	for _, p := range pages {
		a.adopt(p, linked, reuse)
	}
	return nil
}

func (a *assembly) loadPage(k int, off int64) (*page, error) {
	b, err := a.readPage(k, nil)
	if err != nil {
		return nil, err
	}
	cs, err := chunk.ParsePage(b)
	if err != nil {
		return nil, err
	}
	last := cs[len(cs)-1]
	end := off + last.Offset + int64(last.Len)
	if end > a.art.Size || (k == len(a.art.Pages)-1) != (end == a.art.Size) {
		return nil, fmt.Errorf("node: index of %s does not add up to %d bytes: %w", a.art.Name, a.art.Size, chunk.ErrPage)
	}
	return newPage(a, a.art.Pages[k], off, cs), nil
}

// zeroSum is the digest of the longest chunk of zeros: what a region that was
// never written reads as. (When it is asked for: every command would pay for it at its start.)
var zeroSum = sync.OnceValue(func() [sha256.Size]byte { return sha256.Sum256(make([]byte, zeroLen)) })

const zeroLen = 256 << 10

// recheck finds the chunks of p that the stream holds from an earlier run or a rebuild that was given up, and
// those that a sparse file holds without having been written. Without all it looks
// for the latter only.
func (a *assembly) recheck(p *page, end int64, all bool) {
	buf := make([]byte, 0, zeroLen)
	for i, c := range p.chunks {
		if !all && (c.Len != zeroLen || c.Sum != zeroSum()) {
			continue
		}
		b, err := p.Get(i, buf)
		if err == nil && sha256.Sum256(b) == c.Sum {
			p.mark(i)
		}
		buf = b[:0]
		// The contents of a tree cannot be read back before it is open.
		if !a.opened.Load() && p.offs[i]+int64(c.Len) == a.art.ListingSize {
			if a.openTree(p, end) != nil {
				return
			}
		}
	}
}

// openTree opens the tree once all chunks of the listing are there; p is a page
// that is not among the opened ones yet and ends at end, or nil.
func (a *assembly) openTree(p *page, end int64) error {
	if a.opened.Load() {
		return nil
	}
	a.mu.Lock()
	pages, next := a.pages, a.next
	a.mu.Unlock()
	if p != nil {
		pages, next = append(pages[:len(pages):len(pages)], p), end
	}
	if next < a.art.ListingSize {
		return nil
	}
	var before *listingError
	for a.hasListing(pages) {
		err := a.st.(*treeStream).open()
		if err == nil {
			a.opened.Store(true)
			return nil
		}
		bad := new(listingError)
		switch {
		case !errors.As(err, &bad):
		case before == nil: // what was read may be something else than was checked
			before = bad
			continue
		case bad.sum != before.sum:
			err = errMisread
		}
		return fmt.Errorf("node: tree %s: %w", a.art.Name, err)
	}
	return nil
}

// hasListing reports whether all of the listing is there, in pages, and can be read: what
// has changed on the disk since it came is given up, and comes again.
func (a *assembly) hasListing(pages []*page) bool {
	inListing := func(p *page, i int) bool { return p.offs[i] < a.art.ListingSize }
	for _, p := range pages {
		for i := range p.chunks {
			if inListing(p, i) && !p.Has(i) {
				return false
			}
		}
	}
	right := true
	var buf []byte
	for _, p := range pages {
		for i, c := range p.chunks {
			if !inListing(p, i) {
				return right
			}
			b, err := p.Get(i, buf)
			if err != nil || sha256.Sum256(b) != c.Sum {
				right = false
				p.Dropped(i)
				a.reg.sw.Drop(p.id, i)
			}
			if err == nil {
				buf = b
			}
		}
	}
	return right
}

// setMode changes what the assembly asks of the swarm, for all its pages.
func (a *assembly) setMode(receive, produce bool) {
	a.advMu.Lock() // a page that is being opened gets the new mode as well
	defer a.advMu.Unlock()
	a.mu.Lock()
	a.receive, a.produce = receive, produce
	pages := a.pages
	a.mu.Unlock()
	for _, p := range pages {
		_ = a.reg.sw.SetOptions(p.id, swarm.OpenOptions{Receive: receive, Produce: produce})
	}
}

// rest ends what the assembly asks of the swarm: where it is installed nothing is written, so that what was lost would
// come again and again.
func (a *assembly) rest() {
	a.setMode(false, false)
	_ = a.reg.sw.SetOptions(a.indexID, swarm.OpenOptions{})
}

// progress returns the bytes verified here, of art.Size.
func (a *assembly) progress() int64 {
	a.mu.Lock()
	pages := a.pages
	a.mu.Unlock()
	var n int64
	for _, p := range pages {
		p.mu.Lock()
		if p.left == 0 {
			last := p.chunks[len(p.chunks)-1]
			n += last.Offset + int64(last.Len)
		} else {
			for i, h := range p.have {
				if h {
					n += int64(p.chunks[i].Len)
				}
			}
		}
		p.mu.Unlock()
	}
	return n
}

// complete reports whether every chunk is there.
func (a *assembly) complete() bool {
	a.mu.Lock()
	pages := a.pages
	a.mu.Unlock()
	if len(pages) < len(a.art.Pages) {
		return false
	}
	for _, p := range pages {
		if p.missing() > 0 {
			return false
		}
	}
	return a.opened.Load()
}

func (a *assembly) snapshot() []*page {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pages
}

// run reports whether the chunk at off is there, and of how many of most bytes from
// off on that is true.
func (a *assembly) run(off, most int64) (n int64, there bool) {
	pages := a.snapshot()
	k := sort.Search(len(pages), func(i int) bool { return pages[i].off > off }) - 1
	if k < 0 {
		return most, false
	}
	p := pages[k]
	i := sort.Search(len(p.offs), func(i int) bool { return p.offs[i] > off }) - 1
	end := p.offs[i] + int64(p.chunks[i].Len)
	if off >= end {
		return most, false // beyond the pages that are known
	}
	return min(most, end-off), p.Has(i)
}

// reverify hashes every chunk anew and takes back those that are wrong.
func (a *assembly) reverify() {
	var buf []byte
	for _, p := range a.snapshot() {
		for i, c := range p.chunks {
			b, err := p.Get(i, buf)
			if err != nil || sha256.Sum256(b) != c.Sum {
				p.Dropped(i)
				a.reg.sw.Drop(p.id, i)
			}
			if err == nil {
				buf = b
			}
		}
	}
}

// forget closes the assembly's objects and files.
func (a *assembly) forget() error {
	a.advMu.Lock()
	defer a.advMu.Unlock()
	a.mu.Lock()
	pages := a.pages
	a.closed = true
	a.mu.Unlock()
	for _, p := range pages {
		a.reg.close(p)
	}
	a.reg.closeIndex(a)
	a.swapMu.Lock()
	defer a.swapMu.Unlock()
	return errors.Join(a.st.Close(), a.index.Close())
}

// source is a prefix-complete view of an assembly as the engine wants it.
type source struct {
	io.ReaderAt
	size int64
}

func (s source) Size() int64 { return s.size }

// errDigest reports an artifact that is not what the manifest says.
var errDigest = errors.New("node: artifact does not have its digest")

// errMisread reports an artifact that does not have its digest either, or whose listing is malformed, where that may be
// the storage's doing: what was read was not the same each time, or not what had been written.
var errMisread = errors.New("node: the storage does not read what was written")
