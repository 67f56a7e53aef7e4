package mdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"updraft/discovery"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Name is the name of the source, as in its events.
const Name = "mdns"

const (
	watchEvery      = 5 * time.Second        // interfaces, addresses and health are looked at, told or not
	linkPause       = 200 * time.Millisecond // after the kernel tells of a change, for others that follow
	deafAfter       = 10 * time.Second       // our own announcement must have come back by then
	retryAfter      = 30 * time.Second       // sockets that do not serve are made anew
	outdoneEvery    = 10 * time.Minute       // shortest pause between registrations for being outdone by a former one
	defaultMaxPeers = 1024
)

var (
	// ErrNoMulticast is wrapped by what Config.Report gets while no peers can be
	// found: no interface to join, packets refused, or our own not heard back.
	ErrNoMulticast = errors.New("mdns: no multicast")
	// ErrNotAnnounced is wrapped by what Config.Report gets while others are found
	// but this device is not announced, for want of an address to announce.
	ErrNotAnnounced = errors.New("mdns: not announced")
)

// Config configures a Source. All but SiteKey may be left zero.
type Config struct {
	// SiteKey is the site's secret. Devices see only those with the same key.
	SiteKey [32]byte
	// Interfaces are names or patterns ("eth*", as path.Match) of the interfaces
	// to use. Empty: all that are up, have carrier, multicast and an address, and
	// loopback; loopback alone if the device listens on loopback only.
	Interfaces []string
	// Elsewhere says that the device is to be found by other machines, although its
	// addresses may be those of loopback for now, as while a cable is out: then
	// loopback alone is reported.
	Elsewhere bool
	// Interval is the shortest pause between two queries once the site is known;
	// the longest is 2.5 times as much. Zero: 120 s. The cost is in the package
	// comment.
	Interval time.Duration
	// MaxPeers bounds the devices remembered, of which one makes room for the next
	// beyond that, and apart from them those of other sites that are counted.
	// Zero: 1024.
	MaxPeers int
	// Report, when set, is told the state of the source when it changes: an error
	// that wraps ErrNoMulticast or ErrNotAnnounced, and nil when all is well (also
	// once at the start). It is called from Run's goroutine and must not block.
	Report func(err error)
	// Changed, when set, is told when the interfaces or addresses of a LAN have
	// changed while Run ran, as soon as others can be heard there. It is called from
	// Run's goroutine and must not block.
	Changed func()
	// Log takes debug records; nil is silent.
	Log *slog.Logger
}

// Counters are totals since New.
type Counters struct {
	Queries   int64 // sent by us
	Messages  int64 // heard about the service, ours included
	Foreign   int64 // announcements with the tag of another site
	Malformed int64 // announcements that could not be read
	Dropped   int64 // devices that made room for others beyond MaxPeers
	Sessions  int64 // times the sockets and the registration were made anew
	Peers     int   // devices of the site known now
	Others    int   // devices of other sites known now
}

// Source finds the devices of the site by multicast DNS. Run runs once at a time.
type Source struct {
	cfg      Config
	counters atomic.Pointer[Counters]
	watch    time.Duration // watchEvery, but in tests
}

var _ discovery.Source = (*Source)(nil)

