package discovery

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	defaultMaxPeers = 2048 // one source alone, of up to half as many, leaves room for the others
	maxAddrs        = 16   // addresses kept per peer, over all sources
	maxAddrLen      = 256  // bytes of a binary multiaddr
	minRestart      = time.Second
	maxRestart      = time.Minute
)

// TableConfig configures a Table. The zero value works.
type TableConfig struct {
	// MaxPeers bounds the peers remembered; further ones are dropped until
	// others go. Zero: 2048.
	MaxPeers int
	// Notify, when set, is told each change of the merged view: a new peer, a
	// peer whose set of addresses or of sources changed, and with Gone a peer
	// that no source knows any more; and of a peer that is Wanted. It is called from Run's goroutine, one call
	// at a time, in the order of events; while it runs the sources wait.
	Notify func(Event)
	// Report, when set, is told when a source fails and will be started again.
	// Same goroutine as Notify.
	Report func(source string, err error)
	// Log takes debug records of each change; nil is silent.
	Log *slog.Logger
}

// Table merges what sources say. Its methods may be called from any goroutine.
type Table struct {
	cfg TableConfig

	mu      sync.Mutex // guards all below
	peers   map[peer.ID]*entry
	changed chan struct{}
	dropped int64
}

// entry is one peer; words is by source.
type entry struct {
	words map[string]word
	last  peer.AddrInfo // merged, as last told
	names string        // sources, as last told
}

// word is what one source said last about a peer.
type word struct {
	addrs   []ma.Multiaddr
	expires time.Time // zero: never
}

// NewTable makes an empty table.
func NewTable(cfg TableConfig) *Table {
	if cfg.MaxPeers <= 0 {
		cfg.MaxPeers = defaultMaxPeers
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Table{cfg: cfg, peers: make(map[peer.ID]*entry), changed: make(chan struct{})}
}

// Peers returns the merged view, sorted by peer ID. The result is the caller's.
func (t *Table) Peers() []peer.AddrInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]peer.AddrInfo, 0, len(t.peers))
	for _, e := range t.peers {
		out = append(out, peer.AddrInfo{ID: e.last.ID, Addrs: slices.Clone(e.last.Addrs)})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// Changed returns a channel that is closed at the next change of the view; get
// a new one afterwards.
func (t *Table) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// Dropped returns how many events were dropped because MaxPeers were known.
func (t *Table) Dropped() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropped
}

// failure is the end of one run of a source; the words of that run are void.
type failure struct {
	source string
	err    error
	pause  time.Duration
}

// Run runs the sources and merges what they say, until ctx ends. self is handed
// to the sources; see [Source]. A table runs once at a time. Names must differ.
func (t *Table) Run(ctx context.Context, self func() peer.AddrInfo, sources ...Source) error {
	for i, s := range sources {
		if slices.ContainsFunc(sources[:i], func(o Source) bool { return o.Name() == s.Name() }) {
			return fmt.Errorf("discovery: two sources are named %q", s.Name())
		}
	}
	events := make(chan Event, 64)
	failures := make(chan failure)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range sources {
		wg.Go(func() { t.keepRunning(ctx, s, self, events, failures) })
	}
	// Armed for the earliest expiry only, so that an idle table never wakes up.
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next, ok := t.nextExpiry(); ok {
			timer.Reset(time.Until(next))
		} else {
			timer.Reset(time.Hour)
		}
		select {
		case <-ctx.Done():
			return nil
		case ev := <-events:
			if ev.Peer.ID != self().ID {
				t.apply(ev, time.Now())
			}
		case f := <-failures:
			t.cfg.Log.Warn("discovery source failed", "source", f.source, "err", f.err, "again_in", f.pause)
			if t.cfg.Report != nil {
				t.cfg.Report(f.source, f.err)
			}
			t.forget(f.source)
		case <-timer.C:
			t.expire(time.Now())
		}
	}
}

// keepRunning runs one source again and again until ctx ends.
func (t *Table) keepRunning(ctx context.Context, s Source, self func() peer.AddrInfo, events chan<- Event, failures chan<- failure) {
	pause := minRestart
	for {
		began := time.Now()
		err := s.Run(ctx, self, events)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = fmt.Errorf("discovery: source %s ended early", s.Name())
		}
		if time.Since(began) > maxRestart {
			pause = minRestart
		}
		select {
		case failures <- failure{s.Name(), err, pause}:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, maxRestart)
	}
}

