package patch

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"

	"updraft/delta/patch/internal/layer"
)

// Source is a byte stream that can be read anywhere.
type Source interface {
	io.ReaderAt
	Size() int64
}

// Profile says what a patch should be good at.
type Profile uint8

// Profiles. Auto makes segments dense where that saves a twentieth, Dense wherever it
// saves a byte; Plain makes none, for devices that are to decode fast.
const (
	Auto Profile = iota
	Plain
	Dense
)

// String returns the profile's name.
func (p Profile) String() string {
	switch p {
	case Plain:
		return "plain"
	case Dense:
		return "dense"
	}
	return "auto"
}

// Options configure Create. The zero value is usable.
type Options struct {
	Profile     Profile
	Jobs        int    // goroutines that compress; 0: one for each CPU, and fewer for small streams
	Memory      int64  // bytes for the index of the base; 0: one and a half times base and new together, at most 768 MiB
	SegmentSize int    // bytes of output in a plain segment, at most MaxSegment; 0: 4 MiB
	Scratch     string // directory for temporary files; empty: the system's
	// OldListing and NewListing are the offsets at which the contents of a tree
	// begin in its stream; 0 for a file.
	OldListing, NewListing int64
	// Progress is told how far Create is, as so many bytes of new: often, never
	// concurrently, and never less than before; all of them at the end. May be nil.
	Progress func(done, total int64)
}

// job is a call of Create.
type job struct {
	Options
	meter *meter
}

// Stats say what Create did.
type Stats struct {
	Info
	Covers  int   // runs of the base that are used
	Covered int64 // bytes of output they give
}

// jobSize is how many bytes of old and new are worth another goroutine, which takes
// some 20 MB.
const jobSize = 32 << 20

// minCopy is the shortest run that becomes a copy segment of its own.
const minCopy = 64 << 10

// Create writes the patch that makes new from old. It reads old into memory, of streams
// above 4 GiB a part at a time. It stops when ctx ends.
func Create(ctx context.Context, old, new Source, w io.Writer, o Options) (Stats, error) {
	if old.Size() > MaxSize || new.Size() > MaxSize {
		return Stats{}, fmt.Errorf("%w: base of %d, new of %d bytes; the limit is 1 TiB", ErrTooLarge, old.Size(), new.Size())
	}
	if o.SegmentSize <= 0 || o.SegmentSize > MaxSegment {
		o.SegmentSize = 4 << 20
	}
	if o.Jobs <= 0 {
		o.Jobs = min(runtime.GOMAXPROCS(0), 1+int((old.Size()+new.Size())/jobSize))
	}
	meter := newMeter(o.Progress, new.Size())
	best, err := createBest(ctx, old, new, job{o, meter})
	if err != nil {
		return Stats{}, err
	}
	for _, b := range append([][]byte{best.head}, best.payloads...) {
		if _, err := w.Write(b); err != nil {
			return Stats{}, fmt.Errorf("patch: write: %w", err)
		}
	}
	meter.end()
	return best.Stats, nil
}

// createBest makes the patch in the way that suits the streams.
func createBest(ctx context.Context, old, new Source, o job) (*made, error) {
	if max(old.Size(), new.Size()) > maxCreate {
		return createSlabs(ctx, old, new, slabSize, o)
	}
	best, err := createSeen(ctx, old, new, o)
	if err != nil {
		return nil, err
	}
	if best == nil || best.forced || old.Size()+new.Size() <= smallPair {
		p, err := create(ctx, old, new, nil, o)
		if err != nil {
			return nil, err
		}
		if best == nil || p.size() <= best.size() {
			best = p
		}
	}
	return best, nil
}

const (
	maxCreate = min(int64(1)<<32, math.MaxInt/2) // what is in memory has to have addresses
	// smallPair: below this many bytes together the patch is made with and without
	// seeing through compression; beyond, where that leaves a decoder no memory for dense
	// segments.
	smallPair = 4 << 20
)

// made is a patch in memory.
type made struct {
	Stats
	head     []byte
	payloads [][]byte
	forced   bool // plain, since the recipe takes the memory for dense segments
}

