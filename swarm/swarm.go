package swarm

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"

	"updraft/swarm/lease"
	"updraft/swarm/wire"
)

// Limits that are not part of the protocol.
const (
	receiveBytes = 8 << 20                // blobs being received at once, of all members
	flushMin     = 50 * time.Millisecond  // least time between two rounds of Have while blobs are asked for,
	flushEach    = 5 * time.Millisecond   // or this for each member
	flushPush    = 250 * time.Millisecond // the same while blobs come unasked, to those who wait for it
	flushPushed  = 20 * time.Millisecond
	flushAll     = time.Second      // and to the others; at least 2 of the above
	pullRecent   = time.Second      // blobs were asked for so lately
	notifyEvery  = time.Second      // holdings change Changed at most this often
	stuckAfter   = 30 * time.Second // a member that takes nothing for this long is dropped
	shunBase     = 10 * time.Minute // after a wrong blob
	breachBase   = time.Minute      // after messages that no device sends
	maxTargets   = 2048             // peers that are remembered for dialling
	idleWake     = 5 * time.Second  // the loop looks at least this often
	profileLimit = wire.MaxProfile  // bytes of Profile.Node
)

// Swarm is one device's part in the exchange of its site.
type Swarm struct {
	cfg      Config // its Credential is guarded by mu
	self     peer.ID
	instance uint64
	log      *slog.Logger
	start    time.Time
	slept    atomic.Int64 // nanoseconds since then in which the machine was suspended
	gate     *Gate
	kick     chan struct{} // wakes the loop
	budget   *semaphore.Weighted
	turns    *semaphore.Weighted // of those that send blobs, see takeTurn
	codec    codec
	wg       sync.WaitGroup       // everything that Run waits for
	asleep   func() time.Duration // how long the machine was suspended since its start

	mu        sync.Mutex // guards what follows, and the fields of members, shares and objects
	closed    bool
	members   map[peer.ID]*member
	targets   map[peer.ID]*target
	rechecked time.Duration              // when the network of this device has changed last; 0: never
	givenUp   bool                       // a member was given up then or after that
	heardOf   time.Duration              // when a member that was dropped had been heard of
	hasteAt   time.Duration              // when the next dial may be made that is due for haste only
	renewed   int                        // how often the credential has changed
	strange   map[network.Conn]*stranger // connections that are no member's
	late      map[peer.ID]lateness       // peers that did not send what they were asked for, connected or not
	displaced map[peer.ID]uint64         // the instance of a member in whose place another of that key has come
	objects   map[[32]byte]*object
	order     []*object // objects by falling priority, then in the order of Open
	cache     cache
	profile   Profile
	changed   chan struct{}
	changes   bool          // changed is to be closed at the next notification
	notified  time.Duration // when it was closed last
	flushed   time.Duration // when Haves went out last
	toAll     time.Duration // when they went out to everybody
	stale     bool          // some object has Haves to send
	owing     bool          // some of them to a member that waits for them
	worked    time.Duration // when a blob or an object came last
	asking    time.Duration // when a blob was asked for last, here or of this device; 0: never
	ahead     int64         // bytes that may be asked for and not received
	eased     time.Duration // when ahead was lowered last
	lag       time.Duration // that a blob takes which is asked for, in the mean
	flowed    time.Duration // when bytes came last from who is to send something
	whole     time.Duration // when a blob of use came last
	slack     uint          // times of patience are doubled so often, see slackLocked
	slackAt   time.Duration // when slack has changed last
	wakeAt    time.Duration // when the loop wakes by itself
	count     Counters
	turn      int           // rotates among relays of equal load
	injected  int64         // bytes since Pace has looked
	unsent    int64         // bytes when it did
	waited    time.Duration // by Pace, less what was granted
	lease     *lease.Machine
	tenure    *Tenure
	acquiring bool   // Acquire waits
	rumor     uint32 // number of the last rumor that this device began
	rumors    map[string]heard
	rankBase  time.Duration // when the profile's rank was announced
}

