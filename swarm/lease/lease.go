// Package lease decides which one member of a site uses the uplink.
//
// A [Machine] is the view of one member. It is a pure state machine: it is told what happened and when (by the local
// monotonic clock, as a duration since any fixed point), and answers with what to send and what has changed. It has no
// goroutine, no lock and no clock, so that a test can run thousands of schedules through it. It is not safe for
// concurrent use.
//
// The lease exists only while somebody wants the uplink.
//
//	          Acquire                patience over               window over
//	Idle ───────────────▶ Waiting ───────────────────▶ Claiming ─────────────▶ Holding
//	 ▲  ▲                  ▲   ▲       (no live holder)   │  objection,           │ Release: Yield
//	 │  └──── Release ─────┘   └──────────────────────────┘  a live holder,       │ a better holder, or own
//	 │                                                       a better claim       │ lease ran out: Lost
//	 └────────────────────────────────────────────────────────────────────────────┘
//
// Every candidate says that it wants. The best-ranked candidate claims first; the others wait for their turn, each a
// little longer, and at most [MaxPatience]: so nobody waits for a candidate that does not act. A claim carries a new
// epoch, one above the highest seen, and stands open for [Window], or until every member has consented; a member that
// hears a live holder, is a better candidate, or knows of higher epochs, objects. A holder sends a heartbeat each [Beat]; whoever hears none for [Expiry] considers the lease free.
// Where heartbeats, or a member's own events, come late, because the devices have more to do than they can, it waits for
// the next heartbeat, and leaves a claim open, longer by what it has seen, as failure detectors that adapt do (Chen, Toueg and Aguilera, On the
// Quality of Service of Failure Detectors, 2002): a lease that is taken from a live holder costs what both fetch.
//
// Guaranteed: of two holders that can hear each other one is gone within a message, the one with the lower epoch, at
// equal epochs the one with the lower rank; a holder that was paused for [Expiry] loses its lease before it does
// anything else; while some candidate lives, somebody holds within bounded time. Not guaranteed, since no protocol of
// this kind can: that there are never two holders for a moment. What they fetch twice is bounded by that moment.
//
// Members are believed, but not for ever: a candidate to which nothing new has come for [Stall] while others kept it from
// the uplink doubts them. What a doubted member says of the lease is not followed for [DoubtFor], longer each time. So a
// member that takes the lease and brings nothing, objects to everything or claims without end costs a site minutes,
// and a member doubted in error costs what two holders fetch twice. Holders that are known from what others say only are
// doubted all at once, for who says it may have invented them. The driver tells of what came with
// [Machine.Progress], and of what the holder got for others with [Machine.Vouch].
package lease

import "time"

// Times of the protocol.
const (
	Beat        = 500 * time.Millisecond // between two heartbeats of a holder
	Expiry      = 2 * time.Second        // without a heartbeat, a lease is over
	Window      = 250 * time.Millisecond // a claim is open to objections
	Settle      = 100 * time.Millisecond // the first candidate waits this long for others to speak up
	Step        = 300 * time.Millisecond // each further candidate waits this much longer
	MaxPatience = 2 * time.Second        // nobody waits longer than this while there is no live holder
	LostPeer    = 300 * time.Millisecond // added when only our connection to the holder broke
	ByProxy     = 1 * time.Second        // a holder that others told us of counts as heard for this long
	InTime      = 2 * Beat               // a heartbeat that comes later than this after the last one is late
	LatenessMax = 2 * time.Second        // of a heartbeat that counts; one more than twice as late was cut off or paused
	LateFor     = 20 * time.Second       // in which lateness is forgotten
	Stall       = time.Minute            // a candidate that others keep waiting believes them this long while nothing comes
	VouchFor    = 10 * time.Minute       // and this long while the holder gets what is for others
	DoubtFor    = 2 * time.Minute        // a member is doubted this long, doubled each time
	DoubtForget = time.Hour              // without a doubt, after which one doubling is taken back
	doubtMost   = 5                      // doublings
	doubtKept   = 64                     // doubted members remembered
)

// State of a machine.
type State uint8

// States, see the package comment.
const (
	Idle State = iota
	Waiting
	Claiming
	Holding
)

type member struct {
	want   bool
	rank   Rank
	told   time.Duration // when it was told that its epoch is behind,
	behind bool          // if it was
}

