package patch

import (
	"bytes"
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

// imageHead is how much of a program its headers are looked for in.
const imageHead = 1<<20 + 64*56

// findImages looks for programs in src.
func findImages(src Source) ([]image, error) {
	var out []image
	w := newWindow(src)
	areas := 0
	for at := 0; len(out) < maxImages; {
		i, kernel, err := nextImage(w, at)
		if err != nil || i < 0 {
			return out, err
		}
		n, parse := min(w.size-i, imageHead), parseImage
		if kernel {
			if n, err = kernelSize(src, i); err != nil {
				return out, err
			}
			parse = parseKernel
		}
		b := make([]byte, n)
		if err := readWhole(src, b, int64(i)); err != nil {
			return out, err
		}
		at = i + 4
		im, ok := parse(b, int64(i), int64(w.size))
		if !ok && !kernel {
			im, ok = parseObject(b, int64(i), int64(w.size))
		}
		if ok {
			if !kernel && !im.rel {
				im.areas = findAreas(src, &im, b)
				if areas += len(im.areas); areas > maxAreasTotal {
					areas -= len(im.areas)
					im.areas = nil
				}
				im.codeBounds()
			}
			out = append(out, im)
			at = int(im.end)
		}
	}
	return out, nil
}

// nextImage returns where the next program from at on seems to be, and whether it is a
// kernel; -1: there is none.
func nextImage(w *window, at int) (i int, kernel bool, err error) {
	for {
		b, err := w.from(at)
		if err == nil && len(b) < kernelHead && w.hi() < w.size {
			err = w.move(at)
			b = w.buf
		}
		if err != nil {
			return 0, false, err
		}
		e, head := bytes.Index(b, []byte("\x7fELF")), b
		if e >= 0 {
			head = b[:min(len(b), e+kernelHead-1)]
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

const (
	kernelHead = 60        // how much of a kernel tells that it is one
	maxKernel  = 256 << 20 // of which more is not looked at
)

// kernelSize returns how many bytes of the stream a kernel at i may be.
func kernelSize(src Source, i int) (int, error) {
	var b [24]byte
	n := int(src.Size()) - i
	if n < len(b) {
		return n, nil
	}
	if err := readWhole(src, b[:], int64(i)); err != nil {
		return 0, err
	}
	mem := binary.LittleEndian.Uint64(b[16:])
	return int(min(uint64(n), max(mem, 4096), maxKernel)), nil
}

// parseImage reads the program headers of the ELF file in front of b.
func parseImage(b []byte, off, limit int64) (image, bool) {
	im := image{off: off}
	le := binary.LittleEndian
	if len(b) < 64 || b[5] != 1 || b[4] != 1 && b[4] != 2 {
		return im, false
	}
	im.mach = uint64(le.Uint16(b[18:]))
	switch im.mach {
	case mach386, machARM, machX86, machARM64, machRISCV:
	default:
		return im, false
	}
	eachProgramHeader(b, func(p programHeader) {
		l := load{off: off + int64(p.from), n: int64(p.n), v: p.v, mem: p.mem, exec: p.flags&1 != 0}
		if p.kind == 1 && len(im.loads) < maxLoads && p.n > 0 && p.from < 1<<32 && l.valid(off, limit) { // PT_LOAD
			im.loads = append(im.loads, l)
		}
	})
	im.bounds()
	return im, len(im.loads) > 0
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
	ph, size, count := uint64(le.Uint32(b[28:])), 32, int(le.Uint16(b[44:]))
	if wide {
		ph, size, count = le.Uint64(b[32:]), 56, int(le.Uint16(b[56:]))
	}
	for i := range min(count, 64) {
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

// valid reports whether l lies in a stream of limit bytes, behind off, and its
// addresses are sensible: of at most 52 bits, and the sign.
func (l *load) valid(off, limit int64) bool {
	return l.off >= off && l.n > 0 && l.n <= limit && l.off <= limit-l.n && l.mem < 1<<40 && l.v+1<<52 < 1<<53 && l.v+l.mem >= l.v && l.mem >= uint64(l.n)
}
