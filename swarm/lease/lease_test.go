package lease_test

import (
	"slices"
	"testing"
	"time"

	"updraft/swarm/lease"
)

func has(eff []lease.Effect, do lease.Do) bool {
	for _, e := range eff {
		if e.Do == do {
			return true
		}
	}
	return false
}

func sent(eff []lease.Effect, k lease.Kind) bool {
	for _, e := range eff {
		if e.Do == lease.Send && e.Msg.Kind == k {
			return true
		}
	}
	return false
}

func TestRankOrder(t *testing.T) {
	gw := lease.Rank{Gateway: true, Link: 2}
	for _, x := range []struct {
		name   string
		r      lease.Rank
		id     string
		s      lease.Rank
		sid    string
		better bool
	}{
		{"gateway before link class", gw, "b", lease.Rank{}, "a", true},
		{"link class before uptime", lease.Rank{Link: 0}, "b", lease.Rank{Link: 1, Up: 999}, "a", true},
		{"longer up", lease.Rank{Up: 30}, "b", lease.Rank{Up: 10}, "a", true},
		{"uptime within the grain", lease.Rank{Up: 19}, "b", lease.Rank{Up: 10}, "a", false},
		{"an answer before uptime", lease.Rank{}, "b", lease.Rank{Reach: lease.Untried, Up: 999}, "a", true},
		{"link class before an answer", lease.Rank{Reach: lease.Untried}, "b", lease.Rank{Link: 1}, "a", true},
		{"out of reach after all", lease.Rank{Link: 2, Reach: lease.Untried}, "b", lease.Rank{Gateway: true, Reach: lease.OutOfReach, Up: 999}, "a", true},
		{"both out of reach", lease.Rank{Gateway: true, Reach: lease.OutOfReach}, "b", lease.Rank{Reach: lease.OutOfReach}, "a", true},
		{"lower ID", lease.Rank{}, "a", lease.Rank{}, "b", true},
	} {
		if got := x.r.Better(x.id, x.s, x.sid); got != x.better {
			t.Errorf("%s: %v", x.name, got)
		}
		if x.s.Better(x.sid, x.r, x.id) == x.better {
			t.Errorf("%s: not an order", x.name)
		}
	}
}

// grant takes a machine alone to holding.
func grant(t *testing.T, m *lease.Machine, now time.Duration) time.Duration {
	t.Helper()
	m.Acquire(now)
	for range 20 {
		if m.State() == lease.Holding {
			return now
		}
		at, ok := m.Next()
		if !ok {
			t.Fatal("nothing to wait for")
		}
		now = at
		m.Tick(now)
	}
	t.Fatal("not granted")
	return 0
}

func TestAloneHoldsSoon(t *testing.T) {
	m := lease.New("a", 0)
	if now := grant(t, m, 0); now > lease.Settle {
		t.Errorf("after %v", now)
	}
	if id, ok := m.Holder(time.Second); !ok || id != "a" {
		t.Errorf("holder %q", id)
	}
}

func TestPausedHolderLosesFirst(t *testing.T) {
	m := lease.New("a", 0)
	now := grant(t, m, 0) + lease.Expiry + time.Second
	eff := m.Recv(now, "b", lease.Message{Kind: lease.Want})
	if !has(eff, lease.Lost) || !sent(eff, lease.Yield) || m.State() != lease.Idle {
		t.Errorf("after a pause: %+v, state %d", eff, m.State())
	}
}

func TestHigherEpochWins(t *testing.T) {
	m := lease.New("b", 0)
	now := grant(t, m, 0)
	m.Up(now, "a")
	eff := m.Recv(now, "a", lease.Message{Kind: lease.Heartbeat, Epoch: m.Epoch() - 1, Rank: lease.Rank{Gateway: true}})
	if has(eff, lease.Lost) || !sent(eff, lease.Heartbeat) {
		t.Errorf("lower epoch: %+v", eff)
	}
	eff = m.Recv(now, "a", lease.Message{Kind: lease.Heartbeat, Epoch: m.Epoch(), Rank: lease.Rank{Gateway: true}})
	if !has(eff, lease.Lost) {
		t.Errorf("equal epoch, better rank: %+v", eff)
	}
	if id, ok := m.Holder(now); !ok || id != "a" {
		t.Errorf("holder %q", id)
	}
}