// Machine is one member's view of the lease.
type Machine struct {
	self    string
	rank    Rank
	state   State
	members map[string]*member // connected members
	epoch   uint64             // of our claim or tenure
	seen    uint64             // highest epoch that anybody used

	holder      string // live holder, "" for none; self while Holding
	holderEpoch uint64
	holderRank  Rank
	holderTill  time.Duration // the lease of holder is over at this time
	proxy       bool          // holder is known from an objection only

	heardOf    string // the last holder that a heartbeat came from, with heardEpoch
	heardEpoch uint64
	heardAt    time.Duration

	latest time.Duration // by how much a heartbeat or an event of ours was late, see lateness
	lateAt time.Duration // when that was
	due    time.Duration // when the next event is expected at the latest; 0: never

	free     time.Duration // since when there has been no live holder
	patience time.Duration // added to free before the first candidate may claim
	until    time.Duration // end of the claim's window
	consents map[string]bool
	beat     time.Duration // when the last heartbeat was sent
	out      []Effect

	last    time.Duration    // when the last event was
	since   time.Duration    // since when this candidate has waited with nothing new
	came    time.Duration    // when something new came last
	hinders map[string]int   // how often a member has kept it from claiming since then
	doubts  map[string]doubt // members that are or were doubted
}

// New returns the machine of a member that claims nothing. now starts its patience: give the time from which members
// could have been found.
func New(self string, now time.Duration) *Machine {
	return &Machine{self: self, members: map[string]*member{}, free: now, patience: Settle, hinders: map[string]int{}, doubts: map[string]doubt{}}
}

// State returns the state of this member.
func (m *Machine) State() State { return m.state }

// Epoch returns the epoch of this member's claim or tenure.
func (m *Machine) Epoch() uint64 { return m.epoch }

// Holder returns the member that is known to hold the lease at now, which may be this one.
func (m *Machine) Holder(now time.Duration) (string, bool) {
	if m.holder == "" || m.holder != m.self && now >= m.holderTill {
		return "", false
	}
	return m.holder, true
}

// Wanted reports whether a member waits for the lease that this one has or wants.
func (m *Machine) Wanted() bool {
	for _, p := range m.members {
		if p.want {
			return true
		}
	}
	return false
}

// SetRank changes this member's rank, from the next message on.
func (m *Machine) SetRank(r Rank) { m.rank = r }

// Acquire makes this member a candidate.
func (m *Machine) Acquire(now time.Duration) []Effect {
	m.begin(now)
	if m.state == Idle {
		m.state = Waiting
		m.Progress(now)
		if m.holder == "" && now-m.free > m.patience+Settle {
			// Nobody wanted the lease until now: let others that want it at the same moment speak up.
			m.free, m.patience = now, Settle
		}
		m.send("", Message{Kind: Want, Rank: m.rank})
	}
	return m.finish(now)
}

// Release makes this member no longer a candidate, and no longer the holder.
func (m *Machine) Release(now time.Duration) []Effect {
	m.begin(now)
	switch m.state {
	case Holding:
		m.send("", Message{Kind: Yield, Epoch: m.epoch, Rank: m.rank})
		m.vacate(now, 0)
	case Waiting, Claiming:
		m.send("", Message{Kind: Unwant, Rank: m.rank})
	}
	m.state = Idle
	return m.finish(now)
}

// Up tells that a member is connected.
func (m *Machine) Up(now time.Duration, id string) []Effect {
	m.begin(now)
	if _, ok := m.members[id]; !ok && id != m.self {
		m.members[id] = &member{}
		switch m.state {
		case Waiting:
			m.send(id, Message{Kind: Want, Rank: m.rank})
		case Claiming:
			m.send(id, Message{Kind: Claim, Epoch: m.epoch, Rank: m.rank})
		case Holding:
			m.send(id, Message{Kind: Heartbeat, Epoch: m.epoch, Rank: m.rank})
		}
	}
	return m.finish(now)
}

// Down tells that a member is no longer connected.
func (m *Machine) Down(now time.Duration, id string) []Effect {
	m.begin(now)
	delete(m.members, id)
	if id == m.holder && id != m.self {
		m.vacate(now, LostPeer)
	}
	return m.finish(now)
}

// Tick tells that time has passed; see Next.
func (m *Machine) Tick(now time.Duration) []Effect {
	m.begin(now)
	return m.finish(now)
}

