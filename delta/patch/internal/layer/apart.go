package layer

import (
	"errors"
	"fmt"
	"io"
)

const (
	wholes      = 2
	wholeMember = 1536 << 10 // plain bytes and parse of a frame that is kept in memory
)

// PartsMemory bounds what a View of members takes for frames, in bytes, and says how
// many it writes to its file at most.
func PartsMemory(members []Member) (memory, file int64) {
	frames, largest, kept := false, int64(0), int64(0)
	for i := range members {
		m := &members[i]
		if !m.Wrap.Parsed() {
			continue
		}
		frames = true
		largest = max(largest, m.Plain)
		if n := m.Plain + m.Parse; n > wholeMember {
			file += n
		} else {
			kept = max(kept, n)
		}
	}
	if !frames {
		return 0, 0
	}
	if memory = wholes*kept + min(SplitMemory, splitMemory+largest); file > 0 {
		memory += 2 * viewSpool
	}
	return memory, file
}

// splitMemory is what taking a frame apart takes beside the plain bytes it has.
const splitMemory = 2 << 20

// whole is a frame taken apart.
type whole struct {
	member       int
	used         int64 // when, by the clock of the view; 0: empty
	plain, parse []byte
}

// longMembers are frames that are too large for memory.
type longMembers struct {
	spools *Spools
	at     map[int][2]int64 // where plain bytes and parse of a member begin
}

// newViewSpools returns spools that take little memory.
func newViewSpools(dir string) *Spools {
	return &Spools{&Spool{dir: dir, most: viewSpool}, &Spool{dir: dir, most: viewSpool}}
}

// parse reads b at off of the parse of member i.
func (v *View) parse(i int, b []byte, off int64) error { return v.apart(i, true, b, off) }

// apart reads b at off of the plain bytes or the parse of member i, which is a frame.
func (v *View) apart(i int, parse bool, b []byte, off int64) error {
	if m := &v.members[i]; m.Plain+m.Parse > wholeMember {
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
	plain, parse := exactly{old.plain[:0], m.Plain}, exactly{old.parse[:0], m.Parse}
	old.used = 0
	err := v.takeApart(i, &plain, &parse)
	old.plain, old.parse = plain.b, parse.b
	if err != nil {
		return nil, err
	}
	old.member, old.used = i, v.clock
	return old, nil
}

// spooled reads from a frame that is kept in a file, where it is put first.
func (v *View) spooled(i int, parse bool, b []byte, off int64) error {
	l := &v.long
	at, ok := l.at[i]
	if !ok {
		at = [2]int64{l.spools.Plain.Len(), l.spools.Parse.Len()}
		if err := v.takeApart(i, &spoolLeft{l.spools.Plain, v.members[i].Plain}, &spoolLeft{l.spools.Parse, v.members[i].Parse}); err != nil {
			return err
		}
		if l.at == nil {
			l.at = map[int][2]int64{}
		}
		l.at[i] = at
	}
	from, begin := l.spools.Plain, at[0]
	if parse {
		from, begin = l.spools.Parse, at[1]
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
	n, err := c.split(v.src, m.Off, m.end(), plain, parse, nil)
	if err != nil && !errors.Is(err, ErrCorrupt) && !c.isStrange(err) {
		return fmt.Errorf("layer: take member %d apart: %w", i, err)
	}
	if err != nil || n != m.Packed || plain.missing() > 0 || parse.missing() > 0 {
		return fmt.Errorf("%w: member %d is not what it was (%w)", ErrCorrupt, i, err)
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
	if cap(e.b) < int(e.n) {
		e.b = append(make([]byte, 0, e.n), e.b...)
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
	n, err := s.Spool.Write(b)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrFile, err)
	}
	return n, err
}
