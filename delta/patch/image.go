package patch

import (
	"bytes"
	"context"
	"encoding/binary"
)

// Machines whose references are understood, by their ELF numbers.
const (
	mach386   = 3
	machARM   = 40
	machX86   = 62
	machARM64 = 183
	machRISCV = 243
)

const (
	maxImages = 1024
	maxLoads  = 8
)

// image is a program within a stream: which of its bytes are mapped where.
type image struct {
	off, end int64 // in the stream
	mach     uint64
	lo, hi   uint64 // of its addresses
	loads    []load
	areas    []area // in order
	rel      bool   // a relocatable object: areas are read from itself
	object   *object

	codeLo, codeHi uint64 // addresses of code
}

// load is a run of bytes that is mapped: at off of the stream, to address v.
type load struct {
	off, n int64
	v, mem uint64
	exec   bool
}

// bounds derives what follows from the loads.
func (im *image) bounds() {
	im.lo, im.hi, im.end = ^uint64(0), 0, im.off
	for _, l := range im.loads {
		im.lo, im.hi, im.end = min(im.lo, l.v), max(im.hi, l.v+l.mem), max(im.end, l.off+l.n)
	}
	im.codeBounds()
}

// addr returns the address of byte off of the stream.
func (im *image) addr(off int64) (v uint64, exec, ok bool) {
	for i := range im.loads {
		if l := &im.loads[i]; off >= l.off && off-l.off < l.n {
			return uint64(off-l.off) + l.v, l.exec, true
		}
	}
	return 0, false, false
}

// offset returns where in the stream the byte at address v is.
func (im *image) offset(v uint64) (int64, bool) {
	for i := range im.loads {
		if l := &im.loads[i]; v >= l.v && v-l.v < uint64(l.n) {
			return int64(v-l.v) + l.off, true
		}
	}
	return 0, false
}

// findImage returns the image that off is in, or nil.
func findImage(ims []image, off int64) *image {
	if i := imageAt(ims, off); i >= 0 {
		return &ims[i]
	}
	return nil
}

// falseMark is what a mark costs of the budget of findImages that is of no program, in bytes, beside what is read there.
const falseMark = 1 << 10

// findImages looks for programs in src. What looks like one and is none costs time, of
// which there is an end: a stream full of such is not searched any further.
func findImages(ctx context.Context, src Source) ([]image, error) {
	return findMore(ctx, nil, src, 0)
}

// findMore adds to out what programs are in src from at on.
func findMore(ctx context.Context, out []image, src Source, at int) ([]image, error) {
	f := &imageFinder{w: newWindow(src), src: src}
	waste := 64<<20 + 2*(src.Size()-int64(at))
	areas := 0
	for i := range out {
		areas += len(out[i].areas)
	}
	for len(out) < maxImages && waste > 0 {
		i, kernel, err := f.next(ctx, at)
		if err != nil || i < 0 {
			return out, err
		}
		im, ok, err := f.look(int64(i), kernel)
		if err != nil {
			return out, err
		}
		at = i + 4
		if !ok {
			waste -= falseMark + int64(len(f.buf))
			continue
		}
		if !kernel && !im.rel {
			im.areas = findAreas(src, &im, f.buf)
			if areas += len(im.areas); areas > maxAreasTotal {
				areas -= len(im.areas)
				im.areas = nil
			}
			im.codeBounds()
		}
		out = append(out, im)
		at = int(im.end)
	}
	return out, nil
}

// imageFinder looks for programs.
type imageFinder struct {
	w     *window
	src   Source
	clear int    // in front of it there is no mark of ELF, but for what has been looked at
	buf   []byte // what look has read
}

// next returns where the next program from at on seems to be, and whether it is a
// kernel; -1: there is none.
func (f *imageFinder) next(ctx context.Context, at int) (i int, kernel bool, err error) {
	w := f.w
	for {
		b, err := w.from(at)
		if err == nil && len(b) < kernelHead && w.hi() < w.size {
			err = w.move(at)
			b = w.buf
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, false, err
		}
		from := min(max(f.clear-at, 0), len(b))
		e, head := bytes.Index(b[from:], []byte("\x7fELF")), b
		if e >= 0 {
			e += from
			f.clear = at + e
			head = b[:min(len(b), e+kernelHead-1)]
		} else {
			f.clear = w.hi() - 3
		}
		if k := kernelAt(head, 0); k >= 0 {
			return at + k, true, nil
		}
		if e >= 0 {
			return at + e, false, nil
		}
		if w.hi() == w.size {
			return -1, false, nil
		}
		at += len(b) - kernelHead + 1 // a mark may lie across the end
	}
}