// Recv tells that a member sent a message.
func (m *Machine) Recv(now time.Duration, from string, msg Message) []Effect {
	m.begin(now)
	p := m.members[from]
	if p == nil || from == m.self {
		return m.finish(now)
	}
	m.see(msg.Epoch)
	p.rank = msg.Rank
	if m.hindered(now, from, msg) {
		return m.finish(now)
	}
	switch msg.Kind {
	case Want:
		p.want = true
		if m.state == Holding {
			m.send(from, Message{Kind: Heartbeat, Epoch: m.epoch, Rank: m.rank})
		}
	case Unwant:
		p.want = false
	case Claim:
		p.want = true
		m.claimed(now, from, msg)
	case Heartbeat:
		p.want = false
		m.heartbeat(now, from, msg)
	case Object:
		m.objected(now, from, msg)
	case Consent:
		if m.state == Claiming && msg.Epoch == m.epoch {
			m.consents[from] = true
		}
	case Yield:
		p.want = false
		if m.holder == from {
			m.vacate(now, 0)
		}
	}
	return m.finish(now)
}

// Hear tells what a holder that need not be connected said: a Heartbeat or a Yield, passed on by others. On a site that
// is too large for everybody to be connected with everybody, it is what two candidates far apart know of each other.
func (m *Machine) Hear(now time.Duration, holder string, msg Message) []Effect {
	m.begin(now)
	if holder != m.self {
		m.see(msg.Epoch)
		switch {
		case m.hindered(now, holder, msg):
		case msg.Kind == Heartbeat:
			m.heartbeat(now, holder, msg)
		case msg.Kind == Yield && m.holder == holder && msg.Epoch >= m.holderEpoch:
			m.vacate(now, 0)
		}
	}
	return m.finish(now)
}

// Next returns when Tick must be called if nothing else happens before; ok is false when never.
func (m *Machine) Next() (at time.Duration, ok bool) {
	switch m.state {
	case Waiting:
		at = m.turn()
		if m.holder != "" {
			at = m.holderTill
		}
		if len(m.hinders) > 0 {
			at = min(at, m.since+Stall)
		}
		return min(at, m.last+Expiry), true // see awake
	case Claiming:
		return m.until, true
	case Holding:
		return m.beat + Beat, true
	}
	if m.holder != "" {
		return m.holderTill, true
	}
	return 0, false
}

// begin applies what time alone has done since the last event, before the event is looked at.
func (m *Machine) begin(now time.Duration) {
	m.out = nil
	if m.due > 0 {
		m.late(now, now-m.due-Beat/2)
	}
	m.awake(now)
	if m.state == Holding && now-m.beat >= Expiry {
		// We were paused: others may hold by now.
		m.send("", Message{Kind: Yield, Epoch: m.epoch, Rank: m.rank})
		m.lose(now)
	}
	if m.holder != "" && m.holder != m.self && now >= m.holderTill {
		m.vacate(now, 0)
	}
	m.judge(now)
}

// finish applies what has become due at now and returns the effects.
func (m *Machine) finish(now time.Duration) []Effect {
	if m.state == Waiting && m.holder == "" && now >= m.turn() {
		m.claim(now)
	}
	if m.state == Claiming && (now >= m.until || m.agreed()) {
		m.state = Holding
		m.setHolder(now, m.self, m.epoch, m.rank, 0)
		m.do(Effect{Do: Granted})
		m.beat = now - Beat
	}
	if m.state == Holding && now-m.beat >= Beat {
		m.beat = now
		m.send("", Message{Kind: Heartbeat, Epoch: m.epoch, Rank: m.rank})
	}
	m.due, _ = m.Next()
	out := m.out
	m.out = nil
	return out
}

// agreed reports whether every member has consented to the claim.
func (m *Machine) agreed() bool {
	for id := range m.members {
		if !m.consents[id] {
			return false
		}
	}
	return true
}

// turn returns when this member may claim while there is no holder.
func (m *Machine) turn() time.Duration {
	wait := m.patience
	for id, p := range m.members {
		if p.want && p.rank.Better(id, m.rank, m.self) {
			wait += Step
		}
	}
	return m.free + min(wait, MaxPatience)
}

func (m *Machine) claim(now time.Duration) {
	m.state = Claiming
	m.seen++
	m.epoch = m.seen
	m.until = now + Window + m.lateness(now)
	m.consents = map[string]bool{}
	m.send("", Message{Kind: Claim, Epoch: m.epoch, Rank: m.rank})
}