// TestEpochsGoOnAfterARestart: a device that has started anew claims with an epoch of long ago, and is told.
func TestEpochsGoOnAfterARestart(t *testing.T) {
	for _, state := range []string{"idle", "waiting", "claiming"} {
		a, b := lease.New("a", 0), lease.New("b", 0)
		a.Up(0, "b")
		b.Up(0, "a")
		b.Recv(0, "a", lease.Message{Kind: lease.Heartbeat, Epoch: 7})
		b.Recv(0, "a", lease.Message{Kind: lease.Yield, Epoch: 7}) // and the power fails there
		switch state {
		case "waiting":
			b.Acquire(0)
		case "claiming":
			b.Acquire(0)
			at, _ := b.Next()
			b.Tick(at)
		}
		a.Acquire(0)
		at, _ := a.Next()
		for _, e := range a.Tick(at) {
			for _, f := range b.Recv(at, "a", e.Msg) {
				if f.Do == lease.Send {
					a.Recv(at, "b", f.Msg)
				}
			}
		}
		if a.State() != lease.Waiting {
			t.Fatalf("%s: state %d after an old epoch", state, a.State())
		}
		grant(t, a, at)
		if a.Epoch() < 8 {
			t.Errorf("%s: holds with epoch %d", state, a.Epoch())
		}
	}
}

// TestEpochsRaisedHereOnly: a liar raises the epochs of one device over and over. It tells a claimant once that it is
// behind, and then lets it claim.
func TestEpochsRaisedHereOnly(t *testing.T) {
	m := lease.New("c", 0)
	m.Up(0, "a")
	m.Up(0, "liar")
	objections := 0
	for i := range 50 {
		now := time.Duration(i) * time.Second
		m.Recv(now, "liar", lease.Message{Kind: lease.Want, Epoch: uint64(i+1) * 1000})
		if sent(m.Recv(now, "a", lease.Message{Kind: lease.Claim, Epoch: uint64(i+1)*1000 - 1}), lease.Object) {
			objections++
		}
	}
	if objections != 1 {
		t.Errorf("%d objections", objections)
	}
}

// TestEpochsTooFarApart: a liar has taken one device's epochs to where others do not follow. It lets those claim.
func TestEpochsTooFarApart(t *testing.T) {
	m := lease.New("b", 0)
	m.Up(0, "a")
	m.Up(0, "liar")
	for i := range uint64(3) {
		m.Recv(0, "liar", lease.Message{Kind: lease.Yield, Epoch: i * (1<<32 - 1)})
	}
	if eff := m.Recv(0, "a", lease.Message{Kind: lease.Claim, Epoch: 6}); sent(eff, lease.Object) || !sent(eff, lease.Consent) {
		t.Errorf("a claim is answered with %+v", eff)
	}
}

func TestObjectionOfAThirdMember(t *testing.T) {
	// c hears a; b lost a and claims: c objects, and b waits.
	b, c := lease.New("b", 0), lease.New("c", 0)
	b.Up(0, "c")
	c.Up(0, "a")
	c.Up(0, "b")
	c.Recv(0, "a", lease.Message{Kind: lease.Heartbeat, Epoch: 4})
	b.Acquire(0)
	at, _ := b.Next()
	eff := b.Tick(at)
	if !sent(eff, lease.Claim) {
		t.Fatalf("no claim: %+v", eff)
	}
	eff = c.Recv(at, "b", eff[len(eff)-1].Msg)
	if !sent(eff, lease.Object) {
		t.Fatalf("no objection: %+v", eff)
	}
	b.Recv(at, "c", eff[len(eff)-1].Msg)
	if id, ok := b.Holder(at); b.State() != lease.Waiting || !ok || id != "a" {
		t.Errorf("state %d, holder %q", b.State(), id)
	}
}

func TestEpochFarAheadIsNotFollowed(t *testing.T) {
	m := lease.New("a", 0)
	m.Up(0, "b")
	m.Recv(0, "b", lease.Message{Kind: lease.Yield, Epoch: 1<<64 - 1})
	m.Down(0, "b")
	grant(t, m, 0)
	if m.Epoch() != 1 {
		t.Errorf("epoch %d", m.Epoch())
	}
}

