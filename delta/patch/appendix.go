package patch

import (
	"context"
	"encoding/binary"
	"io"
	"slices"
	"sort"
)

// What the output has several times and the base has not, or not so, is in the patch once: as an appendix, which
// segments are decoded to first. It is not written, but is behind the base for all others, so that they stay
// independent of one another.

// joint is two streams, one behind the other.
type joint struct{ front, rest Source }

// Size implements Source.
func (j *joint) Size() int64 { return j.front.Size() + j.rest.Size() }

// ReadAt implements io.ReaderAt.
func (j *joint) ReadAt(b []byte, off int64) (n int, err error) {
	if size := j.front.Size(); off < size {
		k := int(min(int64(len(b)), size-off))
		if n, err = j.front.ReadAt(b[:k], off); n < k {
			return n, err
		}
	}
	if n == len(b) {
		return n, nil
	}
	k, err := j.rest.ReadAt(b[n:], off+int64(n)-j.front.Size())
	return n + k, err
}

// excerpt is parts of a stream, one behind the other.
type excerpt struct {
	src   Source
	spans []span
	at    []int // where each is in the excerpt, and where that ends
}

func newExcerpt(src Source, spans []span) *excerpt {
	x := &excerpt{src: src, spans: spans, at: make([]int, 1, len(spans)+1)}
	for i, s := range spans {
		x.at = append(x.at, x.at[i]+s.hi-s.lo)
	}
	return x
}

// Size implements Source.
func (x *excerpt) Size() int64 { return int64(x.at[len(x.spans)]) }