func (m *made) size() int {
	n := len(m.head)
	for _, b := range m.payloads {
		n += len(b)
	}
	return n
}

// createSeen makes the patch of what is seen through compression; nil if there is
// nothing to see, or too much of it. Where a second layer leaves a decoder no memory for dense
// segments, or cannot be had, it tries with the first alone.
func createSeen(ctx context.Context, old, new Source, o job) (best *made, err error) {
	for most := maxLayers; most > 0; most-- {
		o.meter.attempt(1)
		m, layers, err := createLayers(ctx, old, new, most, o)
		if err != nil {
			return nil, err
		}
		if m != nil && (best == nil || m.size() < best.size()) {
			best = m
		}
		if layers < most || m != nil && !m.forced {
			break
		}
	}
	return best, nil
}

// createLayers makes the patch of what is seen through so many layers of compression at most, and returns of how
// many; nil if there is nothing to see, or too much of it.
func createLayers(ctx context.Context, old, new Source, most int, o job) (*made, int, error) {
	u, err := unpack(ctx, old, new, most, o)
	if err != nil {
		return nil, 0, err
	}
	defer u.Close()
	n := len(u.recipe.layers)
	if n == 0 || u.old.Size() > maxCreate || u.new.Size() > maxCreate {
		return nil, n, nil
	}
	m, err := create(ctx, old, new, u, o)
	if errors.Is(err, errLong) {
		return nil, n, nil
	}
	return m, n, err
}

// digest returns the digest of a stream.
func digest(ctx context.Context, s Source) (sum [32]byte, err error) {
	h := sha256.New()
	b := make([]byte, 1<<20)
	for off := int64(0); off < s.Size(); off += int64(len(b)) {
		b = b[:min(int64(len(b)), s.Size()-off)]
		if err := readWhole(s, b, off); err != nil {
			return sum, err
		}
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		h.Write(b)
	}
	return [32]byte(h.Sum(nil)), nil
}

// maxMemory is what a decoder should get by with, in bytes.
const maxMemory = 32 << 20

// create makes the patch, of the views if u is not nil. errLong: that cannot be.
func create(ctx context.Context, old, new Source, u *unpacking, o job) (*made, error) {
	h := &header{baseSize: old.Size(), newSize: new.Size()}
	m := &made{}
	var r *recipe
	from, to, share := old, new, 1.0
	var err error
	if h.newSum, err = digest(ctx, new); err != nil {
		return nil, err
	}
	if u != nil {
		from, to, r = u.old, u.new, &u.recipe
		plain := r.append(nil)
		r.size = int64(len(plain))
		m.payloads = append(m.payloads, appendStream(nil, plain))
		dropStreamEncoder()
		h.recipe = int64(len(m.payloads[0]))
		o.SegmentSize = min(o.SegmentSize, maxSeen)
		if share = shareOnly; old.Size()+new.Size() <= smallPair {
			share = shareFirst
		}
		switch n := r.needs(); {
		case n.Once > maxMemory-1<<20:
			return nil, errLong
		case n.Memory > maxMemory-denseMemory-4<<20 && o.Profile != Plain:
			o.Profile, m.forced = Plain, true
			share = shareFirst
		}
	}
	o.meter.attempt(share)
	h.baseView, h.newView = from.Size(), to.Size()
	if o.Memory <= 0 {
		o.Memory = indexMemory(h.baseSize + h.newSize)
	}
	k := &making{job: o, h: h, from: from, to: to, view: to}
	for _, step := range []func(context.Context) error{k.cover, k.share, k.match} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	if u == nil {
		h.baseSum = sha256.Sum256(k.base[:h.baseView])
	} else if h.baseSum, err = digest(ctx, old); err != nil {
		return nil, err
	}
	pieces, err := k.cut(u)
	if err != nil {
		return nil, err
	}
	memory := int64(1 << 20)
	if u != nil {
		memory += r.needs().Memory
	}
	if k.appendix != nil {
		memory += layer.SpoolMemory
	}
	payloads, err := encode(ctx, &encoding{old: k.from, new: k.to, cs: k.cs, others: k.before, pieces: pieces, memory: memory, meter: o.meter}, k.programs, h, o)
	if err != nil {
		return nil, err
	}
	m.payloads = append(m.payloads, payloads...)
	m.head = h.append(nil)
	m.Stats = Stats{Info: h.info(int64(len(m.head)), r), Covers: len(k.cs)}
	if u != nil && m.Memory > maxMemory {
		if o.Profile == Plain {
			return nil, errLong
		}
		o.Profile = Plain
		if m, err = create(ctx, old, new, u, o); err == nil {
			m.forced = true
		}
		return m, err
	}
	if u != nil {
		if ok, err := u.affordable(ctx, old, m.Info, k, pieces); !ok {
			return nil, cmp.Or(err, errLong)
		}
	}
	for _, c := range k.cs {
		m.Covered += int64(c.l)
	}
	return m, nil
}

