package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"updraft/delta/patch/internal/deflate"
)

const (
	pageSize = 32 << 10
	pages    = 8
	readers  = 3
	minStep  = 128 << 10 // between points
)

// ViewMemory bounds what a View holds where it inflates, in bytes, beside its members,
// each of which takes MemberMemory, and its points.
const (
	ViewMemory   = pages*pageSize + (readers+1)*(112<<10) + 640<<10
	MemberMemory = 64
)

// View is the view of a base, which is read by ranges: members are inflated as they are
// wanted. It keeps some pages, and of long members points where it can begin within
// them; what lies between is inflated again. Not safe for concurrent use.
type View struct {
	mapping
	src     Source
	stopped func() error // the context's
	budget  *int64       // bytes that may yet be unpacked; nil: no bound
	pages   [pages]page
	open    [readers]stream
	points  []point // in the order of the stream
	room    int     // bytes that points may yet take
	step    int64   // plain bytes between points
	clock   int64
	pass    []byte // what is read to be skipped, or in front of a point
	mem     []byte // a window
	pack    deflate.Writer
	unpack  *deflate.Reader
	whole   []whole
	long    longMembers
}

// page is a piece of a member.
type page struct {
	member, no int64
	used       int64 // when, by the clock; 0: empty
	b          []byte
}

// stream is a member that is being inflated.
type stream struct {
	r      *deflate.Reader
	member int64
	at     int64 // plain bytes read
	used   int64
}

// point is where a member can be begun; the window of it is packed.
type point struct {
	member int64
	deflate.Point
}

// pointCost is what a point takes, in bytes, apart from its window, which takes about
// pointWindow.
const (
	pointCost   = 128
	pointWindow = 12 << 10
)

