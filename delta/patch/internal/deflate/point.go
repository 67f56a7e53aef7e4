package deflate

import "io"

// Point is where a Reader can begin within a stream: between two of its blocks.
type Point struct {
	Plain  int64  // plain bytes in front of it
	Window []byte // the last of them, at most 32 KiB
	off    int64  // where in the source it goes on
	used   uint8  // bits of that byte that belong to the block before
}

// OnBlock makes r call fn between blocks, while it reads; fn may call Point.
func (r *Reader) OnBlock(fn func()) { r.onBlock = fn }

// Point returns the place between two blocks that r has reached; it is for OnBlock.
// Window is put into buf if that is large enough.
func (r *Reader) Point(buf []byte) Point {
	p := Point{Plain: r.total, off: r.p.offset()}
	if k := r.p.have % 8; k > 0 {
		p.off--
		p.used = uint8(8 - k)
	}
	n := int(min(r.total, maxWindow))
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	p.Window = buf[:n]
	from := int(r.w) - n
	if from < 0 {
		k := copy(p.Window, r.win[len(r.win)+from:])
		copy(p.Window[k:], r.win[:])
	} else {
		copy(p.Window, r.win[from:])
	}
	return p
}

// Total returns the plain bytes that r has decoded: what Read has returned, and what
// it will return next.
func (r *Reader) Total() int64 { return r.total }

// Resume makes r go on at p, a point of the stream of src that ends at end at the
// latest. OnBlock is as after Reset.
func (r *Reader) Resume(src io.ReaderAt, end int64, p Point) {
	r.Reset(src, p.off, end)
	copy(r.win[:], p.Window)
	r.w = uint16(len(p.Window))
	r.r, r.total = r.w, p.Plain
	_, r.err = r.p.take(uint(p.used))
}