// claimed answers another member's claim. Silence until the end of the window is consent; saying so makes it short.
func (m *Machine) claimed(now time.Duration, from string, msg Message) {
	better := m.rank.Better(m.self, msg.Rank, from)
	switch {
	case m.state == Holding:
		m.send(from, Message{Kind: Object, Epoch: m.seen, Rank: m.rank, Holder: m.self})
		m.send(from, Message{Kind: Heartbeat, Epoch: m.epoch, Rank: m.rank})
		return
	case m.holder != "" && m.holder != from:
		m.send(from, Message{Kind: Object, Epoch: m.seen, Rank: m.rank, Holder: m.holder})
		return
	case m.state == Claiming && better:
		m.send(from, Message{Kind: Object, Epoch: m.seen, Rank: m.rank})
		return
	case m.state == Waiting && better:
		// Whoever objects by rank must act at once, or nobody would.
		m.send(from, Message{Kind: Object, Epoch: m.seen, Rank: m.rank})
		m.claim(now)
		return
	case m.state == Claiming:
		m.state = Waiting
	}
	// Leave the claimant its window, and the time to be heard, before we claim ourselves.
	m.free, m.patience = now, Window+m.lateness(now)+Settle
	if m.behind(now, from, msg.Epoch) {
		m.send(from, Message{Kind: Object, Epoch: m.seen, Rank: m.rank})
		return
	}
	m.do(Effect{Do: Flush, To: from})
	m.send(from, Message{Kind: Consent, Epoch: msg.Epoch, Rank: m.rank})
}

func (m *Machine) heartbeat(now time.Duration, from string, msg Message) {
	m.clock(now, from, msg.Epoch)
	switch m.state {
	case Holding:
		if !m.wins(msg.Epoch, msg.Rank, from, m.epoch, m.rank, m.self) {
			m.send(from, Message{Kind: Heartbeat, Epoch: m.epoch, Rank: m.rank})
			return
		}
		m.lose(now)
	case Claiming:
		m.state = Waiting
	}
	if m.holder == "" || m.holder == from || m.wins(msg.Epoch, msg.Rank, from, m.holderEpoch, m.holderRank, m.holder) {
		m.setHolder(now, from, msg.Epoch, msg.Rank, Expiry+2*m.lateness(now))
	}
}

// clock takes note of how late a heartbeat comes.
func (m *Machine) clock(now time.Duration, from string, epoch uint64) {
	if from == m.heardOf && epoch == m.heardEpoch {
		m.late(now, now-m.heardAt-InTime)
	}
	m.heardOf, m.heardEpoch, m.heardAt = from, epoch, now
}

// late takes note that something came later by d than it should have.
func (m *Machine) late(now, d time.Duration) {
	if d > 2*LatenessMax {
		return
	}
	if d = min(d, LatenessMax); d > m.lateness(now) {
		m.latest, m.lateAt = d, now
	}
}

// lateness returns how much later than usual something may come.
func (m *Machine) lateness(now time.Duration) time.Duration {
	left := LateFor - (now - m.lateAt)
	if left <= 0 {
		return 0
	}
	return time.Duration(float64(m.latest) * left.Seconds() / LateFor.Seconds())
}

func (m *Machine) objected(now time.Duration, from string, msg Message) {
	if m.state != Claiming {
		return
	}
	m.state = Waiting
	switch {
	case msg.Holder == m.self:
		// They heard a tenure of ours that is over: wait until they have forgotten it.
		m.free, m.patience = now, Settle
	case msg.Holder != "":
		m.setHolder(now, msg.Holder, msg.Epoch, msg.Rank, ByProxy)
		m.proxy = true
	default:
		m.free, m.patience = now, Window+m.lateness(now)+Settle
	}
}

func (m *Machine) wins(e uint64, r Rank, id string, e2 uint64, r2 Rank, id2 string) bool {
	if e != e2 {
		return e > e2
	}
	return r.Better(id, r2, id2)
}

func (m *Machine) setHolder(now time.Duration, id string, epoch uint64, r Rank, live time.Duration) {
	if m.holder != id {
		m.do(Effect{Do: Changed})
	}
	m.holder, m.holderEpoch, m.holderRank, m.holderTill = id, epoch, r, now+live
	m.proxy = false
}

// vacate forgets the holder; patience begins anew.
func (m *Machine) vacate(now, extra time.Duration) {
	if m.holder != "" {
		m.do(Effect{Do: Changed})
	}
	m.holder = ""
	m.free, m.patience = now, extra
}

// lose ends a tenure that was not released.
func (m *Machine) lose(now time.Duration) {
	m.state = Idle
	m.vacate(now, Settle)
	m.do(Effect{Do: Lost})
}

func (m *Machine) do(e Effect) { m.out = append(m.out, e) }

func (m *Machine) send(to string, msg Message) { m.do(Effect{Do: Send, To: to, Msg: msg}) }
