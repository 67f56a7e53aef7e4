package patch

import "io"

// Part is what bytes of a segment are for.
type Part uint8

// Parts.
const (
	Copies   Part = iota // long runs of the base as they are
	Residual             // where in the base the rest comes from, and how it differs
	Literals             // what the base does not have
	Parses               // how frames are packed
	Shared               // what the output has several times, once; of none of its bytes in particular
	parts
)

// Cost is what a run of the output takes of a patch. Of bytes that a compressor holds
// back it is told with what it gives next.
type Cost struct {
	Off, Size int64 // of the output
	Part      Part
	Bytes     int64 // of the patch
}

// account tells what the output takes; nil: nobody wants to know.
type account struct {
	tell func(Cost)
	at   func() int64 // how much of the output there is
	told int64
	owed [parts]int64
	tally
}

// newAccount returns an account for what h says, which goes to out.
func newAccount(tell func(Cost), h *header, out *sink) *account {
	if tell == nil {
		return nil
	}
	return &account{tell: tell, at: func() int64 { return h.newSize - out.left }}
}

// begin begins a segment of the region with a payload of so many bytes.
func (a *account) begin(payload int, region byte) {
	if a != nil {
		a.tally = tally{list: a.list[:0], region: region, payload: payload}
	}
}

// emit writes b, the output whose expenses the tally has.
func (a *account) emit(w io.Writer, b []byte) error {
	from := 0
	for _, m := range append(a.list, expense{out: len(b)}) {
		a.owed[m.part] += int64(m.bytes)
		if m.out > from {
			if _, err := w.Write(b[from:m.out]); err != nil {
				return err
			}
		}
		from = m.out
		a.settle(false)
	}
	a.list = a.list[:0]
	return nil
}

// settle tells what is owed for what has been written; last: nothing more comes.
func (a *account) settle(last bool) {
	if a == nil {
		return
	}
	at := a.at()
	if n := a.owed[Shared]; n > 0 {
		a.tell(Cost{Off: at, Part: Shared, Bytes: n})
		a.owed[Shared] = 0
	}
	if at == a.told && !last {
		return
	}
	for p, n := range a.owed {
		if n > 0 {
			a.tell(Cost{Off: a.told, Size: at - a.told, Part: Part(p), Bytes: n})
		}
	}
	a.owed, a.told = [parts]int64{}, at
}

// tally is what runs of a segment take of its payload.
type tally struct {
	list   []expense
	region byte

	payload, spent int // bytes of the payload, and those so far

	light                  bool // a plain segment
	start                  int  // where it begins in the output
	out                    int  // what there is of it
	lit, all, used, shared int  // what literals take, how many there are, and how far both are told of
}

// expense says that the output from the one before to out takes so many bytes.
type expense struct {
	out, bytes int
	part       Part
}

func (t *tally) add(p Part, out, n int) {
	switch {
	case ofParse(t.region):
		p = Parses
	case t.region == regionAppendix:
		p = Shared
	}
	t.list = append(t.list, expense{out, n, p})
}

// upTo notes a run that ends at out, and with spent bytes of the payload.
func (a *account) upTo(p Part, out, spent int) {
	if a == nil {
		return
	}
	spent = min(spent, a.payload) // coders may look behind the end
	a.add(p, out, spent-a.spent)
	a.spent = spent
}

// block notes what differs from the base, from one place of the segment to another. What is
// in front of it is as there, and takes next to nothing.
func (a *account) block(from, to, spent int) {
	if a == nil {
		return
	}
	if a.light {
		from, to, spent = from-a.start, to-a.start, a.payload+spent
	}
	a.upTo(Residual, from, a.spent)
	a.upTo(Residual, to, spent)
}

// plain begins what l says of a plain segment at offset at of the output, behind so many literals.
func (a *account) plain(l *lightCoder, at int64, literals int) {
	if a == nil {
		return
	}
	l.account = a
	a.light, a.start, a.all = true, int(at), literals
	a.spent = a.payload - len(l.buf)
	a.lit = a.spent
}

// literals notes so many literals, which have their share of what all take.
func (a *account) literals(n int) {
	if a == nil || n == 0 {
		return
	}
	a.used += n
	a.out += n
	share := a.lit * a.used / a.all
	a.add(Literals, a.out, share-a.shared)
	a.shared = share
}

// run notes a cover of n bytes of a plain segment, behind which left bytes of the payload are left.
func (a *account) run(n int64, left int) {
	if a == nil {
		return
	}
	a.out += int(n)
	a.upTo(Residual, a.out, a.payload-left)
}

// rest notes what is left of the payload.
func (a *account) rest() {
	if a == nil {
		return
	}
	left, at := a.payload, 0
	for _, m := range a.list {
		left, at = left-m.bytes, m.out
	}
	if left > 0 {
		a.add(Residual, at, left)
	}
}