func TestConsentShortensTheClaim(t *testing.T) {
	a := lease.New("a", 0)
	a.Up(0, "b")
	a.Up(0, "c")
	a.Acquire(0)
	at, _ := a.Next()
	a.Tick(at)
	if a.State() != lease.Claiming {
		t.Fatalf("state %d", a.State())
	}
	a.Recv(at, "b", lease.Message{Kind: lease.Consent, Epoch: a.Epoch()})
	a.Recv(at, "c", lease.Message{Kind: lease.Consent, Epoch: a.Epoch() - 1})
	if a.State() != lease.Claiming {
		t.Error("granted without the consent of c")
	}
	if eff := a.Recv(at+time.Millisecond, "c", lease.Message{Kind: lease.Consent, Epoch: a.Epoch()}); !has(eff, lease.Granted) {
		t.Errorf("not granted: %+v", eff)
	}
}

// TestHear lets two holders that are not connected learn of each other.
func TestHear(t *testing.T) {
	m := lease.New("b", 0)
	m.Acquire(0)
	m.Tick(200 * time.Millisecond)
	if m.State() != lease.Holding {
		t.Fatalf("state %d", m.State())
	}
	now := 300 * time.Millisecond
	m.Hear(now, "c", lease.Message{Kind: lease.Heartbeat, Epoch: 1})
	if m.State() != lease.Holding {
		t.Error("lost to a lower rank")
	}
	lost := false
	for _, e := range m.Hear(now, "a", lease.Message{Kind: lease.Heartbeat, Epoch: 1}) {
		lost = lost || e.Do == lease.Lost
	}
	if id, ok := m.Holder(now); !lost || m.State() != lease.Idle || !ok || id != "a" {
		t.Errorf("state %d, holder %q", m.State(), id)
	}
	m.Hear(now, "c", lease.Message{Kind: lease.Yield, Epoch: 1})
	if id, _ := m.Holder(now); id != "a" {
		t.Error("another's yield counts")
	}
	m.Hear(now, "a", lease.Message{Kind: lease.Yield, Epoch: 1})
	if _, ok := m.Holder(now); ok {
		t.Error("a yield does not count")
	}
	m.Hear(now, "b", lease.Message{Kind: lease.Heartbeat, Epoch: 7})
	if _, ok := m.Holder(now); ok {
		t.Error("believes what is said of itself")
	}
	m.Hear(now, "a", lease.Message{Kind: lease.Heartbeat, Epoch: 2})
	if _, ok := m.Holder(now + lease.Expiry); ok {
		t.Error("a holder that fell silent counts")
	}
}

// TestLateHeartbeats: whose heartbeats were late is waited for; who was cut off for long is not, and what was is forgotten.
func TestLateHeartbeats(t *testing.T) {
	const late = lease.InTime + 600*time.Millisecond
	for _, x := range []struct {
		name string
		gaps []time.Duration
		till time.Duration // the lease of the holder, after its last heartbeat
	}{
		{"in time", []time.Duration{lease.Beat, lease.Beat}, lease.Expiry},
		{"one missed", []time.Duration{2 * lease.Beat}, lease.Expiry},
		{"late", []time.Duration{lease.Beat, late}, lease.Expiry + 2*(late-lease.InTime)},
		{"very late", []time.Duration{lease.InTime + lease.LatenessMax + time.Second}, lease.Expiry + 2*lease.LatenessMax},
		{"cut off", []time.Duration{time.Minute}, lease.Expiry},
		{"late once", append([]time.Duration{late}, slices.Repeat([]time.Duration{lease.Beat}, 80)...), lease.Expiry + 10*time.Millisecond},
	} {
		m := lease.New("a", 0)
		m.Up(0, "b")
		m.Acquire(0)
		now := time.Duration(0)
		m.Recv(now, "b", lease.Message{Kind: lease.Heartbeat, Epoch: 5})
		for _, gap := range x.gaps {
			now += gap
			m.Recv(now, "b", lease.Message{Kind: lease.Heartbeat, Epoch: 5})
		}
		_, before := m.Holder(now + x.till - 20*time.Millisecond)
		if _, after := m.Holder(now + x.till); !before || after {
			t.Errorf("%s: held before %v: %v, and then: %v", x.name, x.till, before, after)
		}
	}
}