// ReadAt implements io.ReaderAt.
func (x *excerpt) ReadAt(b []byte, off int64) (n int, err error) {
	i := sort.SearchInts(x.at, int(off)+1) - 1
	for ; n < len(b) && i < len(x.spans); i++ {
		s := x.spans[i]
		from := s.lo + int(off) + n - x.at[i]
		k := min(len(b)-n, s.hi-from)
		got, err := x.src.ReadAt(b[n:n+k], int64(from))
		if n += got; got < k {
			return n, err
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// covers returns what cs give of the excerpt, which begins at offset at of the output.
func (x *excerpt) covers(cs []cover, at int) []cover {
	var out []cover
	for i, s := range x.spans {
		for _, c := range (piece{lo: s.lo, hi: s.hi}).covers(cs) {
			lo, hi := max(c.n, s.lo), min(c.n+c.l, s.hi)
			out = append(out, cover{at + x.at[i] + lo - s.lo, c.o + lo - c.n, hi - lo})
		}
	}
	return out
}

// cut is cut for the excerpt, which is made from old with covers that begin at offset at of the output, as it does.
func (x *excerpt) cut(old []byte, cs []cover, size, at int) ([]piece, error) {
	own := slices.Clone(cs)
	for i := range own {
		own[i].n -= at
	}
	ps, err := cut(old, newWindow(x), own, size, x.Size())
	for i := range ps {
		ps[i].lo, ps[i].hi, ps[i].region = ps[i].lo+at, ps[i].hi+at, regionAppendix
	}
	return ps, err
}

// What parts of the output take in a patch, in bits, about.
const (
	literalBits = 2   // a byte that no cover gives
	coverBits   = 40  // a cover
	blockBits   = 6   // a block in which a cover differs
	guessedBits = 2   // the same in a program, where references are predicted
	repeatBits  = 150 // a repeat: covers that lead to the appendix and back, and those that it is made with
	sameBits    = 12  // going on in it behind what differs, at the same distance
)

const (
	// cheapLen is how much of a cover has to be as in the base to be no matter. Repeats end there, so that the
	// appendix, which a decoder has to keep, is not for the most part what the base has.
	cheapLen = 32 << 10
	// placeBits: of so many bits of a hash, all 0, a place is remembered; repeatLen is how much it is the hash of.
	placeBits = 4
	repeatLen = 32
	// longRepeat is how long a repeat is that the appendix has for the first time only.
	longRepeat = 1 << 10
	// leastRepeats is what repeats have to save together, in bits, and leastShare their part of all.
	leastRepeats = 256 * 8
	leastShare   = 1.0 / 64
	// keptBits is how many bytes of the appendix have to save a bit.
	keptBits = 128
	// maxAppendix is the most that a decoder is made to keep, in bytes.
	maxAppendix = 256 << 20
	// nearRepeat is how much less is saved where both are in one segment, whose coder sees that itself.
	nearRepeat = 8
)

// prices tell what parts of the output take: of sum[i] bits in front of at[i], and evenly between.
type prices struct {
	at  []int
	sum []int64
}

// add notes that what is from lo to hi, behind all before, takes so many bits.
func (p *prices) add(lo, hi int, bits int64) {
	k := len(p.at) - 1
	if k > 0 && lo-p.at[k] < 256 && hi-p.at[k-1] < 1<<10 {
		p.at[k] = hi
		p.sum[k] += bits
		return
	}
	if k < 0 || p.at[k] < lo {
		p.at, p.sum = append(p.at, lo), append(p.sum, p.total())
	}
	p.at, p.sum = append(p.at, hi), append(p.sum, p.total()+bits)
}

func (p *prices) total() int64 {
	if len(p.sum) == 0 {
		return 0
	}
	return p.sum[len(p.sum)-1]
}

// upTo returns what is in front of i takes.
func (p *prices) upTo(i int) int64 {
	k := sort.SearchInts(p.at, i)
	switch {
	case k == len(p.at):
		return p.total()
	case k == 0:
		return 0
	}
	lo, hi, from := p.at[k-1], p.at[k], p.sum[k-1]
	return from + int64(float64(p.sum[k]-from)*float64(i-lo)/float64(hi-lo))
}

// price returns what the output, with programs in it, takes with the covers cs, and what of it is as in the base in
// long runs.
func price(ctx context.Context, old []byte, fresh *window, cs []cover, programs []image) (p prices, cheap []span, err error) {
	at := 0
	for _, c := range cs {
		if err := ctx.Err(); err != nil {
			return p, nil, err
		}
		if c.n > at {
			p.add(at, c.n, int64(c.n-at)*literalBits)
		}
		p.add(c.n, c.n+min(c.l, blockLen), coverBits)
		for i := 0; i < c.l; i += blockLen {
			n, err := agree(old[c.o+i:c.o+c.l], fresh, c.n+i)
			if err != nil {
				return p, nil, err
			}
			if s := apart(programs, span{c.n + i, c.n + i + n}); s.hi-s.lo >= cheapLen {
				cheap = append(cheap, s)
			}
			if i += n; i < c.l {
				bits := int64(blockBits)
				if imageAt(programs, int64(c.n+i)) >= 0 {
					bits = guessedBits
				}
				p.add(c.n+i, c.n+min(i+blockLen, c.l), bits)
			}
		}
		at = c.n + c.l
	}
	if at < fresh.size {
		p.add(at, fresh.size, int64(fresh.size-at)*literalBits)
	}
	return p, cheap, nil
}

// apart returns s without the programs that reach beyond it: references in them lead from one part to others.
func apart(programs []image, s span) span {
	if i := imageAt(programs, int64(s.lo)); i >= 0 && programs[i].off < int64(s.lo) {
		s.lo = int(programs[i].end)
	}
	if i := imageAt(programs, int64(s.hi)); i >= 0 && programs[i].off < int64(s.hi) {
		s.hi = int(programs[i].off)
	}
	return s
}

// repeats finds what a stream has several times.
type repeats struct {
	src    Source
	prices prices
	size   int      // of segments
	places []uint32 // by hash: place+1
	x, y   []byte
	lo, hi int    // what is looked at
	again  []span // what came again so far in long repeats
	spans  []span // what comes again, where it is for the first time
	saved  int64  // by all
	open   [4]repeat
	next   int // of open, to be closed
}

// repeat is what comes again from one place on, with what differs between.
type repeat struct {
	span        // where it is for the first time
	end, by int // where it ends now, and how far that is from there
	saved   int64
}

// repeatGap is how much may lie between parts of a repeat.
const repeatGap = 4 << 10

// findRepeats returns what is to be the appendix of fresh, which has programs and gets segments of size bytes; nil:
// nothing. It takes up to a byte of memory for each that is looked at, and memory bytes at most.
func findRepeats(ctx context.Context, old []byte, fresh Source, cs []cover, programs []image, size int, memory int64) (*excerpt, error) {
	w := newWindow(fresh)
	p, cheap, err := price(ctx, old, w, cs, programs)
	if err != nil || p.total() < 4*leastRepeats {
		return nil, err
	}
	dear := w.size
	for _, s := range cheap {
		dear -= s.hi - s.lo
	}
	n := 1 << 10
	for n < dear>>(placeBits-1) && 8*int64(n) <= memory {
		n *= 2
	}
	r := &repeats{src: fresh, prices: p, size: size, places: make([]uint32, n), x: make([]byte, 64<<10), y: make([]byte, 64<<10)}
	w.lo, w.buf = 0, w.buf[:0]
	at := 0
	for _, s := range append(cheap, span{w.size, w.size}) {
		r.lo, r.hi = at, s.lo
		if err := r.find(ctx, w); err != nil {
			return nil, err
		}
		at = s.hi
	}
	for k := range r.open {
		r.close(k)
	}
	if r.saved < leastRepeats || float64(r.saved) < leastShare*float64(p.total()) {
		return nil, nil
	}
	if x := newExcerpt(fresh, joined(r.spans)); x.Size() <= maxAppendix {
		return x, nil
	}
	return nil, nil
}

// find looks through a part.
func (r *repeats) find(ctx context.Context, w *window) error {
	for i := r.lo; i+repeatLen <= r.hi; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := w.from(i)
		if err == nil && len(b) < repeatLen {
			err = w.move(i)
			b = w.buf
		}
		if err != nil {
			return err
		}
		b = b[:min(len(b), r.hi-i)]
		k, l := 0, 0
		for ; k+repeatLen <= len(b) && l == 0; k++ {
			if l, err = r.place(b[k:], i+k); err != nil {
				return err
			}
		}
		i += max(k-1+l, k)
	}
	return nil
}

// place looks at the place i, where b is, and returns how much of it comes again: it is done with, or 0.
func (r *repeats) place(b []byte, i int) (int, error) {
	le := binary.LittleEndian
	h := le.Uint64(b) * 0x9E3779B97F4A7C15
	if h>>(64-placeBits) != 0 || le.Uint64(b) == 0 {
		return 0, nil
	}
	h = ((h^le.Uint64(b[8:]))*0xD6E8FEB86659FD93 ^ le.Uint64(b[16:])) * 0x9E3779B97F4A7C15
	h = (h ^ h>>29 ^ le.Uint64(b[24:])) * 0xD6E8FEB86659FD93
	at := &r.places[h>>32&uint64(len(r.places)-1)]
	if *at == 0 {
		*at = uint32(i + 1)
		return 0, nil
	}
	p := int(*at - 1)
	// What is there for the first time ends where something long comes again: of periods there is one.
	k := sort.Search(len(r.again), func(k int) bool { return r.again[k].lo > p })
	first := span{0, i}
	if k > 0 {
		first.lo = r.again[k-1].hi
	}
	if k < len(r.again) {
		first.hi = r.again[k].lo
	}
	ahead, err := r.agree(p, i, min(first.hi-p, r.hi-i), false)
	if err != nil || ahead < repeatLen {
		return 0, err
	}
	behind, err := r.agree(p, i, min(p-first.lo, i-r.lo, i-p-ahead), true)
	if err != nil {
		return 0, err
	}
	saved := r.prices.upTo(i+ahead) - r.prices.upTo(i-behind)
	if p/r.size == i/r.size {
		saved /= nearRepeat
	}
	r.add(span{p - behind, p + ahead}, i+ahead, saved)
	if ahead+behind >= longRepeat {
		r.again = append(r.again, span{i - behind, i + ahead})
	}
	r.lo = i + ahead
	return ahead, nil
}

// add notes that s comes again, up to end, which saves so many bits.
func (r *repeats) add(s span, end int, saved int64) {
	for k := range r.open {
		o := &r.open[k]
		if gap := s.lo - o.hi; o.saved == 0 || gap < 0 || gap > repeatGap || end-(s.hi-s.lo)-o.end > repeatGap {
			continue
		}
		if saved -= coverBits; end-s.hi == o.by {
			saved += coverBits - sameBits
		}
		if saved > 0 {
			o.hi, o.end, o.by = s.hi, end, end-s.hi
			o.saved += saved
		}
		return
	}
	if saved > coverBits {
		r.close(r.next)
		r.open[r.next] = repeat{s, end, end - s.hi, saved}
		r.next = (r.next + 1) % len(r.open)
	}
}

// close takes the repeat k if it pays.
func (r *repeats) close(k int) {
	o := &r.open[k]
	if o.saved -= repeatBits; o.saved > repeatBits && o.saved > int64(o.hi-o.lo)/keptBits {
		r.spans = append(r.spans, o.span)
		r.saved += o.saved
	}
	*o = repeat{}
}

// agree returns how many bytes from p and from i on, or in front of them, are the same, of n at most.
func (r *repeats) agree(p, i, n int, front bool) (int, error) {
	l := 0
	for step := 256; l < n; step = min(2*step, len(r.x)) {
		k := min(step, n-l)
		at := l
		if front {
			at = -l - k
		}
		x, y := r.x[:k], r.y[:k]
		if err := readWhole(r.src, x, int64(p+at)); err != nil {
			return 0, err
		}
		if err := readWhole(r.src, y, int64(i+at)); err != nil {
			return 0, err
		}
		same := 0
		if !front {
			same = common(x, y)
		}
		for front && same < k && x[k-1-same] == y[k-1-same] {
			same++
		}
		if l += same; same < k {
			break
		}
	}
	return l, nil
}
