package patch

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Source is a byte stream that can be read anywhere.
type Source interface {
	io.ReaderAt
	Size() int64
}

// Profile says what a patch should be good at.
type Profile uint8

// Profiles. Auto lets the encoder choose.
const (
	Auto Profile = iota
	Plain
)

// String returns the profile's name.
func (p Profile) String() string {
	if p == Plain {
		return "plain"
	}
	return "auto"
}

// Options configure Create. The zero value is usable.
type Options struct {
	Profile     Profile
	Jobs        int    // goroutines that compress; 0: one for each CPU
	Memory      int64  // bytes for the index of the base; 0: six times the base, at most 2 GiB
	SegmentSize int    // bytes of output in a plain segment, at most MaxSegment; 0: 4 MiB
	Scratch     string // directory for temporary files; empty: the system's
	// OldListing and NewListing are the offsets at which the contents of a tree
	// begin in its stream; 0 for a file.
	OldListing, NewListing int64
	Progress               func(done, total int64) // bytes of new that have been matched; may be nil
}

// Stats say what Create did.
type Stats struct {
	Info
	Covers  int   // runs of the base that are used
	Covered int64 // bytes of output they give
}

// minCopy is the shortest run that becomes a copy segment of its own.
const minCopy = 64 << 10

// Create writes the patch that makes new from old. It reads both into memory. It
// stops when ctx ends.
func Create(ctx context.Context, old, new Source, w io.Writer, o Options) (Stats, error) {
	if old.Size() > 1<<32 || new.Size() > 1<<32 {
		return Stats{}, fmt.Errorf("%w: base of %d, new of %d bytes; the limit is 4 GiB", ErrTooLarge, old.Size(), new.Size())
	}
	if o.SegmentSize <= 0 || o.SegmentSize > MaxSegment {
		o.SegmentSize = 4 << 20
	}
	if o.Jobs <= 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	if o.Memory <= 0 {
		o.Memory = min(6*old.Size()+1<<16, 2<<30)
	}
	a, err := readAll(ctx, old)
	if err != nil {
		return Stats{}, fmt.Errorf("patch: read base: %w", err)
	}
	b, err := readAll(ctx, new)
	if err != nil {
		return Stats{}, fmt.Errorf("patch: read new: %w", err)
	}
	progress := func(done int64) {
		if o.Progress != nil {
			o.Progress(done, int64(len(b)))
		}
	}
	progress(0)
	cs, err := covers(ctx, a, b, o.Memory, progress)
	if err != nil {
		return Stats{}, err
	}
	h := &header{baseSize: int64(len(a)), newSize: int64(len(b)), baseSum: sha256.Sum256(a), newSum: sha256.Sum256(b)}
	payloads, err := encode(ctx, a, b, cs, h, o)
	if err != nil {
		return Stats{}, err
	}
	head := h.append(nil)
	st := Stats{Info: h.info(int64(len(head))), Covers: len(cs)}
	for _, c := range cs {
		st.Covered += int64(c.l)
	}
	for _, p := range append([][]byte{head}, payloads...) {
		if _, err := w.Write(p); err != nil {
			return Stats{}, fmt.Errorf("patch: write: %w", err)
		}
	}
	progress(int64(len(b)))
	return st, nil
}

func readAll(ctx context.Context, s Source) ([]byte, error) {
	b := make([]byte, s.Size())
	const piece = 4 << 20
	for off := 0; off < len(b); off += piece {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := b[off:min(off+piece, len(b))]
		if n, err := s.ReadAt(p, int64(off)); n < len(p) {
			return nil, errors.Join(err, io.ErrUnexpectedEOF)
		}
	}
	return b, nil
}

// piece is the output of one segment.
type piece struct {
	kind   byte
	lo, hi int // of new
	from   int // copy: of old
}

// cut splits the output into segments: long exact runs of the base by themselves,
// the rest in pieces of at most size bytes.
func cut(old, new []byte, cs []cover, size int) []piece {
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
			n := common(old[c.o+i:c.o+c.l], new[c.n+i:c.n+c.l])
			if n >= minCopy {
				plain(c.n + i)
				out = append(out, piece{kindCopy, c.n + i, c.n + i + n, c.o + i})
				at = c.n + i + n
			}
			i += n
			for i < c.l && old[c.o+i] != new[c.n+i] {
				i++
			}
		}
	}
	plain(len(new))
	return merge(out, size)
}

// merge joins short copies with the plain pieces around them where a segment of
// their own costs more than they save.
func merge(in []piece, size int) []piece {
	var out []piece
	for i, p := range in {
		alone := i == 0 || i == len(in)-1 || p.hi-p.lo >= 1<<20
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

// encode makes the payloads and fills in the table.
func encode(ctx context.Context, old, new []byte, cs []cover, h *header, o Options) ([][]byte, error) {
	pieces := cut(old, new, cs, o.SegmentSize)
	if len(pieces) > maxSegs {
		return nil, fmt.Errorf("%w: %d segments", ErrTooLarge, len(pieces))
	}
	payloads := make([][]byte, len(pieces))
	h.segs = make([]segment, len(pieces))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(o.Jobs)
	next := 0
	for i, p := range pieces {
		for next < len(cs) && cs[next].n+cs[next].l <= p.lo {
			next++
		}
		first := next
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			s := segment{kind: p.kind, size: int64(p.hi - p.lo)}
			if p.kind == kindCopy {
				payloads[i] = binary.AppendUvarint(nil, uint64(p.from))
			} else {
				sum := sha256.Sum256(new[p.lo:p.hi])
				copy(s.sum[:], sum[:])
				payloads[i] = encodePlain(old, new, cs[first:], p)
			}
			s.payload = int64(len(payloads[i]))
			h.segs[i] = s
			return nil
		})
	}
	return payloads, g.Wait()
}