// New makes a source; it starts nothing.
func New(cfg Config) *Source {
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	cfg.Interval = max(cfg.Interval, minInterval)
	if cfg.MaxPeers <= 0 {
		cfg.MaxPeers = defaultMaxPeers
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Report == nil {
		cfg.Report = func(error) {}
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	s := &Source{cfg: cfg, watch: watchEvery}
	s.counters.Store(&Counters{})
	return s
}

// Name returns "mdns".
func (s *Source) Name() string { return Name }

// Counters returns the totals; any goroutine may call it.
func (s *Source) Counters() Counters { return *s.counters.Load() }

// Run announces this device and finds the others; see [discovery.Source]. It
// never fails: without multicast it reports that and tries again when an interface changes, and every 5 s. When
// ctx ends it says goodbye and returns within half a second.
func (s *Source) Run(ctx context.Context, self func() peer.AddrInfo, events chan<- discovery.Event) error {
	r := &run{
		cfg: s.cfg, publish: &s.counters, self: self, events: events,
		view:   newView(s.cfg.SiteKey, self().ID, s.cfg.MaxPeers),
		rounds: rounds{interval: s.cfg.Interval},
		id:     uint16(rand.N(1 << 16)),
		links:  make(chan struct{}, 1),
		watch:  s.watch,
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if links, err := openLinks(); err != nil {
		s.cfg.Log.Debug("changes of interfaces are looked for, not told", "err", err)
	} else {
		defer links.Close()
		wg.Go(func() { tellChanges(links, r.links) })
	}
	for ctx.Err() == nil {
		again := r.session(ctx)
		r.count()
		if !again {
			r.moved = true
			r.pause(ctx)
			r.emit(ctx, r.view.expire(time.Now())...)
		}
	}
	return nil
}

// run is the state of one Run; its goroutine owns it.
type run struct {
	cfg     Config
	publish *atomic.Pointer[Counters]
	self    func() peer.AddrInfo
	events  chan<- discovery.Event
	view    *view
	rounds  rounds
	totals  Counters
	id      uint16        // of our queries
	number  uint64        // of the last registration
	outdone time.Time     // when a new one was made since that was outdone
	pace    pace          // of sessions
	moved   bool          // the place has changed since the last session on a LAN
	told    bool          // Report was called before
	last    string        // what it was told
	links   chan struct{} // interfaces or addresses of the host may have changed
	watch   time.Duration // how often they are looked at all the same
}

// place is what a session is made for; a new one is due when it changes.
type place struct {
	ifaces []iface
	links  string // all interfaces of the host, without addresses
	addrs  []ma.Multiaddr
	lonely error // set when there is only loopback though the device is to be found elsewhere
}

func (p place) equal(o place) bool {
	return fingerprint(p.ifaces) == fingerprint(o.ifaces) && slices.EqualFunc(p.addrs, o.addrs, func(a, b ma.Multiaddr) bool { return a.Equal(b) })
}

// look chooses the interfaces and the addresses to announce, as they are now.
func (r *run) look() (place, error) {
	all, err := listIfaces()
	if err != nil {
		return place{}, err
	}
	mine := r.self().Addrs
	ifaces := choose(all, r.cfg.Interfaces, !r.cfg.Elsewhere && onlyLoopback(mine))
	if len(ifaces) == 0 {
		if len(r.cfg.Interfaces) > 0 {
			return place{}, fmt.Errorf("none of the interfaces %s is up, has an address and multicast", strings.Join(r.cfg.Interfaces, ", "))
		}
		return place{}, errors.New("no interface that is up, has an address and multicast")
	}
	p := place{ifaces: ifaces, links: links(all), addrs: announceable(mine, all, ifaces)}
	if len(r.cfg.Interfaces) == 0 && lans(ifaces) == 0 && len(mine) > 0 && (r.cfg.Elsewhere || !onlyLoopback(mine)) {
		p.lonely = fmt.Errorf("%w: no interface but loopback is up, has an address and multicast", ErrNoMulticast)
	}
	return p, nil
}

// session opens the sockets, registers, and goes on until ctx ends, or the place
// changes or a socket fails. again is false if it could not even begin.
func (r *run) session(ctx context.Context) (again bool) {
	here, err := r.look()
	if err != nil {
		r.report(fmt.Errorf("%w: %w", ErrNoMulticast, err))
		return false
	}
	ears, err := openEars(here.ifaces)
	if err != nil {
		r.report(fmt.Errorf("%w: %w", ErrNoMulticast, err))
		return false
	}
	r.totals.Sessions++
	if r.moved && here.lonely == nil {
		r.moved = false
		r.cfg.Changed()
	}
	r.number = nextNumber(time.Now(), max(r.number, r.view.outdone))
	reg, regErr := newRegistration(r.cfg.SiteKey, r.self().ID, here.addrs, r.number)
	if regErr != nil {
		regErr = fmt.Errorf("%w: %w", ErrNotAnnounced, regErr)
	} else {
		ears.own = reg.instance
	}
	r.view.renew(ears.own)
	ctx, cancel := context.WithCancel(ctx)
	in, broken := make(chan heard, 256), make(chan error, 2)
	var wg sync.WaitGroup
	if ears.v4 != nil {
		wg.Go(func() { broken <- ears.listen4(ctx, in) })
	}
	if ears.v6 != nil {
		wg.Go(func() { broken <- ears.listen6(ctx, in) })
	}
	defer wg.Wait()
	defer ears.close()
	defer cancel()
	r.cfg.Log.Debug("mdns session", "interfaces", names(here.ifaces), "announced", here.addrs, "err", regErr)
	return r.converse(ctx, here, ears, reg, regErr, in, broken)
}

// converse is the loop of a session.
func (r *run) converse(ctx context.Context, here place, ears *ears, reg *registration, regErr error, in <-chan heard, broken <-chan error) bool {
	began := time.Now()
	voice := newResponder(reg, ears.media(), began)
	// Queries tell by their errors when packets do not get out: they go the same way.
	say := func(b []byte, on medium) error {
		err := ears.write(b, on)
		if err != nil {
			r.cfg.Log.Debug("mdns: not sent", "interface", ears.iface(on.ifIndex).Name, "err", err)
		}
		return err
	}
	defer voice.goodbye(say)
	speak := time.NewTimer(0)
	defer speak.Stop()
	r.rounds.begin(began)
	ask := time.NewTimer(time.Until(r.rounds.next))
	defer ask.Stop()
	due, changed := began.Add(r.watch), began
	watch := time.NewTimer(r.watch)
	defer watch.Stop()
	sooner := func(d time.Duration) {
		if d < time.Until(due) {
			due = time.Now().Add(d)
			watch.Reset(d)
		}
	}
	var sendErr error
	for {
		select {
		case <-ctx.Done():
			return true
		case err := <-broken:
			r.cfg.Log.Debug("mdns socket failed", "err", err)
			r.pause(ctx)
			return true
		case <-r.links:
			sooner(max(linkPause, time.Until(changed.Add(sessionLeast))))
		case m := <-in:
			r.hear(ctx, m, ears, voice)
		case <-speak.C:
			voice.speak(time.Now(), say)
		case <-ask.C:
			if time.Now().Before(r.rounds.next) {
				break // put off meanwhile
			}
			sendErr = r.ask(ears)
			r.count()
			r.report(health(here.lonely, regErr, sendErr, false))
		case <-watch.C:
			due = time.Now().Add(r.watch)
			watch.Reset(r.watch)
			r.emit(ctx, r.view.expire(time.Now())...)
			r.count()
			age := time.Since(began)
			deaf := regErr == nil && age > deafAfter && !r.view.ownHeard(lans(here.ifaces) > 0)
			r.report(health(here.lonely, regErr, sendErr, deaf))
			if age > retryAfter && (deaf || sendErr != nil || regErr != nil && len(here.addrs) > 0) {
				return true // with new sockets, in case what was in the way has gone
			}
			if regErr == nil && r.view.outdone > r.number && time.Since(r.outdone) > outdoneEvery {
				r.outdone = time.Now()
				return true // with a greater number than what somebody says again
			}
			now, err := r.look()
			if err == nil && now.equal(here) {
				break
			}
			if left := r.pace.left(age, err == nil && now.links == here.links); left > 0 {
				changed = time.Now()
				sooner(left)
				break
			}
			r.cfg.Log.Debug("mdns: interfaces or addresses changed", "err", err)
			r.moved = true
			return err == nil
		}
		ask.Reset(time.Until(r.rounds.next))
		if at, ok := voice.wake(); ok {
			speak.Reset(time.Until(at))
		}
	}
}

// health folds what is wrong into one error.
func health(lonely, regErr, sendErr error, deaf bool) error {
	switch {
	case lonely != nil:
		return lonely
	case sendErr != nil:
		return fmt.Errorf("%w: %w", ErrNoMulticast, sendErr)
	case deaf:
		return fmt.Errorf("%w: our own announcements do not come back (firewall on UDP port %d?)", ErrNoMulticast, mdnsPort)
	}
	return regErr
}

func (r *run) hear(ctx context.Context, m heard, ears *ears, voice *responder) {
	now := time.Now()
	r.totals.Messages++
	for _, on := range ears.replies(m.on) {
		voice.asked(on, m.wants, now)
	}
	on := ears.iface(m.on.ifIndex)
	for _, a := range m.announcements {
		r.emit(ctx, r.view.heard(a, on.Name, on.loopback(), now)...)
	}
	if !m.query || m.id == r.id {
		return
	}
	switch covered := r.view.covers(m.known, now); {
	case !covered:
		r.rounds.rumoured(now)
	case lans(ears.ifaces) <= 1: // with several, it was asked on one of them only
		r.rounds.overheard(now, r.view.responders(), len(r.view.peers))
	}
}

// ask sends a query. It goes out on both families when one may not do: the first ones of a
// session, and while nobody is known or somebody is missed.
func (r *run) ask(ears *ears) error {
	now := time.Now()
	both := r.rounds.step < 3 || len(r.view.peers) == 0 || r.view.misses(now)
	r.rounds.asked(now, r.view.responders(), len(r.view.peers))
	b, err := question(r.id, r.view.known(now))
	if err != nil {
		return fmt.Errorf("query: %w", err)
	}
	r.view.asking()
	r.totals.Queries++
	return ears.send(b, both)
}

func (r *run) emit(ctx context.Context, events ...discovery.Event) {
	for _, ev := range events {
		r.cfg.Log.Debug("mdns", "peer", ev.Peer.ID, "addrs", ev.Peer.Addrs, "gone", ev.Gone)
		select {
		case r.events <- ev:
		case <-ctx.Done():
			return
		}
	}
}

func (r *run) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if r.told && text == r.last {
		return
	}
	r.told, r.last = true, text
	r.cfg.Report(err)
}

func (r *run) count() {
	c := r.totals
	c.Foreign, c.Malformed, c.Dropped = r.view.counts.foreign, r.view.counts.malformed, r.view.counts.dropped
	c.Peers, c.Others = len(r.view.peers), r.view.foreign
	r.publish.Store(&c)
}

func names(ifaces []iface) []string {
	out := make([]string, len(ifaces))
	for i := range ifaces {
		out[i] = ifaces[i].Name
	}
	return out
}

// pause waits until it is worth trying again.
func (r *run) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(linkPause):
	}
	select {
	case <-ctx.Done():
	case <-r.links:
	case <-time.After(r.watch - linkPause):
	}
}
