package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"updraft/swarm/limit"
)

const (
	// MaxRange is the longest single range, in bytes.
	MaxRange = 16 << 20
	// joinGap is how many unwanted bytes are taken along rather than making
	// another request: about what a round trip is worth on the links meant here.
	joinGap = 16 << 10
	// Requests are made ahead until aheadBytes are asked for, about twice what is
	// under way on a fast mobile link, or aheadMax connections are busy with it.
	aheadBytes = 256 << 10
	aheadMax   = 6
	// progressBytes is what an attempt must bring to count as progress.
	progressBytes = 4 << 10
	// skipMost is how much is taken, and thrown away, of a server that sends more than it
	// was asked for.
	skipMost = 1 << 20
)

// Range is a piece of an object: Len bytes from Off on.
type Range struct{ Off, Len int64 }

func (r Range) end() int64 { return r.Off + r.Len }

// Ranges fetches pieces rs of the object name, which measures size bytes, and
// calls fn with each of them as soon as its bytes are there: in order, or where the
// origin is far away, in order but for some MiB. rs must ascend and not overlap; each
// is 1 to MaxRange bytes. Calls of fn do not overlap, and b is valid during fn only;
// bytes that keep coming while fn runs wait in the kernel. An error of fn ends the
// call and is returned as it is.
//
// A failed attempt is repeated, at the next origin if there is one, from the first
// byte that has not come. Other errors wrap ErrRange, ErrName, ErrNotFound,
// ErrChanged, ErrUnreachable or ctx.Err; all ranges for which fn returned nil are
// done.
func (c *Client) Ranges(ctx context.Context, name string, size int64, rs []Range, fn func(i int, b []byte) error) error {
	if err := validName(name); err != nil {
		return err
	}
	last := int64(0)
	for _, r := range rs {
		if r.Off < last || r.Len < 1 || r.Len > MaxRange || r.Off > size-r.Len {
			return fmt.Errorf("%w: %d bytes at %d of %d after %d", ErrRange, r.Len, r.Off, size, last)
		}
		last = r.end()
	}
	defer c.count.silence.begin()()
	t := &transfer{c: c, name: name, size: size, rs: rs, fn: fn, most: aheadMax}
	if t.worthLanes(time.Duration(c.count.answer.Load())) {
		return newDeck(t).fetch(ctx)
	}
	return t.fetch(ctx)
}

// fetch fetches ranges over one connection, with requests made ahead over others.
func (t *transfer) fetch(ctx context.Context) error {
	defer t.drop()
	a := t.c.attempts()
	if t.eager {
		t.askAhead(ctx, a.source, 0)
	}
	for t.next < len(t.rs) {
		t.fresh = 0
		first := t.next
		err := t.attempt(ctx, a.source)
		if err == nil {
			a.success()
			continue
		}
		if t.fnErr != nil {
			a.success() // it has answered, with what fn may refuse
			return t.fnErr
		}
		if t.fresh > 0 {
			a.part()
		}
		t.drop()
		if err := a.failed(ctx, err, t.next > first || t.fresh >= progressBytes, false); err != nil {
			return fmt.Errorf("get %s: %w", t.name, err)
		}
	}
	return nil
}

// transfer is a call of Ranges, or the part of it that a lane was dealt: the next range
// to deliver, what has come of it, and the requests made ahead.
type transfer struct {
	c     *Client
	name  string
	size  int64
	rs    []Range
	fn    func(i int, b []byte) error
	next  int    // index of the first range not delivered
	got   []byte // the beginning of that range
	fresh int64  // bytes that came in this attempt
	fnErr error
	ahead []*ahead // in the order of their ranges
	eager bool     // asks ahead before the first answer
	most  int      // requests ahead at a time
}

// ahead is a request made before its turn.
type ahead struct {
	source   int
	off, end int64
	after    int // first range after those asked for
	cancel   context.CancelFunc
	done     chan struct{} // closed when body and err are set
	body     *body
	err      error
}

// run returns the bytes to ask for to get range i, less the skip bytes of it that
// are there, and its near successors, and the first range after them.
func (t *transfer) run(i, skip int) (off, end int64, after int) {
	off, end = t.rs[i].Off+int64(skip), t.rs[i].end()
	for i++; i < len(t.rs) && t.rs[i].Off-end <= joinGap; i++ {
		end = t.rs[i].end()
	}
	return off, end, i
}