func readAll(ctx context.Context, s Source) ([]byte, error) {
	b := make([]byte, s.Size())
	huge(b)
	piece := make([]byte, min(1<<20, len(b)))
	for off := 0; off < len(b); off += len(piece) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := piece[:min(len(piece), len(b)-off)]
		if err := readWhole(s, p, int64(off)); err != nil {
			return nil, err
		}
		// Pages of zeros are never touched, so that they take no memory: images have many.
		for i := 0; i < len(p); i += len(zeros) {
			if page := p[i:min(i+len(zeros), len(p))]; !bytes.Equal(page, zeros[:len(page)]) {
				copy(b[off+i:], page)
			}
		}
	}
	return b, nil
}

// zeros is a page of them.
var zeros [4096]byte

// piece is the output of one segment.
type piece struct {
	kind   byte
	lo, hi int  // of new
	from   int  // copy: of old
	region byte // of the view
}

// cut splits the output into segments: long exact runs of the base by themselves,
// the rest in pieces of at most size bytes. The output is a part of total bytes.
func cut(old []byte, new *window, cs []cover, size int, total int64) ([]piece, error) {
	var out []piece
	at := 0
	plain := func(to int) {
		for at < to {
			end := min(at+size, to)
			out = append(out, piece{kind: kindPlain, lo: at, hi: end})
			at = end
		}
	}
	for _, c := range cs {
		for i := 0; i < c.l; {
			n, err := agree(old[c.o+i:c.o+c.l], new, c.n+i)
			if err != nil {
				return nil, err
			}
			if n >= minCopy {
				plain(c.n + i)
				out = append(out, piece{kind: kindCopy, lo: c.n + i, hi: c.n + i + n, from: c.o + i})
				at = c.n + i + n
			}
			i += n
			b, err := new.from(min(c.n+i, new.size))
			if err != nil {
				return nil, err
			}
			for k := 0; k < len(b) && i < c.l && old[c.o+i] != b[k]; k++ {
				i++
			}
		}
	}
	plain(new.size)
	return merge(out, size, total), nil
}

// merge joins short copies with the plain pieces around them where a segment of
// their own costs more than they save, or where so many might not fit into the table.
func merge(in []piece, size int, total int64) []piece {
	least := max(1<<20, total/(maxSegs/4))
	var out []piece
	for i, p := range in {
		alone := i == 0 || i == len(in)-1 || int64(p.hi-p.lo) >= least
		if p.kind == kindCopy && !alone {
			p.kind = kindPlain
		}
		if n := len(out) - 1; n >= 0 && p.kind == kindPlain && out[n].kind == kindPlain && p.hi-out[n].lo <= size {
			out[n].hi = p.hi
			continue
		}
		out = append(out, p)
	}
	return split(out, size)
}

func split(in []piece, size int) []piece {
	var out []piece
	for _, p := range in {
		for p.kind == kindPlain && p.hi-p.lo > size {
			out = append(out, piece{kind: kindPlain, lo: p.lo, hi: p.lo + size})
			p.lo += size
		}
		out = append(out, p)
	}
	return out
}
