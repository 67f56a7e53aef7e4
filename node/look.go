package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"updraft/swarm"
	"updraft/swarm/origin"
)

// Looks for a release: how often, and how devices ask each other for one.
const (
	checkPause = time.Second      // a look that ended this recently answers for a new one
	failPause  = 2 * time.Second  // a look that failed this recently speaks for a new one
	callCheck  = "check"          // answered, after a look, with the digest of the timestamp held; with nothing by earlier programs
	argPerson  = "person"         // argument of a check that a person asks for
	argNow     = "now"            // and of one that has to be made now
	wordFor    = 24 * time.Hour   // for so long a device takes what others say for what the origin says
	heardFor   = 10 * time.Minute // and a person takes it for that
	ownTimeout = 20 * time.Second // of this device's own look, after that of another
	firstLeast = 10 * time.Minute // a device does so after its start for a random time from this
	firstMost  = time.Hour        // to that
	askTries   = 2                // holders of the uplink that fail to look, or take longer than a call may, before a device does so itself

	// A member may have this device ask the origin so many times in a row, and once more each
	// so long: a person does not ask more often, and who does costs the uplink little.
	asksAtOnce = 20
	askEvery   = time.Minute
)

// errOften reports a member that has had this device look all the time.
var errOften = errors.New("node: asked to look for a release too often")

// errNoUplink reports that no device of the site reached the origin.
var errNoUplink = errors.New("node: no device of the site can reach the origin")

// errNobody reports that no other device says it can reach the origin.
var errNobody = errors.New("node: no other device says that it reaches the origin")

// checker looks for new releases: one look at a time on this device, and one on the
// site as long as who is asked to does it. That is who holds the uplink; when the time
// has come for a look that nobody asked for, it is one of those who reach the origin,
// the same for all, who answers from its own last look if that is not long ago: what
// an idle site costs does not grow with its devices. It does so without the lease.
// Once a day, and within firstMost of its start, a device asks the origin itself, and waits
// for as long as a look may take: a member that says for ever that there is nothing new
// keeps nothing from the others for longer, however slow the origin is and however often
// the power fails, and from a person for ten minutes.
type checker struct {
	n       *Node
	limit   time.Duration // of a look
	silence time.Duration // of the origin, after which a look is left to others unless it is patient
	first   time.Duration // after the start, when the origin is to be asked itself
	begun   chan *look    // to run; there is one at a time
	ended   chan struct{} // closed when run makes no more

	mu    sync.Mutex                // guards all below
	busy  *look                     // under way
	last  time.Time                 // end of the last successful look at the origin by this device
	tried time.Time                 // end of the last failed one
	why   error                     // of its failure
	heard time.Time                 // end of the last one that was not given up for silence
	asks  map[peer.ID]*rate.Limiter // looks that members may still ask for; none: all
}

func newChecker(n *Node) *checker {
	return &checker{n: n, limit: checkTimeout, silence: silentMost, first: firstLeast + rand.N(firstMost-firstLeast), begun: make(chan *look, 1), ended: make(chan struct{}),
		asks: make(map[peer.ID]*rate.Limiter)}
}

type look struct {
	patient atomic.Bool   // not to be given up for silence: it is for a person, or due once a day
	done    chan struct{} // closed at its end
	err     error         // set by then
}

// check makes sure that this device knows what the origin says now. It asks the
// device that holds the uplink, or becomes it. A person has asked for it: it uses the
// uplink whatever the window.
func (c *checker) check(ctx context.Context, person bool) error {
	before := c.n.trust.Version()
	err := c.find(ctx, person)
	if person && err == nil && c.n.trust.Version() == before {
		err = c.confirm(ctx)
	}
	if c.n.origin == nil { // else looking at it has said so
		c.n.problem(problemOrigin, "the origin", err)
	}
	return err
}