// TestWanted: a holder knows whether somebody waits for it.
func TestWanted(t *testing.T) {
	m := lease.New("a", 0)
	now := grant(t, m, time.Second)
	m.Up(now, "b")
	for _, x := range []struct {
		msg  lease.Kind
		want bool
	}{{lease.Consent, false}, {lease.Want, true}, {lease.Unwant, false}, {lease.Claim, true}, {lease.Yield, false}, {lease.Want, true}} {
		m.Recv(now, "b", lease.Message{Kind: x.msg, Epoch: m.Epoch()})
		if m.Wanted() != x.want {
			t.Errorf("after %d: %v", x.msg, m.Wanted())
		}
	}
	if m.Down(now, "b"); m.Wanted() {
		t.Error("wanted by a member that has left")
	}
}

// beats lets a member say that it holds the lease with ever higher epochs, until to.
func beats(m *lease.Machine, from string, at, to time.Duration) time.Duration {
	for e := uint64(10); at < to; e++ {
		m.Recv(at, from, lease.Message{Kind: lease.Heartbeat, Epoch: e})
		at += lease.Beat
	}
	return at
}

func TestHolderThatBringsNothingIsDoubted(t *testing.T) {
	m := lease.New("a", 0)
	for _, id := range []string{"b", "c"} {
		m.Up(0, id)
	}
	m.Acquire(0)
	now := beats(m, "b", 0, lease.Stall-lease.Beat)
	if by, _ := m.Holder(now); by != "b" || m.State() != lease.Waiting {
		t.Fatalf("holder %q, state %d", by, m.State())
	}
	now = beats(m, "b", now, lease.Stall+5*time.Second)
	if m.State() != lease.Holding {
		t.Fatalf("state %d: still waits for who brings nothing", m.State())
	}
	eff := m.Recv(now, "b", lease.Message{Kind: lease.Heartbeat, Epoch: 1 << 20})
	eff = append(eff, m.Recv(now, "b", lease.Message{Kind: lease.Claim, Epoch: 1 << 20})...)
	if has(eff, lease.Lost) || sent(eff, lease.Consent) {
		t.Error("follows who is doubted")
	}
	// Others are believed, but for what they say of the one who is doubted.
	m.Release(now)
	m.Acquire(now)
	if m.Recv(now, "c", lease.Message{Kind: lease.Object, Epoch: 1, Holder: "b"}); m.State() != lease.Claiming {
		t.Errorf("state %d: an objection in the name of who is doubted counts", m.State())
	}
	if m.Recv(now, "c", lease.Message{Kind: lease.Heartbeat, Epoch: 1 << 30}); m.State() != lease.Waiting {
		t.Errorf("state %d: another holder is not believed", m.State())
	}
}

// TestLateHolderThatBringsNothingIsDoubted: its lateness keeps no candidate from looking at what came.
func TestLateHolderThatBringsNothingIsDoubted(t *testing.T) {
	m := lease.New("a", 0)
	m.Up(0, "b")
	m.Acquire(0)
	next, gap := time.Duration(0), lease.Expiry-lease.Beat // heartbeat
	for now := next; now < lease.Stall+15*time.Second; {
		if now == next {
			m.Recv(now, "b", lease.Message{Kind: lease.Heartbeat, Epoch: 5})
			next += gap
			gap = min(gap+lease.Beat/2, lease.InTime+lease.LatenessMax)
		}
		at, ok := m.Next()
		if now = next; ok && at < next {
			now = at
			m.Tick(now)
		}
		if m.State() == lease.Holding {
			if now < lease.Stall {
				t.Errorf("takes the lease of a live holder after %v", now)
			}
			return
		}
	}
	t.Error("waits for a holder that is slow to say that it holds, and brings nothing")
}

// TestDoubtGrows: who is believed again after a while is doubted for longer if nothing has changed.
func TestDoubtGrows(t *testing.T) {
	m := lease.New("a", 0)
	m.Up(0, "b")
	m.Acquire(0)
	free := 0
	for at := time.Duration(0); at < time.Hour; at += lease.Beat {
		m.Recv(at, "b", lease.Message{Kind: lease.Heartbeat, Epoch: uint64(at)})
		switch m.State() {
		case lease.Holding:
			free++
		case lease.Idle:
			m.Acquire(at)
		}
	}
	if share := float64(free) / float64(time.Hour/lease.Beat); share < 0.85 {
		t.Errorf("the uplink is used for %.2f of the time", share)
	}
}

