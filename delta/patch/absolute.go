package patch

import "io"

// absolute is a program with the target of each reference in the reference's field, in
// place of what leads there. It is made where it is read, and never there as a whole.
type absolute struct {
	*io.SectionReader // the program as it is
	im                *image
	to                func(v uint64) uint64 // what is said of target v
}

const (
	// absoluteStep is how much of a program is looked through for references at once.
	absoluteStep = 64 << 10
	// absoluteMargin is how much is at hand around that: bytes about a reference tell it.
	absoluteMargin = 1 << 10
	// maxField is how many bytes the field of a reference has at most.
	maxField = 8
)

func newAbsolute(src Source, im *image, to func(v uint64) uint64) *absolute {
	return &absolute{im.in(src), im, to}
}

// in returns the bytes of im, which is in src.
func (im *image) in(src Source) *io.SectionReader {
	return io.NewSectionReader(src, im.off, im.end-im.off)
}

// ReadAt implements io.ReaderAt.
func (a *absolute) ReadAt(b []byte, off int64) (int, error) {
	n, err := a.SectionReader.ReadAt(b, off)
	lo, hi := a.im.off+off, a.im.off+off+int64(n)
	room := make([]byte, absoluteStep+2*absoluteMargin)
	var refs []ref
	for _, l := range a.im.loads {
		// Where the next step begins may depend on where this one did.
		for at := l.off; at < l.off+l.n && at < hi; {
			end := at + min(absoluteStep, edge(nil, a.im, at))
			if end+maxField > lo {
				var rerr error
				if refs, rerr = a.put(b[:n], lo, refs, room, at, end, uint64(at-l.off)+l.v); rerr != nil {
					return 0, rerr
				}
			}
			at = end
		}
	}
	return n, err
}

// put writes the targets of references from at to end, the first at address v, to b,
// which begins at lo. It has refs and room for what it finds and reads.
func (a *absolute) put(b []byte, lo int64, refs []ref, room []byte, at, end int64, v uint64) ([]ref, error) {
	from := max(at-absoluteMargin, a.im.off)
	room = room[:min(end+absoluteMargin, a.im.end)-from]
	if err := readWhole(a.SectionReader, room, from-a.im.off); err != nil {
		return refs, err
	}
	refs = a.im.refs(refs[:0], room, int(at-from), int(end-from), v, a.im.area(at))
	for i := range refs {
		r := &refs[i]
		var e [maxField]byte
		copy(e[:], room[r.at:])
		r.put(e[:], 0, a.to(r.target))
		field := e[:r.width()]
		if k := from + int64(r.at) - lo; k >= 0 {
			if k < int64(len(b)) {
				copy(b[k:], field)
			}
		} else if -k < int64(len(field)) {
			copy(b, field[-k:])
		}
	}
	return refs, nil
}