// look reads the program that seems to be at off; ok reports whether it is one.
func (f *imageFinder) look(off int64, kernel bool) (im image, ok bool, err error) {
	left := f.src.Size() - off
	parse, size, first := parseImage, elfSize, int64(headLen64)
	if kernel {
		parse, size, first = parseKernel, kernelSize, kernelPage
	}
	if err := f.read(off, min(first, left)); err != nil {
		return im, false, err
	}
	if n := min(size(f.buf), left); n > first {
		if err := f.read(off, n); err != nil {
			return im, false, err
		}
	}
	im, ok = parse(f.buf, off, f.src.Size())
	if !ok && !kernel {
		im, ok = parseObject(f.buf, off, f.src.Size())
	}
	return im, ok, nil
}

// read reads n bytes at off.
func (f *imageFinder) read(off, n int64) error {
	f.buf = grow(f.buf, int(n))
	return readWhole(f.src, f.buf, off)
}

const (
	kernelHead = 60        // how much of a kernel tells that it is one
	kernelPage = 4096      // its headers are in
	maxKernel  = 256 << 20 // of which more is not looked at
)

// elfSize returns how much of the ELF file that begins with b its program headers are
// in; 0: they are of no use.
func elfSize(b []byte) int64 {
	if !isProgram(b) {
		return 0
	}
	ph, size, count := programHeaders(b)
	if ph > 1<<20 {
		return 0
	}
	return int64(ph) + int64(size*min(count, maxHeaders))
}

// isProgram reports whether b begins as an ELF file for a machine whose references are
// understood.
func isProgram(b []byte) bool {
	if len(b) < headLen64 || b[5] != 1 || b[4] != 1 && b[4] != 2 {
		return false
	}
	switch binary.LittleEndian.Uint16(b[18:]) {
	case mach386, machARM, machX86, machARM64, machRISCV:
		return true
	}
	return false
}

// parseImage reads the program headers of the ELF file in front of b.
func parseImage(b []byte, off, limit int64) (image, bool) {
	im := image{off: off}
	if !isProgram(b) {
		return im, false
	}
	im.mach = uint64(binary.LittleEndian.Uint16(b[18:]))
	eachProgramHeader(b, func(p programHeader) {
		l := load{off: off + int64(p.from), n: int64(p.n), v: p.v, mem: p.mem, exec: p.flags&1 != 0}
		if p.kind == 1 && len(im.loads) < maxLoads && p.n > 0 && p.from < 1<<32 && l.valid(off, limit) { // PT_LOAD
			im.loads = append(im.loads, l)
		}
	})
	im.bounds()
	return im, len(im.loads) > 0
}

// maxHeaders is how many program headers are looked at.
const maxHeaders = 64

// programHeaders returns where they are in the ELF file in front of b, how long each is
// and how many there are.
func programHeaders(b []byte) (at uint64, size, count int) {
	le := binary.LittleEndian
	if b[4] == 2 {
		return le.Uint64(b[32:]), 56, int(le.Uint16(b[56:]))
	}
	return uint64(le.Uint32(b[28:])), 32, int(le.Uint16(b[44:]))
}

// programHeader is a program header of either width.
type programHeader struct {
	kind, flags     uint32
	from, v, n, mem uint64
}

// eachProgramHeader calls f for the program headers of the ELF file in front of b,
// which has 64 bytes at least.
func eachProgramHeader(b []byte, f func(programHeader)) {
	le := binary.LittleEndian
	wide := b[4] == 2
	ph, size, count := programHeaders(b)
	for i := range min(count, maxHeaders) {
		at := ph + uint64(i*size)
		if ph > 1<<20 || at+uint64(size) > uint64(len(b)) {
			break
		}
		p := b[at:]
		if wide {
			f(programHeader{le.Uint32(p), le.Uint32(p[4:]), le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[32:]), le.Uint64(p[40:])})
		} else {
			f(programHeader{le.Uint32(p), le.Uint32(p[24:]), uint64(le.Uint32(p[4:])), uint64(le.Uint32(p[8:])), uint64(le.Uint32(p[16:])), uint64(le.Uint32(p[20:]))})
		}
	}
}

// maxMem is more than what is mapped at once may take.
const maxMem = 1 << 40

// valid reports whether l lies in a stream of limit bytes, behind off, and its
// addresses are sensible: of at most 52 bits, and the sign.
func (l *load) valid(off, limit int64) bool {
	return l.off >= off && l.n > 0 && l.n <= limit && l.off <= limit-l.n && l.mem < maxMem && l.v+1<<52 < 1<<53 && l.v+l.mem >= l.v && l.mem >= uint64(l.n)
}