func TestHolderThatBringsSomethingIsBelieved(t *testing.T) {
	m := lease.New("a", 0)
	m.Up(0, "b")
	m.Acquire(0)
	now := time.Duration(0)
	for range 20 {
		now = beats(m, "b", now, now+lease.Stall-2*lease.Beat)
		m.Progress(now)
		if by, _ := m.Holder(now); by != "b" || m.State() != lease.Waiting {
			t.Fatalf("after %v: holder %q, state %d", now, by, m.State())
		}
	}
}

// TestPauseIsHeldAgainstNobody: a candidate that was paused, or whose clock jumped, believes the holder that it waited for.
func TestPauseIsHeldAgainstNobody(t *testing.T) {
	for _, away := range []time.Duration{2 * lease.Expiry, lease.Stall, lease.VouchFor, 48 * time.Hour} {
		m := lease.New("a", 0)
		m.Up(0, "b")
		m.Acquire(0)
		now := beats(m, "b", 0, lease.Stall-2*lease.Beat) + away
		m.Vouch(now)
		m.Recv(now, "b", lease.Message{Kind: lease.Heartbeat, Epoch: 1 << 10})
		if by, _ := m.Holder(now); by != "b" || m.State() != lease.Waiting {
			t.Errorf("after %v: holder %q, state %d", away, by, m.State())
		}
		now = beats(m, "b", now, now+lease.Stall+lease.Beat)
		if by, _ := m.Holder(now); by == "b" {
			t.Errorf("after %v: believes who has brought nothing since", away)
		}
	}
}

// TestWhoTellsOfALiarIsBelieved: members that object since they hear the liar are not doubted with it.
func TestWhoTellsOfALiarIsBelieved(t *testing.T) {
	m := lease.New("a", 0)
	for _, id := range []string{"b", "c"} {
		m.Up(0, id)
	}
	m.Acquire(0)
	for at := time.Duration(0); at <= lease.Stall; at += lease.Beat {
		m.Recv(at, "b", lease.Message{Kind: lease.Heartbeat, Epoch: 5})
		m.Recv(at, "c", lease.Message{Kind: lease.Object, Epoch: 5, Holder: "b"})
	}
	now := lease.Stall + time.Second
	m.Recv(now, "c", lease.Message{Kind: lease.Heartbeat, Epoch: 9})
	if by, _ := m.Holder(now); by != "c" {
		t.Errorf("holder %q, want the honest one", by)
	}
}

// TestWhoNamesOthersIsDoubted: who objects in the name of members that say nothing of the kind is doubted, not they.
func TestWhoNamesOthersIsDoubted(t *testing.T) {
	m := lease.New("a", 0)
	for _, id := range []string{"b", "c"} {
		m.Up(0, id)
	}
	m.Acquire(0)
	now := time.Duration(0)
	for ; now <= lease.Stall+time.Second; now += 100 * time.Millisecond {
		m.Recv(now, "b", lease.Message{Kind: lease.Object, Epoch: 5, Holder: "c"})
		m.Tick(now)
	}
	if by, _ := m.Holder(now); by != "a" {
		t.Errorf("holder %q: objections of who names another count", by)
	}
	m.Recv(now, "c", lease.Message{Kind: lease.Heartbeat, Epoch: 1 << 20})
	if by, _ := m.Holder(now); by != "c" {
		t.Errorf("holder %q: the one that was named is doubted", by)
	}
}

// TestVouch: a holder that brings what is for others is believed for longer, but not for ever.
func TestVouch(t *testing.T) {
	m := lease.New("a", 0)
	m.Up(0, "b")
	m.Acquire(0)
	now := time.Duration(0)
	for now < lease.VouchFor {
		now = beats(m, "b", now, now+lease.Stall/2)
		if by, _ := m.Holder(now); by != "b" {
			t.Fatalf("after %v: holder %q", now, by)
		}
		m.Vouch(now)
	}
	for range 5 {
		now = beats(m, "b", now, now+lease.Stall/2)
		m.Vouch(now)
	}
	if by, _ := m.Holder(now); by == "b" {
		t.Error("follows who has brought nothing for too long")
	}
}
