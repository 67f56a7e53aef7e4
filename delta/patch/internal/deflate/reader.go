package deflate

import (
	"fmt"
	"io"
)

// Reader gives the plain bytes of a raw deflate stream. Not safe for concurrent use.
type Reader struct {
	p     *parser
	win   [2 * maxWindow]byte // ring
	w, r  uint16              // written to and read up to; equal: nothing to read
	kind  int
	left  int // of a stored block
	in    bool
	match token // what is left to copy
	total int64 // plain bytes written to win
	err   error

	onBlock func()
}

// NewReader reads the stream that begins at off of src and ends at end at the latest.
func NewReader(src io.ReaderAt, off, end int64) *Reader {
	return &Reader{p: newParser(src, off, end)}
}

// Reset makes r read another stream, and keeps its memory.
func (r *Reader) Reset(src io.ReaderAt, off, end int64) {
	r.p.reset(src, off, end)
	r.w, r.r, r.in, r.left, r.match, r.total, r.err = 0, 0, false, 0, 0, 0, nil
}

// Offset returns where in src the stream ends, once Read has returned io.EOF.
func (r *Reader) Offset() int64 { return r.p.offset() }

// Read returns ErrFormat for what is no deflate stream.
func (r *Reader) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if r.r == r.w {
			if r.err == nil {
				r.decode()
			}
			if r.r == r.w {
				if r.err != nil && n == 0 {
					return 0, r.err
				}
				if r.err != nil {
					return n, nil
				}
				continue
			}
		}
		end := int(r.w)
		if r.w < r.r {
			end = len(r.win)
		}
		k := copy(b[n:], r.win[r.r:end])
		n += k
		r.r += uint16(k)
	}
	return n, nil
}

// decode fills up to half of win.
func (r *Reader) decode() {
	room := maxWindow - maxMatch
	for room > 0 && r.err == nil {
		switch {
		case !r.in:
			if r.onBlock != nil && r.total > 0 && !r.p.lastSeen {
				r.onBlock()
			}
			var b block
			b, r.err = r.p.next()
			r.kind, r.left, r.in = b.kind, b.stored, true
		case r.kind == kindStored:
			if r.left == 0 {
				r.in = false
				continue
			}
			end := min(int(r.w)+min(r.left, room), len(r.win))
			var n int
			n, r.err = r.p.bytes(r.win[r.w:end])
			r.w += uint16(n)
			r.left -= n
			r.total += int64(n)
			room -= n
		default:
			var t token
			t, r.err = r.p.token()
			if r.err == nil {
				room -= r.put(t)
			}
		}
	}
}

// put writes the bytes of a token to win.
func (r *Reader) put(t token) int {
	if !t.isMatch() {
		if t == tokenEnd {
			r.in = false
			return 0
		}
		r.win[r.w] = byte(t)
		r.w++
		r.total++
		return 1
	}
	n, d := t.length(), t.dist()
	if int64(d) > r.total {
		r.err = fmt.Errorf("deflate: %w: distance %d at %d", ErrFormat, d, r.total)
		return 0
	}
	from, to := int(r.w)-d, int(r.w)
	if from >= 0 && to+n <= len(r.win) && d >= n {
		copy(r.win[to:to+n], r.win[from:from+n])
	} else {
		for i := range n {
			r.win[uint16(to+i)] = r.win[uint16(from+i)]
		}
	}
	r.w += uint16(n)
	r.total += int64(n)
	return n
}