func (c *checker) find(ctx context.Context, person bool) error {
	n := c.n
	if c.overdue() {
		if err := c.look(ctx, true); err == nil || !errors.Is(err, origin.ErrUnreachable) {
			return err
		}
	}
	if !person && n.reach() == uplinkBad && c.askOthers(ctx, person) == nil {
		return nil
	}
	if !person && !n.cfg.Once {
		if c.recent() {
			return nil
		}
		switch by := c.lookout(); {
		case by == n.id:
			if done, err := c.lookForAll(ctx); done {
				return err
			}
		case by != "" && c.ask(ctx, by, person) == nil:
			return nil
		}
	}
	var err error
	for tries, failed := 0, 0; tries < 20; tries++ {
		by, ok := n.sw.Holder()
		switch {
		case ok && by == n.id, failed >= askTries && n.origin != nil:
			return c.look(ctx, person)
		case ok:
			if err = c.ask(ctx, by, person); err == nil {
				return nil
			}
			failed++
		}
		var t *swarm.Tenure
		t, err = n.sw.Acquire(ctx, swarm.AcquireOptions{NoWait: true})
		var held *swarm.HeldError
		switch {
		case errors.As(err, &held):
			if err = c.ask(ctx, held.By, person); err == nil {
				return nil
			}
			failed++
		case errors.Is(err, swarm.ErrLeaseInUse): // by this device's update, which waits for it
		case err != nil:
			return err
		default:
			err = c.lookWith(ctx, t, person)
			if err == nil || !errors.Is(err, origin.ErrUnreachable) {
				return err
			}
			err = fmt.Errorf("%w: %w", errNoUplink, err)
			switch other := c.askOthers(ctx, person); {
			case other == nil:
				return nil
			case !errors.Is(other, errNobody):
				return fmt.Errorf("%w; who was asked last said: %w", err, other)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return err
}

// confirm asks the origin itself whether there is nothing new, as a member may have told a person, unless
// this device has heard it lately: that costs a request, which a site whose devices all learn of a release
// is spared. Where the origin does not answer in time, the member's word stands.
func (c *checker) confirm(ctx context.Context) error {
	if !c.doubtful() {
		return nil
	}
	short, cancel := context.WithTimeout(ctx, ownTimeout)
	defer cancel()
	err := c.look(short, true)
	if errors.Is(err, origin.ErrUnreachable) || short.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// doubtful reports whether the word of others is no longer what the origin said to this device, which may
// reach it: an origin that was given up for its silence may only be slow.
func (c *checker) doubtful() bool {
	bad := c.n.reach() == uplinkBad
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n.origin != nil && time.Since(c.heard) > heardFor && (!bad || errors.Is(c.why, errSilent))
}

// overdue reports whether this device has not heard the origin out, as far as that went, for a day.
func (c *checker) overdue() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n.origin == nil {
		return false
	}
	if c.heard.IsZero() {
		return time.Since(c.n.start) > c.first
	}
	return time.Since(c.heard) > wordFor
}

// recent reports whether this device has looked at the origin so lately that the site need not look again.
func (c *checker) recent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.last.IsZero() && time.Since(c.last) < c.n.cfg.Poll*3/4
}

// lookForAll looks at the origin as the one that looks for all, which is not for two devices to do: nobody is asked
// for the lease, which would be most of what is said on an idle site. It leaves the look to who holds the lease, if
// somebody does, and to others if the origin is out of reach: then it is not done.
func (c *checker) lookForAll(ctx context.Context) (done bool, err error) {
	if by, ok := c.n.sw.Holder(); ok && by != c.n.id {
		return false, nil
	}
	err = c.look(ctx, false)
	return !errors.Is(err, origin.ErrUnreachable), err
}

// lookWith looks with the lease, which it gives up: at the end, or where the look takes long, as one
// that is patient may, for others to use the uplink meanwhile.
func (c *checker) lookWith(ctx context.Context, t *swarm.Tenure, patient bool) error {
	defer t.Release()
	defer time.AfterFunc(c.silence, t.Release).Stop()
	return c.look(ctx, patient)
}

// lookout returns the device that looks for all: of those that reach the origin the one with the lowest ID. It is
// empty if none is known.
func (c *checker) lookout() peer.ID {
	var by peer.ID
	if c.n.reach() == uplinkOK {
		by = c.n.id
	}
	for _, m := range c.n.members() {
		if m.profile.Uplink == uplinkOK && (by == "" || m.ID < by) {
			by = m.ID
		}
	}
	return by
}

// askOthers asks the members that say they can reach the origin, until one has looked. Else the error is that of
// the one asked last, errNobody if there is none.
func (c *checker) askOthers(ctx context.Context, person bool) error {
	err := errNobody
	for _, m := range c.n.members() {
		if m.profile.Uplink != uplinkOK {
			continue
		}
		if err = c.ask(ctx, m.ID, person); err == nil {
			break
		}
	}
	return err
}

// ask has another device look and takes over what it learned.
func (c *checker) ask(ctx context.Context, by peer.ID, person bool) error {
	var arg []byte
	switch {
	case person:
		arg = []byte(argPerson)
	case c.n.cfg.Once:
		arg = []byte(argNow)
	}
	held, err := c.n.sw.Invoke(ctx, by, callCheck, arg)
	if err != nil {
		return fmt.Errorf("node: %s could not look for a release: %w", c.n.nameOf(by), err)
	}
	return c.n.syncFrom(ctx, by, held)
}

// due reports whether the time has come for a look that nobody asked for, whatever came of the last one.
func (c *checker) due() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.last
	if c.tried.After(last) {
		last = c.tried
	}
	return c.n.cfg.Poll > 0 && time.Since(last) >= c.n.cfg.Poll*3/4
}

// run makes the looks that are begun, until ctx ends. None ends with the time of who asked
// for it, for others wait for it as well.
func (c *checker) run(ctx context.Context) error {
	defer close(c.ended)
	for {
		select {
		case <-ctx.Done():
			return nil
		case l := <-c.begun:
			l.err = c.n.syncOrigin(ctx, l)
			c.end(l)
		}
	}
}

// end notes what came of a look, and tells who waits for it.
func (c *checker) end(l *look) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = nil
	now := time.Now()
	if l.err == nil {
		c.last = now
	} else {
		c.tried, c.why = now, l.err
	}
	early := c.heard.IsZero() && now.Sub(c.n.start) < c.first // the uplink may be up later than the device
	if !errors.Is(l.err, errSilent) && !(early && errors.Is(l.err, origin.ErrUnreachable)) {
		c.heard = now
	}
	close(l.done)
}

