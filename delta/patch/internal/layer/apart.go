package layer

import (
	"errors"
	"fmt"
	"io"
	"runtime"
)

const (
	wholeMember = 1536 << 10 // plain bytes and parse of a frame that is kept in memory
	leastWholes = 2
	mostWholes  = 8
	wholeRoom   = 1536 << 10 // bytes for more of them than leastWholes
)

// wholesOf returns how many frames of at most n bytes are kept with so many bytes to spare.
func wholesOf(n, spare int64) int64 {
	return min(leastWholes+max(0, min(spare, wholeRoom))/max(n, 1), mostWholes)
}

// Parts bounds what a View takes for frames, in bytes.
type Parts struct {
	Memory int64 // for as long as it lives
	Once   int64 // while long frames are unpacked, before anything is read
	File   int64 // in its file, at most
}

// PartsOf returns what a View of members takes for frames.
func PartsOf(members []Member) (p Parts) {
	largest, kept := largestWhole(members)
	for i := range members {
		if m := &members[i]; m.long() {
			p.File += m.Plain + m.Parse
			p.Once = max(p.Once, splitOf(m.Plain))
		}
	}
	if kept > 0 {
		p.Memory = leastWholes*kept + splitOf(largest)
	}
	if p.File > 0 {
		p.Memory += 2 * SpoolMemory
	}
	return p
}

// largestWhole returns the most bytes of frames that are kept in memory, without and with their parse.
func largestWhole(members []Member) (plain, both int64) {
	for i := range members {
		if m := &members[i]; m.Wrap.Parsed() && !m.long() {
			plain, both = max(plain, m.Plain), max(both, m.Plain+m.Parse)
		}
	}
	return plain, both
}

// splitOf returns what taking a frame of n plain bytes apart takes: those that it looks
// back to, in a buffer that grows in two or three steps.
func splitOf(n int64) int64 {
	switch {
	case n <= 256<<10:
		return 2 << 20
	case n <= wholeMember:
		return 4 << 20
	}
	return SplitMemory
}

// long reports whether the member is a frame that is kept in a file.
func (m *Member) long() bool { return m.Wrap.Parsed() && m.Plain+m.Parse > wholeMember }

// whole is a frame taken apart.
type whole struct {
	member       int
	used         int64  // when, by the clock of the view; 0: empty
	buf          []byte // for both, so that it is as large as the largest of them together
	plain, parse []byte
}

// longMembers are frames that are too large for memory.
type longMembers struct {
	spools *Spools
	at     map[int][2]int64 // where plain bytes and parse of a member begin
}

// parse reads b at off of the parse of member i.
func (v *View) parse(i int, b []byte, off int64) error { return v.apart(i, true, b, off) }

// apart reads b at off of the plain bytes or the parse of member i, which is a frame.
func (v *View) apart(i int, parse bool, b []byte, off int64) error {
	if v.members[i].long() {
		return v.spooled(i, parse, b, off)
	}
	s, err := v.atHand(i)
	if err != nil {
		return err
	}
	from := s.plain
	if parse {
		from = s.parse
	}
	copy(b, from[off:])
	return nil
}

// atHand takes member i apart, unless it is at hand.
func (v *View) atHand(i int) (*whole, error) {
	v.clock++
	old := &v.whole[0]
	for k := range v.whole {
		s := &v.whole[k]
		if s.used > 0 && s.member == i {
			s.used = v.clock
			return s, nil
		}
		if s.used < old.used {
			old = s
		}
	}
	m := &v.members[i]
	if err := v.spend(m.Plain + m.Parse); err != nil {
		return nil, err
	}
	old.used = 0
	if n := m.Plain + m.Parse; int64(cap(old.buf)) < n {
		*old = whole{}
		old.buf = make([]byte, n)
	}
	plain, parse := exactly{old.buf[:0:m.Plain], m.Plain}, exactly{old.buf[m.Plain:m.Plain:cap(old.buf)], m.Parse}
	err := v.takeApart(i, &plain, &parse)
	old.plain, old.parse = plain.b, parse.b
	if err != nil {
		return nil, err
	}
	old.member, old.used = i, v.clock
	return old, nil
}

// unpackLong puts long frames into the file.
func (v *View) unpackLong() error {
	l := &v.long
	l.at = map[int][2]int64{}
	for i := range v.members {
		m := &v.members[i]
		if !m.long() {
			continue
		}
		l.at[i] = [2]int64{l.spools.Plain.Size(), l.spools.Parse.Size()}
		if err := v.takeApart(i, &spoolLeft{l.spools.Plain, m.Plain}, &spoolLeft{l.spools.Parse, m.Parse}); err != nil {
			return err
		}
	}
	if len(l.at) > 0 {
		runtime.GC() // what that took is wanted for what follows
	}
	return nil
}

// spooled reads from a frame that is in the file.
func (v *View) spooled(i int, parse bool, b []byte, off int64) error {
	l := &v.long
	from, begin := l.spools.Plain, l.at[i][0]
	if parse {
		from, begin = l.spools.Parse, l.at[i][1]
	}
	if err := readFull(from, b, begin+off); err != nil {
		return fmt.Errorf("%w: %w", ErrFile, err)
	}
	return nil
}

// counted takes so many bytes.
type counted interface {
	io.Writer
	missing() int64
}

// takeApart writes what member i is made of.
func (v *View) takeApart(i int, plain, parse counted) error {
	m := &v.members[i]
	c := codecs[m.Wrap]
	n, err := c.split(v.src, m.Off, m.end(), plain, parse, v.stopped)
	if err != nil && !errors.Is(err, ErrCorrupt) && !c.isStrange(err) {
		return fmt.Errorf("layer: take member %d apart: %w", i, err)
	}
	if err != nil {
		return fmt.Errorf("%w: member %d: %w", ErrCorrupt, i, err)
	}
	if n != m.Packed || plain.missing() > 0 || parse.missing() > 0 {
		return fmt.Errorf("%w: member %d is not what it was", ErrCorrupt, i)
	}
	return nil
}

// exactly collects bytes, as many as are said.
type exactly struct {
	b []byte
	n int64
}

func (e *exactly) missing() int64 { return e.n - int64(len(e.b)) }

// Write implements io.Writer.
func (e *exactly) Write(b []byte) (int, error) {
	if int64(len(b)) > e.missing() {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrCorrupt, e.n)
	}
	e.b = append(e.b, b...)
	return len(b), nil
}

// spoolLeft writes to a spool, as many bytes as are left.
type spoolLeft struct {
	*Spool
	left int64
}

func (s *spoolLeft) missing() int64 { return s.left }

// Write implements io.Writer.
func (s *spoolLeft) Write(b []byte) (int, error) {
	if int64(len(b)) > s.left {
		return 0, fmt.Errorf("%w: %d bytes too many", ErrCorrupt, int64(len(b))-s.left)
	}
	s.left -= int64(len(b))
	return s.Spool.Write(b)
}
