package origin

import (
	"context"
	"sync"
	"time"
)

// A new connection sends little before its first acknowledgements are back, and takes
// long to find the rate of a link that is both fast and far: several, called lanes, get
// there sooner. Where the link is slow they only share it, and what each is in the middle
// of is lost in a crash. So each begins with a piece that is one flight of TCP; of how
// long that took follows what it is dealt next, and whether there are to be more lanes or
// fewer. All of them together have asked for what comes in a few round trips.
const (
	laneFar   = 200 * time.Millisecond // an origin that never answers sooner is far away
	laneLeast = 4 << 20                // less than that is not worth them
	laneCount = 16                     // at first: what they ask for then comes in half a minute at 64 kbit/s
	laneMost  = 40
	laneFew   = 2                // at least: while one asks, the other brings
	laneAsks  = 96               // requests ahead of all lanes: servers and links bound the connections of one client
	laneThin  = 4 << 10          // a lane that has less than that on its way ends
	laneRest  = time.Millisecond // until the connection that brought a piece may be used again

	pieceFirst   = 13 << 10 // with a header, what a server sends before the first acknowledgement: 10 segments
	pieceAnswers = 4        // a piece is what a lane brings in the time of so many answers, or in
	pieceTime    = 10 * time.Second
	pieceSum     = 512 << 10 // if all lanes together are then dealt no more than that
	pieceMost    = 2 << 20
	pieceEnd     = 32 << 10 // towards the end pieces get as short as that: all lanes come to the end together
)

// worthLanes reports whether all that t fetches from an origin that answers after so long is better
// dealt out to several connections: it is much, or in more pieces than t asks for at once, each of
// which takes a round trip.
func (t *transfer) worthLanes(answer time.Duration) bool {
	requests, sum := 0, int64(0)
	for _, r := range t.rs {
		sum += r.Len
	}
	for i := 0; i < len(t.rs) && requests <= aheadMax; requests++ {
		_, _, i = t.run(i, 0)
	}
	return answer >= laneFar && sum >= laneLeast || answer >= laneFar/2 && requests > aheadMax
}

// deck deals the ranges of a transfer out to lanes, in order and in pieces.
type deck struct {
	of *transfer
	wg sync.WaitGroup // lanes

	mu    sync.Mutex // guards all below; held by the caller's fn
	next  int        // of the ranges
	off   int64      // bytes of it that were dealt
	left  int64      // bytes not dealt
	lanes int        // that have not ended for want of bytes on their way
	began time.Time  // when the first piece was there
	cut   map[int]*cutRange
	err   error // the first one
}

// cutRange is a range of which pieces have come.
type cutRange struct {
	b    []byte
	left int64 // bytes that have not come
}

func newDeck(t *transfer) *deck {
	d := &deck{of: t, cut: map[int]*cutRange{}}
	for _, r := range t.rs {
		d.left += r.Len
	}
	return d
}

// fetch fetches all, over as many connections as the link is good for.
func (d *deck) fetch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var more sync.WaitGroup
	defer more.Wait()
	warming, stop := context.WithCancel(ctx)
	defer stop()
	if n := warmMore(d.left); d.of.c.warm.some() {
		more.Go(func() { d.of.c.warm.add(warming, n) }) // a fast link has use for them when its first pieces are there
	}
	d.mu.Lock()
	for range laneCount {
		d.startLocked(ctx, cancel)
	}
	d.mu.Unlock()
	d.wg.Wait()
	return d.err
}

// startLocked starts a lane. Its error ends the others.
func (d *deck) startLocked(ctx context.Context, cancel context.CancelFunc) {
	d.lanes++
	d.wg.Go(func() {
		time.Sleep(10 * laneRest) // who starts it is to use its own connection again
		if err := d.lane(ctx, func() { d.startLocked(ctx, cancel) }); err != nil {
			d.fail(err)
			cancel()
		}
	})
}

func (d *deck) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
}

// lane fetches what it is dealt until there is no more, or others bring as much without it.
func (d *deck) lane(ctx context.Context, another func()) error {
	for most := int64(pieceFirst); most > 0; time.Sleep(laneRest) {
		t, n := d.deal(most)
		if t == nil {
			return nil
		}
		begin := time.Now()
		if err := t.fetch(ctx); err != nil {
			return err
		}
		most = d.judge(most, n, time.Since(begin), another)
	}
	return nil
}

// deal returns the transfer of the next piece, of about most bytes, and its length, or nil at the end.
func (d *deck) deal(most int64) (*transfer, int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 || d.err != nil {
		return nil, 0
	}
	most = min(most, max(d.left/int64(d.lanes), pieceEnd))
	first, from, n := d.next, d.off, int64(0)
	few := max(most, pieceFirst*3/2) / 2
	if d.began.IsZero() {
		few = most / 2 // after Warm there is a connection for each lane, and another request would wait for one
	}
	t := &transfer{c: d.of.c, name: d.of.name, size: d.of.size, eager: true, most: min(laneAsks/d.lanes, aheadMax)}
	for d.next < len(d.of.rs) && n < most {
		r := d.of.rs[d.next]
		rest, take := r.Len-d.off, most-n
		if take > rest-pieceFirst/2 {
			take = rest
		}
		if n > few && (take < rest || r.Off-t.rs[len(t.rs)-1].end() > joinGap) {
			break // rather than to cut the range, or ask twice
		}
		t.rs = append(t.rs, Range{r.Off + d.off, take})
		if n, d.off = n+take, d.off+take; take == rest {
			d.next, d.off = d.next+1, 0
		}
	}
	d.left -= n
	t.fn = func(k int, b []byte) error {
		if k > 0 {
			return d.came(first+k, 0, b)
		}
		return d.came(first, from, b)
	}
	return t, n
}

// came takes bytes of range i, from off on; it calls the caller's fn when all of the range is there.
func (d *deck) came(i int, off int64, b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	if whole := d.of.rs[i].Len; int64(len(b)) < whole {
		c := d.cut[i]
		if c == nil {
			c = &cutRange{make([]byte, whole), whole}
			d.cut[i] = c
		}
		copy(c.b[off:], b)
		if c.left -= int64(len(b)); c.left > 0 {
			return nil
		}
		delete(d.cut, i)
		b = c.b
	}
	d.err = d.of.fn(i, b)
	return d.err
}

// judge returns how much a lane is to be dealt that was dealt most and has fetched n bytes in
// the time that it took, or 0 if it is to end. It calls another when one more lane is worth it:
// the piece came in hardly more than a round trip, so that the link is not filled.
func (d *deck) judge(most, n int64, took time.Duration, another func()) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := time.Duration(d.of.c.count.answer.Load())
	if d.began.IsZero() {
		d.began = time.Now()
	}
	took = max(min(took, answer+time.Since(d.began)), 1) // it may have had to connect
	rate := float64(n) / took.Seconds()
	way := rate * answer.Seconds() // bytes on their way
	switch {
	case way < laneThin && d.lanes > laneFew:
		d.lanes--
		return 0
	case took < answer*3/2 && d.lanes < laneMost:
		another()
	}
	fit := max(pieceAnswers*way, min(rate*pieceTime.Seconds(), float64(pieceSum/d.lanes)))
	return max(pieceFirst, min(int64(fit), pieceMost))
}