// NewView returns the view of src through members, of at most limit bytes, with points in at most
// the given memory. It keeps members. Long frames it unpacks into a file in scratch, empty: the
// system's directory. What it unpacks later, and again where that is wanted again, it takes from
// budget, in bytes; ReadAt fails (ErrCorrupt) where nothing is left of it. Several views may have one;
// nil: no bound. Of small frames it keeps more in memory than [PartsOf] says, in at most spare bytes. Close must be called. ErrCorrupt: the members cannot be, or the base has
// no such long frames; ErrFile: the file cannot be written.
func NewView(ctx context.Context, src Source, members []Member, limit, points, spare int64, budget *int64, scratch string) (*View, error) {
	m, err := newMapping(members, src.Size(), limit)
	if err != nil {
		return nil, err
	}
	v := &View{mapping: m, src: src, stopped: ctx.Err, budget: budget, long: longMembers{spools: &Spools{NewSpool(scratch), NewSpool(scratch)}}, room: int(points), step: max(minStep, Long(members)/(points/pointWindow+1)+1)}
	_, kept := largestWhole(members)
	v.whole = make([]whole, wholesOf(kept, spare))
	if err := v.unpackLong(); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// Long returns the plain bytes of those members that points are of use for.
func Long(members []Member) int64 {
	long := int64(0)
	for _, b := range members {
		if b.Plain > minStep && !b.Wrap.Parsed() {
			long += b.Plain
		}
	}
	return long
}

// Close gives the file back that long frames are in.
func (v *View) Close() error { return v.long.spools.Close() }

// spend takes n bytes that are to be unpacked from the budget, unless the context has ended.
func (v *View) spend(n int64) error {
	if v.budget != nil {
		if *v.budget -= n; *v.budget < 0 {
			return fmt.Errorf("%w: members are to be unpacked again and again", ErrCorrupt)
		}
	}
	return v.stopped()
}

// ReadAt implements io.ReaderAt. ErrCorrupt: the base has no such members, or the budget is spent.
func (v *View) ReadAt(b []byte, off int64) (int, error) {
	return v.read(b, off, parts{func(b []byte, off int64) error { return readFull(v.src, b, off) }, v.plain, v.parse})
}

// plain reads b at off of member i.
func (v *View) plain(i int, b []byte, off int64) error {
	if v.members[i].Wrap.Parsed() {
		return v.apart(i, false, b, off)
	}
	for len(b) > 0 {
		p, err := v.page(int64(i), off/pageSize)
		if err != nil {
			return err
		}
		n := copy(b, p[off%pageSize:])
		b = b[n:]
		off += int64(n)
	}
	return nil
}

// page returns page no of a member.
func (v *View) page(member, no int64) ([]byte, error) {
	v.clock++
	old := 0
	for i := range v.pages {
		p := &v.pages[i]
		if p.used > 0 && p.member == member && p.no == no {
			p.used = v.clock
			return p.b, nil
		}
		if p.used < v.pages[old].used {
			old = i
		}
	}
	p := &v.pages[old]
	if p.b == nil {
		p.b = make([]byte, 0, pageSize)
	}
	p.used = 0
	p.b = p.b[:min(pageSize, v.members[member].Plain-no*pageSize)]
	if v.pass == nil {
		v.pass = make([]byte, pageSize)
	}
	if err := v.inflate(member, p.b, no*pageSize); err != nil {
		return nil, err
	}
	p.member, p.no, p.used = member, no, v.clock
	return p.b, nil
}

// inflate reads b at off of a member.
func (v *View) inflate(member int64, b []byte, off int64) error {
	s := v.stream(member, off)
	if err := v.spend(off - s.at + int64(len(b))); err != nil {
		return err
	}
	for s.at < off {
		if err := v.stopped(); err != nil {
			return err
		}
		if err := s.read(v.pass[:min(pageSize, off-s.at)]); err != nil {
			return err
		}
	}
	return s.read(b)
}

// stream returns a reader of the member that is at off or in front of it, as near as
// there is one or can be.
func (v *View) stream(member, off int64) *stream {
	best, old := -1, 0
	for i := range v.open {
		s := &v.open[i]
		if s.used > 0 && s.member == member && s.at <= off && (best < 0 || s.at > v.open[best].at) {
			best = i
		}
		if s.used < v.open[old].used {
			old = i
		}
	}
	from := -1
	for i := range v.points {
		if p := &v.points[i]; p.member == member && p.Plain <= off {
			from = i
		}
	}
	if best >= 0 && (from < 0 || v.open[best].at >= v.points[from].Plain) {
		s := &v.open[best]
		s.used = v.clock
		return s
	}
	s := &v.open[old]
	begin, end := v.members[member].Deflate()
	if s.r == nil {
		s.r = deflate.NewReader(v.src, begin, end)
	} else {
		s.r.Reset(v.src, begin, end)
	}
	s.member, s.at, s.used = member, 0, v.clock
	if from >= 0 {
		p := v.points[from].Point
		v.unpack.Reset(bytes.NewReader(p.Window), 0, int64(len(p.Window)))
		n, _ := io.ReadFull(v.unpack, v.pass) // it is our own work
		p.Window = v.pass[:n]
		s.r.Resume(v.src, end, p)
		s.at = p.Plain
	}
	s.r.OnBlock(nil)
	if v.members[member].Plain > minStep {
		s.r.OnBlock(func() { v.mark(s) })
	}
	return s
}

// mark keeps where s is, between two blocks, unless there is a point nearby.
func (v *View) mark(s *stream) {
	i, before, behind := 0, int64(0), int64(1)<<62
	for k := range v.points {
		p := &v.points[k]
		if p.member > s.member || p.member == s.member && p.Plain > s.r.Total() {
			if p.member == s.member {
				behind = p.Plain
			}
			break
		}
		i = k + 1
		if p.member == s.member {
			before = p.Plain
		}
	}
	if s.r.Total()-before < v.step || behind-s.r.Total() < v.step {
		return
	}
	p := s.r.Point(v.mem[:0])
	v.mem = p.Window
	var packed bytes.Buffer
	_ = v.pack.Reset(&packed, windowParams, nil) // a buffer takes it all
	_, _ = v.pack.Write(p.Window)
	_ = v.pack.Close()
	p.Window = bytes.Clone(packed.Bytes())
	if v.unpack == nil {
		v.unpack = deflate.NewReader(bytes.NewReader(nil), 0, 0)
	}
	if v.room -= len(p.Window) + pointCost; v.room < 0 {
		v.thin()
		if v.room < 0 {
			v.room += len(p.Window) + pointCost
			return
		}
		i = 0
		for i < len(v.points) && (v.points[i].member < s.member || v.points[i].member == s.member && v.points[i].Plain < p.Plain) {
			i++
		}
	}
	v.points = slices.Insert(v.points, i, point{s.member, p})
}

var windowParams = deflate.Params{Family: deflate.Zlib, Level: 1, Memory: 8, Window: 15}

// thin drops every other point.
func (v *View) thin() {
	v.step *= 2
	kept := v.points[:0]
	for i, p := range v.points {
		if i%2 == 1 {
			kept = append(kept, p)
		} else {
			v.room += len(p.Window) + pointCost
		}
	}
	clear(v.points[len(kept):])
	v.points = kept
}

// read reads all of b.
func (s *stream) read(b []byte) error {
	n, err := io.ReadFull(s.r, b)
	s.at += int64(n)
	if err == nil {
		return nil
	}
	s.used = 0
	// A source that ends early is read with other errors than the member's own end.
	if errors.Is(err, deflate.ErrFormat) || err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // io.ReadFull's own
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