// attempt makes one request and delivers what comes of it.
func (t *transfer) attempt(ctx context.Context, source int) error {
	off, end, after := t.run(t.next, len(t.got))
	b, err := t.take(ctx, source, off, end)
	if err != nil {
		return err
	}
	defer b.Close()
	if b.start > off || b.unchanged {
		return fmt.Errorf("%w: %s sends the wrong part of %s", ErrUnreachable, t.c.sources[source], t.name)
	}
	if off-b.start > skipMost {
		return fmt.Errorf("%w: %s sends all of %s", ErrNoRanges, t.c.sources[source], t.name)
	}
	if b.start == off && b.end <= end {
		t.askAhead(ctx, source, after)
	}
	return t.deliver(ctx, b)
}

// take returns the answer to a request: the one made ahead, or a new one.
func (t *transfer) take(ctx context.Context, source int, off, end int64) (*body, error) {
	if len(t.ahead) == 0 || t.ahead[0].source != source || t.ahead[0].off != off || t.ahead[0].end != end {
		t.drop()
		return t.c.sources[source].open(ctx, t.query(off, end))
	}
	a := t.ahead[0]
	t.ahead = t.ahead[1:]
	<-a.done
	if a.err != nil {
		a.cancel()
		return nil, a.err
	}
	a.body.ReadCloser = cancelBody{a.body.ReadCloser, a.cancel}
	return a.body, nil
}

// cancelBody ends the context of a request with its body.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

func (t *transfer) query(off, end int64) query {
	return query{name: t.name, off: off, end: end, size: t.size}
}

// askAhead makes the requests for the runs from range i on, as far as they have not
// been made. Their bodies wait unread: the receive window of a connection nobody
// reads from is what each may bring early.
func (t *transfer) askAhead(ctx context.Context, source, i int) {
	var asked int64
	for _, a := range t.ahead {
		asked += a.end - a.off
		i = a.after
	}
	for i < len(t.rs) && asked < aheadBytes && len(t.ahead) < t.most {
		off, end, after := t.run(i, 0)
		actx, cancel := context.WithCancel(ctx)
		a := &ahead{source: source, off: off, end: end, after: after, cancel: cancel, done: make(chan struct{})}
		t.ahead = append(t.ahead, a)
		go func() {
			defer close(a.done)
			a.body, a.err = t.c.sources[source].open(actx, t.query(off, end))
		}()
		asked += end - off
		i = after
	}
}

// drop gives up the requests made ahead.
func (t *transfer) drop() {
	for _, a := range t.ahead {
		a.cancel()
	}
	for _, a := range t.ahead {
		<-a.done
		if a.body != nil {
			a.body.Close()
		}
	}
	t.ahead = nil
}

// deliver reads b and passes on every range that lies in it.
func (t *transfer) deliver(ctx context.Context, b *body) error {
	r := limit.Reader(ctx, b, t.c.lim)
	pos := b.start
	surplus := int64(0) // bytes that were not asked for
	for t.next < len(t.rs) && t.rs[t.next].Off+int64(len(t.got)) < b.end {
		if err := ctx.Err(); err != nil {
			return err
		}
		want := t.rs[t.next]
		skip := want.Off + int64(len(t.got)) - pos
		if skip > joinGap {
			surplus += skip
		}
		if surplus > skipMost {
			break // ask anew
		}
		if skip > 0 {
			n, err := io.CopyN(io.Discard, r, skip)
			if err != nil {
				return cut(err)
			}
			pos += n
		}
		have := len(t.got)
		n := int(min(want.Len, b.end-want.Off))
		if cap(t.got) < int(want.Len) {
			t.got = append(make([]byte, 0, want.Len), t.got...)
		}
		k, err := io.ReadFull(r, t.got[have:n])
		t.got = t.got[:have+k]
		pos += int64(k)
		t.fresh += int64(k)
		if err != nil {
			return cut(err)
		}
		if int64(n) < want.Len {
			break // the answer ends inside the range: ask for the rest
		}
		if t.fnErr = t.fn(t.next, t.got); t.fnErr != nil {
			return t.fnErr
		}
		t.next++
		t.got = t.got[:0]
	}
	if len(t.got) > 0 && t.fresh < progressBytes || t.fresh == 0 {
		return fmt.Errorf("%w: %d bytes of %s in an answer", ErrUnreachable, t.fresh, t.name)
	}
	return nil
}

// cut makes a body that ends early an error worth another attempt.
func cut(err error) error {
	if errors.Is(err, ErrUnreachable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}