// apply takes one event in and tells the outcome.
func (t *Table) apply(ev Event, now time.Time) {
	t.mu.Lock()
	e := t.peers[ev.Peer.ID]
	switch {
	case ev.Gone && e == nil, ev.Peer.ID == "":
		t.mu.Unlock()
		return
	case ev.Gone:
		delete(e.words, ev.Source)
	case e == nil && len(t.peers) >= t.cfg.MaxPeers:
		t.dropped++
		t.mu.Unlock()
		return
	default:
		if e == nil {
			e = &entry{words: make(map[string]word)}
			t.peers[ev.Peer.ID] = e
		}
		w := word{addrs: appendAddrs(nil, ev.Peer.Addrs)}
		if ev.TTL > 0 {
			w.expires = now.Add(ev.TTL)
		}
		e.words[ev.Source] = w
	}
	out := t.settleLocked(ev.Peer.ID, e, nil)
	if ev.Wanted && len(out) == 0 {
		out = append(out, Event{Peer: e.last, Source: e.names})
	}
	t.mu.Unlock()
	t.tell(out)
}

// forget drops all words of a source.
func (t *Table) forget(source string) {
	t.dropWords(func(s string, _ word) bool { return s == source })
}

// expire drops the words that were not repeated in time.
func (t *Table) expire(now time.Time) {
	t.dropWords(func(_ string, w word) bool { return !w.expires.IsZero() && !now.Before(w.expires) })
}

func (t *Table) dropWords(drop func(source string, w word) bool) {
	t.mu.Lock()
	var out []Event
	for id, e := range t.peers {
		n := len(e.words)
		for s, w := range e.words {
			if drop(s, w) {
				delete(e.words, s)
			}
		}
		if len(e.words) != n {
			out = t.settleLocked(id, e, out)
		}
	}
	t.mu.Unlock()
	t.tell(out)
}

func (t *Table) nextExpiry() (next time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.peers {
		for _, w := range e.words {
			if !w.expires.IsZero() && (!ok || w.expires.Before(next)) {
				next, ok = w.expires, true
			}
		}
	}
	return next, ok
}

// settleLocked merges the words about a peer anew and appends the event that
// tells the difference, if there is one.
func (t *Table) settleLocked(id peer.ID, e *entry, out []Event) []Event {
	names := make([]string, 0, len(e.words))
	for s := range e.words {
		names = append(names, s)
	}
	slices.Sort(names)
	merged := peer.AddrInfo{ID: id}
	for _, s := range names {
		merged.Addrs = appendAddrs(merged.Addrs, e.words[s].addrs)
	}
	joined := strings.Join(names, ",")
	if joined == e.names && sameAddrs(merged.Addrs, e.last.Addrs) {
		return out
	}
	ev := Event{Peer: merged, Source: joined}
	if len(names) == 0 {
		delete(t.peers, id)
		ev = Event{Peer: peer.AddrInfo{ID: id}, Source: e.names, Gone: true}
	}
	e.last, e.names = merged, joined
	close(t.changed)
	t.changed = make(chan struct{})
	return append(out, ev)
}

func (t *Table) tell(events []Event) {
	for _, ev := range events {
		t.cfg.Log.Debug("discovery", "peer", ev.Peer.ID, "addrs", ev.Peer.Addrs, "source", ev.Source, "gone", ev.Gone)
		if t.cfg.Notify != nil {
			ev.Peer.Addrs = slices.Clone(ev.Peer.Addrs)
			t.cfg.Notify(ev)
		}
	}
}

// appendAddrs appends the addresses that are new and within the limits.
func appendAddrs(dst, src []ma.Multiaddr) []ma.Multiaddr {
	for _, a := range src {
		if len(dst) >= maxAddrs {
			break
		}
		if b := a.Bytes(); len(b) == 0 || len(b) > maxAddrLen {
			continue
		}
		if !slices.ContainsFunc(dst, a.Equal) {
			dst = append(dst, a)
		}
	}
	return dst
}

// sameAddrs compares as sets: the order in which a source names addresses means
// nothing.
func sameAddrs(a, b []ma.Multiaddr) bool {
	if len(a) != len(b) {
		return false
	}
	return slices.EqualFunc(sorted(a), sorted(b), func(x, y ma.Multiaddr) bool { return x.Equal(y) })
}

func sorted(a []ma.Multiaddr) []ma.Multiaddr {
	a = slices.Clone(a)
	slices.SortFunc(a, func(x, y ma.Multiaddr) int { return bytes.Compare(x.Bytes(), y.Bytes()) })
	return a
}