// New returns a swarm that does nothing until Run. Its other methods may be called before.
func New(cfg Config) (*Swarm, error) {
	switch {
	case cfg.Host == nil:
		return nil, errors.New("swarm: Config.Host is required")
	case cfg.Admit == nil:
		return nil, errors.New("swarm: Config.Admit is required")
	case len(cfg.Credential) > wire.MaxCredential:
		return nil, fmt.Errorf("%w: credential of %d bytes, limit %d", ErrTooLarge, len(cfg.Credential), wire.MaxCredential)
	}
	if cfg.MaxPeers <= 0 {
		cfg.MaxPeers = DefaultMaxPeers
	}
	if cfg.Settle == 0 {
		cfg.Settle = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Gate == nil {
		cfg.Gate = new(Gate)
	}
	var r [8]byte
	if _, err := rand.Read(r[:]); err != nil {
		return nil, fmt.Errorf("swarm: random: %w", err)
	}
	s := &Swarm{
		cfg: cfg, self: cfg.Host.ID(), instance: binary.LittleEndian.Uint64(r[:]), log: cfg.Log, start: time.Now(), gate: cfg.Gate,
		kick: make(chan struct{}, 1), budget: semaphore.NewWeighted(receiveBytes), turns: semaphore.NewWeighted(turnsAll),
		members: map[peer.ID]*member{}, targets: map[peer.ID]*target{}, strange: map[network.Conn]*stranger{},
		late: map[peer.ID]lateness{}, displaced: map[peer.ID]uint64{}, ahead: pullFirst,
		objects: map[[32]byte]*object{}, changed: make(chan struct{}), rumors: map[string]heard{}, asleep: suspended,
	}
	s.lease = lease.New(string(s.self), max(cfg.Settle, 0))
	return s, nil
}

// now is the swarm's monotonic clock. It goes on while the machine is suspended, see wake.
func (s *Swarm) now() time.Duration { return time.Since(s.start) + time.Duration(s.slept.Load()) }

// Run speaks with members until ctx ends, closes their connections, and returns after the last goroutine has ended.
// It is called once.
func (s *Swarm) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	net := s.cfg.Host.Network()
	note := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { s.met(c) }, DisconnectedF: func(_ network.Network, c network.Conn) { s.parted(c) }}
	net.Notify(note)
	defer net.StopNotify(note)
	s.serve(ctx)
	for _, c := range net.Conns() {
		s.met(c)
	}
	s.loop(ctx)
	s.unserve()
	s.shut()
	cancel()
	s.wg.Wait()
	return nil
}

// shut drops every member and wakes everybody who waits.
func (s *Swarm) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runLocked(s.lease.Release(s.now()))
	s.closed = true
	for _, m := range s.members {
		s.dropLocked(m, "stopping")
	}
	if t := s.tenure; t != nil {
		s.tenure = nil
		close(t.lost)
	}
	for c := range s.strange {
		delete(s.strange, c)
	}
	s.cache.clear()
	s.notifyLocked()
}

// enter registers a goroutine that libp2p started; it returns false when the swarm has ended.
func (s *Swarm) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

// loop does what time asks for: heartbeats, rounds of Have, dialling, requests that went unanswered.
func (s *Swarm) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	w := waking{asleep: s.asleep()}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-timer.C:
		}
		s.wake(&w)
		s.mu.Lock()
		now := s.now()
		next := s.stepLocked(ctx, now)
		s.wakeAt = next
		s.mu.Unlock()
		timer.Reset(max(next-s.now(), time.Millisecond))
	}
}