// look has run ask the origin, and waits for it until ctx ends. Looks that arrive while one
// is under way share it, and one that has just ended answers for all, but for a patient one
// if it was given up. Each is patient that is overdue.
func (c *checker) look(ctx context.Context, patient bool) error {
	patient = patient || c.overdue()
	c.mu.Lock()
	if time.Since(c.last) < checkPause {
		c.mu.Unlock()
		return nil
	}
	if err := c.why; time.Since(c.tried) < failPause && !(patient && errors.Is(err, errSilent)) {
		c.mu.Unlock()
		return err
	}
	l := c.busy
	if l == nil {
		l = &look{done: make(chan struct{})}
		c.busy = l
		c.begun <- l
	}
	if patient {
		l.patient.Store(true)
	}
	c.mu.Unlock()
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ended:
		return context.Canceled
	}
}

// mayAsk reports whether a member may have this device look at once, and counts it unless
// one that is under way, or has just ended, answers for it.
func (c *checker) mayAsk(from peer.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy != nil || time.Since(c.last) < checkPause || time.Since(c.tried) < failPause {
		return true
	}
	maps.DeleteFunc(c.asks, func(_ peer.ID, l *rate.Limiter) bool { return l.Tokens() >= asksAtOnce })
	l := c.asks[from]
	if l == nil {
		l = rate.NewLimiter(rate.Every(askEvery), asksAtOnce)
		c.asks[from] = l
	}
	return l.Allow()
}

// answerCheck looks for a release on behalf of a member.
func (n *Node) answerCheck(ctx context.Context, from peer.ID, arg []byte) error {
	asked := len(arg) > 0
	if !asked && n.checker.recent() {
		return nil
	}
	if due := !asked && n.checker.due(); !due && !n.checker.mayAsk(from) {
		return errOften
	}
	if string(arg) != argPerson && n.untilLook() > 0 {
		return errWindow
	}
	n.log.Debug("look for a release on behalf of a member", "member", n.nameOf(from))
	by, ok := n.sw.Holder()
	if ok && by == n.id || !ok && !asked && n.checker.lookout() == n.id {
		return n.checker.look(ctx, false)
	}
	t, err := n.sw.Acquire(ctx, swarm.AcquireOptions{NoWait: true})
	if errors.Is(err, swarm.ErrLeaseInUse) { // by this device's update, which has it or waits for it
		if by, ok = n.sw.Holder(); !ok || by == n.id {
			return n.checker.look(ctx, false)
		}
		err = &swarm.HeldError{By: by}
	}
	if held := (*swarm.HeldError)(nil); errors.As(err, &held) && held.By == from { // it has failed to look with it
		return n.checker.look(ctx, false)
	}
	if err != nil {
		return err
	}
	return n.checker.lookWith(ctx, t, false)
}