// stepLocked does what is due and returns when to look again.
func (s *Swarm) stepLocked(ctx context.Context, now time.Duration) time.Duration {
	next := now + idleWake
	soon := func(t time.Duration) { next = min(next, max(t, now)) }

	s.runLocked(s.lease.Tick(now))
	if at, ok := s.lease.Next(); ok {
		soon(at)
	}
	if s.stale {
		if now >= s.flushAtLocked() {
			s.flushLocked(now, false)
		}
		if s.stale {
			soon(s.flushAtLocked())
		}
	}
	soon(s.watchLocked(now))
	soon(s.proveLocked(now))
	soon(s.redelegateLocked(now))
	soon(s.pullLocked(now))
	soon(s.dialLocked(ctx, now))
	if s.changes {
		if due := s.notified + notifyEvery; now >= due {
			s.notifyLocked()
		} else {
			soon(due)
		}
	}
	return next
}

// soonLocked makes the loop wake at t at the latest.
func (s *Swarm) soonLocked(t time.Duration) {
	if t < s.wakeAt {
		s.wakeAt = t
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// tickLocked returns the time between two rounds of Have. Members that ask each other for blobs live on what they know
// of each other; where blobs are pushed, a Have is an acknowledgement to the one who pushed, and each costs every other
// member a wake-up: they hear less often, see flushAtLocked.
func (s *Swarm) tickLocked() time.Duration {
	n := time.Duration(len(s.members))
	if s.pulledLocked() {
		return max(flushMin, n*flushEach)
	}
	return max(flushPush, n*flushPushed)
}

// pulledLocked reports whether members ask each other for blobs.
func (s *Swarm) pulledLocked() bool { return s.asking != 0 && s.now()-s.asking < pullRecent }

// flushAtLocked returns when the next round of Have is due.
func (s *Swarm) flushAtLocked() time.Duration {
	tick := s.tickLocked()
	if s.owing || s.pulledLocked() {
		return s.flushed + tick
	}
	return s.toAll + max(flushAll, 2*tick)
}

// touchLocked makes Changed report, soon.
func (s *Swarm) touchLocked() {
	if !s.changes {
		s.changes = true
		s.soonLocked(s.notified + notifyEvery)
	}
}

func (s *Swarm) notifyLocked() {
	s.changes = false
	s.notified = s.now()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Changed returns a channel that is closed at the next change of members, profiles or lease, and about once a second
// while holdings change. Get the channel before looking.
func (s *Swarm) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Members returns the members that are connected, by name, then ID.
func (s *Swarm) Members() []Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	ms := make([]Member, 0, len(s.members))
	for _, m := range s.members {
		ms = append(ms, Member{
			ID: m.id, Name: m.ident.Name, Type: m.ident.Type, Roles: m.ident.Roles, Addr: m.conn.RemoteMultiaddr().String(),
			Profile: m.profile, Since: m.since, BytesIn: m.bytesIn, BytesOut: m.bytesOut, Dup: m.dup,
		})
	}
	sort.Slice(ms, func(i, j int) bool {
		a, b := &ms[i], &ms[j]
		return a.Name < b.Name || a.Name == b.Name && a.ID < b.ID
	})
	return ms
}

// Announce tells every member p, now and when it connects. Node of more than 16 KiB is an error.
func (s *Swarm) Announce(p Profile) error {
	if len(p.Node) > profileLimit {
		return fmt.Errorf("%w: profile of %d bytes, limit %d", ErrTooLarge, len(p.Node), profileLimit)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profile = Profile{Rank: p.Rank, Node: slices.Clone(p.Node)}
	s.rankBase = s.now()
	s.lease.SetRank(s.rankLocked())
	for _, m := range s.members {
		m.profileDue = true
		m.wakeControl()
	}
	return nil
}

// rankLocked returns the rank as of now.
func (s *Swarm) rankLocked() lease.Rank {
	r := s.profile.Rank
	r.Up = max(r.Up, 0) + int64((s.now()-s.rankBase)/time.Second)
	return r
}

// Counters returns what was counted.
func (s *Swarm) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}
