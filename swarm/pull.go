package swarm

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	pullBytes   = 2 << 20                // asked for and not received, of all members
	pullAll     = 4 << 20                // the same, with what is late
	pullFirst   = 256 << 10              // the same at first, until blobs have come
	pullAhead   = 2 * time.Second        // so much of what a member sends in a time is asked of it
	pullFair    = 16 << 10               // bytes a second: if blobs come more slowly, fewer are asked for at once
	pullWait    = 2 * time.Second        // and for which they have this besides
	pullOutrun  = 4                      // a second member is asked if it is so many times as fast
	pullLeast   = 4                      // blobs asked of one member that are always allowed
	pullMost    = 16                     // and that are allowed when few members have what is wanted
	pullTimeout = 2 * time.Second        // without anything from the member that was asked
	pullLag     = 10 * time.Second       // the same at most, where blobs take long: those of one may wait behind those of another
	pullSlow    = 5 * time.Second        // a member that did not answer is not asked for this long
	pullEnd     = 500 * time.Millisecond // who has sent nothing whole for this long is late; at the end, its blob is asked of a second one too
	tryFewer    = 2                      // doublings of pullEnd for each member that is being tried, before one more is
	tryMost     = 8                      // members being tried that count for that
	pullScan    = 2048                   // candidates looked at in one go
	lateMost    = 3                      // doublings of pullSlow
	lateKept    = 1024                   // peers of which lateness is remembered
	slackMost   = 3                      // doublings of the times of patience
	slackGrows  = time.Second            // at least between two doublings
	slackEases  = 5 * time.Second        // until one is taken back
)

// ask is a request that is under way.
type ask struct {
	from, also *share // also: the second member asked, at the end
	at         time.Duration
	bytes      int64 // asked of from until then, and not received: with this blob
}

// since returns from when on nothing whole has come from the member that was asked.
func (a *ask) since() time.Duration { return max(a.at, a.from.m.lastBlob) }

// awaitedSince returns since when nothing whole has come from a member that is asked for something.
func (m *member) awaitedSince() time.Duration { return max(m.askedAt, m.lastBlob) }

// roomFor reports whether a member may be asked for a blob: of what it sends slowly, not much is asked ahead.
func (m *member) roomFor(size int64) bool {
	return m.asked == 0 || m.pace == 0 || float64(m.askedBytes+size) <= m.pace*pullAhead.Seconds()
}

// outruns reports whether the member would have sent a blob long ago, had it been asked for.
func (m *member) outruns(size int64, waited time.Duration) bool {
	return m.pace*waited.Seconds() >= float64(pullOutrun*size)
}

// pacedLocked learns from a blob that came when it was asked for: how fast its member is, and how much comes at once
// without each of it coming slowly.
func (s *Swarm) pacedLocked(m *member, a *ask, size int64, now time.Duration) {
	took := max(now-a.at, time.Millisecond)
	pace := float64(a.bytes) / took.Seconds() // members send in the order in which they were asked
	if m.pace > 0 {
		pace = (m.pace + pace) / 2
	}
	m.pace = pace
	s.lag = (s.lag + took) / 2
	switch slow := pullWait + time.Duration(size)*time.Second/pullFair; {
	case took < slow:
		s.ahead = min(s.ahead+size, pullBytes)
	case now-s.eased > slow:
		s.ahead, s.eased = max(s.ahead/2, size), now
	}
}

// outpacedLocked learns from a blob that another member sent sooner: its own does so no faster than that.
func (m *member) outpacedLocked(a *ask, now time.Duration) {
	pace := float64(a.bytes) / max(now-a.since(), time.Millisecond).Seconds()
	if m.pace == 0 || pace < m.pace {
		m.pace = pace
	}
}

// candidate is a blob, and above it how many members have it, and a tie.
type candidate = uint64

// patienceLocked is how long a push has before a blob is asked for. Who is not connected with everybody gets many blobs
// by asking only, and waits less.
func (s *Swarm) patienceLocked() time.Duration {
	if s.partialLocked() {
		return max(pullPatience, s.tickLocked()) << s.slackLocked()
	}
	return max(pullPatience, 3*s.tickLocked()) << s.slackLocked()
}

// slackLocked returns how often the times of patience are doubled. Where devices or links are too busy to keep them, blobs
// come twice, which makes all busier still: each second with such a blob doubles them, each five without halve them.
func (s *Swarm) slackLocked() uint {
	if n := (s.now() - s.slackAt) / slackEases; s.slack > 0 && n > 0 {
		s.slack -= min(s.slack, uint(n))
		s.slackAt += n * slackEases
	}
	return s.slack
}

// hurriedLocked notes that a blob came twice.
func (s *Swarm) hurriedLocked() {
	if s.slackLocked() < slackMost && (s.slack == 0 || s.now()-s.slackAt > slackGrows) {
		s.slack++
		s.slackAt = s.now()
	}
}

// pullRoomLocked reports whether it is worth looking for more to ask for.
func (s *Swarm) pullRoomLocked() bool {
	now, n := s.now(), int64(0)
	for _, m := range s.members {
		if now-m.awaitedSince() < pullEnd {
			n += m.askedBytes
		}
	}
	return n < s.ahead/2 || n < s.ahead && s.ahead < pullFirst
}

// roomsLocked works out how many bytes may be asked for if some of them are asked of a member, and returns the most. What
// is late takes no room from members that would have sent it long ago. Nor does it from one that was never asked, which
// may be as fast; but few of these are tried at a time, since all are slow where the link here is.
func (s *Swarm) roomsLocked(now time.Duration) (most int64) {
	var late []*member
	var sum int64
	tried, last := uint(0), time.Duration(0) // how many are, and since when nothing has changed with who is asked
	for _, m := range s.members {
		if m.asked == 0 {
			continue
		}
		sum += m.askedBytes
		last = max(last, m.awaitedSince())
		if now-m.awaitedSince() >= pullEnd {
			late = append(late, m)
		}
		if m.pace == 0 {
			tried++
		}
	}
	try := len(late) > 0 && sum <= pullBytes && now-last >= pullEnd<<(tryFewer*(min(max(tried, 1), tryMost)-1))
	for _, m := range s.members {
		m.room = s.ahead - sum
		for _, l := range late {
			if l != m && m.outruns(l.askedBytes, now-l.awaitedSince()) {
				m.room += l.askedBytes
			}
		}
		if try && m.pace == 0 && m.asked == 0 {
			m.room = max(m.room, 1) // one blob
		}
		m.room = min(m.room, pullAll-sum)
		if !m.suspect(now) {
			most = max(most, m.room)
		}
	}
	return most
}

// pullLocked asks members for what this device lacks, and returns when to look again.
func (s *Swarm) pullLocked(now time.Duration) time.Duration {
	next := now + idleWake
	most, used := s.roomsLocked(now), int64(0)
	for _, obj := range s.order {
		if !obj.opt.Receive || obj.n == len(obj.Sums) {
			continue
		}
		if len(obj.asked) > 0 {
			next = min(next, s.overdueLocked(obj, now), now+pullEnd/2)
		}
		if most > used {
			var at time.Duration
			at, used = s.pullObjectLocked(obj, now, most, used)
			next = min(next, at)
		}
	}
	return next
}

// pullObjectLocked asks for blobs of one object, the rarest first, as long as less than most bytes are used. It returns
// when more may be due, and how many are used then.
func (s *Swarm) pullObjectLocked(obj *object, now time.Duration, most, used int64) (time.Duration, int64) {
	next := now + idleWake
	list, wait := s.candidatesLocked(obj, now)
	if wait > 0 {
		next = now + wait
	}
	if len(list) == 0 {
		if len(obj.asked) > 0 && obj.n+len(obj.asked) == len(obj.Sums) {
			next = min(next, s.endGameLocked(obj, now))
		}
		return next, used
	}
	each := max(pullLeast, pullMost/max(1, s.sourcesLocked(obj)))
	for _, c := range list {
		if used >= most {
			break
		}
		i := uint32(c)
		h := obj.sourceLocked(i, now, each, used, nil)
		size := int64(obj.Sizes[i])
		if h == nil || obj.onItsWay(i, now) && !h.m.outruns(size, now-obj.busySince(i)) {
			continue
		}
		used += size
		s.askLocked(h, i, size)
		obj.asked[i] = &ask{from: h, at: now, bytes: h.m.askedBytes}
	}
	if len(list) == pullScan || len(obj.asked) > 0 {
		next = min(next, now+pullEnd/2)
	} else {
		next = min(next, now+pullTimeout/4)
	}
	return next, used
}

// candidatesLocked returns blobs that may be asked for, rarest first, and how long until more may be.
func (s *Swarm) candidatesLocked(obj *object, now time.Duration) ([]candidate, time.Duration) {
	var list []candidate
	wait := time.Duration(0)
	n := len(obj.Sums)
	start := rand.N(n)
	for k := range n {
		i := start + k
		if i >= n {
			i -= n
		}
		at := obj.ready[i]
		if at == 0 || obj.have.has(i) {
			continue
		}
		if at > now {
			if wait == 0 || at-now < wait {
				wait = at - now
			}
			continue
		}
		u := uint32(i)
		if obj.asked[u] != nil || obj.storing[u] || now-obj.busySince(u) < busyTime {
			continue
		}
		list = append(list, candidate(obj.avail[i])<<48|candidate(rand.Uint32()&0xffff)<<32|candidate(u))
		if len(list) == pullScan {
			break
		}
	}
	slices.Sort(list)
	return list, wait
}

// sourcesLocked counts the members that have anything of an object.
func (s *Swarm) sourcesLocked(obj *object) int {
	n := 0
	for _, h := range obj.shares {
		if h.n > 0 {
			n++
		}
	}
	return n
}

// sourceLocked returns the member to ask for a blob: of those that have it, answer and have room for more than the bytes
// that are used, the one that is asked for least.
func (obj *object) sourceLocked(i uint32, now time.Duration, each int, used int64, not *share) *share {
	var best *share
	ties := 0
	sp := obj.spares[i]
	for _, h := range obj.shares {
		if sp.by == h.m && now-sp.at < flightTime {
			continue
		}
		if h == not || h.m.room <= used || !h.bits.has(int(i)) || h.m.asked >= each || !h.m.roomFor(int64(obj.Sizes[i])) || h.m.suspect(now) {
			continue
		}
		switch {
		case best == nil || h.m.asked < best.m.asked:
			best, ties = h, 1
		case h.m.asked == best.m.asked:
			ties++
			if rand.N(ties) == 0 {
				best = h
			}
		}
	}
	return best
}

func (s *Swarm) askLocked(h *share, i uint32, size int64) {
	if h.m.asked == 0 {
		h.m.askedAt = s.now()
	}
	h.m.asked++
	h.m.askedBytes += size
	h.gets = append(h.gets, i)
	s.asking = s.now()
	s.count.Pulled++
	s.queueLocked(h)
}

// unaskLocked ends a request. With cancel, the members asked are told, but for the one that it came from.
func (s *Swarm) unaskLocked(obj *object, i uint32, a *ask, cancel bool) {
	delete(obj.asked, i)
	for _, h := range []*share{a.from, a.also} {
		if h == nil {
			continue
		}
		h.m.asked--
		h.m.askedBytes -= int64(obj.Sizes[i])
		if cancel && h.obj == obj && !h.m.dropped {
			h.cancels = append(h.cancels, i)
			s.queueLocked(h)
		}
	}
}

// lagLocked returns how long a blob takes that is asked for: in the mean, and, as long as bytes come, not less than since
// the last one. Where the link here is slow, those of one member wait behind those of another.
func (s *Swarm) lagLocked(now time.Duration) time.Duration {
	lag := s.lag
	if s.flowed != 0 && now-s.flowed < flowGap {
		lag = max(lag, now-s.whole)
	}
	return min(lag, pullLag)
}

// overdueLocked gives up requests that are not answered; the blobs become candidates again.
func (s *Swarm) overdueLocked(obj *object, now time.Duration) time.Duration {
	next := now + idleWake
	patience := max(pullTimeout, s.lagLocked(now)) << s.slackLocked()
	for i, a := range obj.asked {
		m := a.from.m
		due := min(max(a.since(), m.flowed)+patience, a.since()+timeFor(a.bytes, paceWorth))
		if now < due && now >= m.slowUntil { // else it is late already with something else
			next = min(next, due)
			continue
		}
		if obj.onItsWay(i, now) {
			continue
		}
		s.lateLocked(m, now)
		s.unaskLocked(obj, i, a, true)
	}
	return next
}

// lateness is how often a peer did not send what it was asked for, and until when it is not asked again. It outlives
// the connection.
type lateness struct {
	times int
	until time.Duration
}

// lateLocked notes that a member has not sent what it was asked for: it is not asked for pullSlow, doubled each time.
func (s *Swarm) lateLocked(m *member, now time.Duration) {
	if now < m.slowUntil {
		return // for what was asked at the same time
	}
	l, ok := s.late[m.id]
	if !ok && len(s.late) >= lateKept {
		for id, l := range s.late {
			if now > l.until {
				delete(s.late, id)
			}
		}
		if len(s.late) >= lateKept {
			clear(s.late)
		}
	}
	m.slowUntil = now + pullSlow<<min(l.times, lateMost)
	s.late[m.id] = lateness{l.times + 1, m.slowUntil}
}

// servedLocked notes that a member has sent what it was asked for.
func (s *Swarm) servedLocked(m *member) {
	l, ok := s.late[m.id]
	if !ok {
		return
	}
	if l.times = min(l.times, lateMost+1) - 1; l.times > 0 {
		s.late[m.id] = l
	} else {
		delete(s.late, m.id)
	}
}

// endGameLocked asks a second member for that of which nothing comes, when nothing else is left to ask for; and for what
// comes slowly, if that member is much faster. It returns when more will have to be.
func (s *Swarm) endGameLocked(obj *object, now time.Duration) time.Duration {
	next := now + idleWake
	patience := max(pullEnd, s.lagLocked(now))
	for i, a := range obj.asked {
		if a.also != nil {
			continue
		}
		if due := max(a.since()+patience, obj.busySince(i)+busyTime); now < due {
			next = min(next, due)
			continue
		}
		size := int64(obj.Sizes[i])
		h := obj.sourceLocked(i, now, pullLeast, math.MinInt64, a.from)
		if h == nil || a.from.m.flows(now) && !h.m.outruns(size, now-a.since()) {
			next = min(next, now+pullEnd)
			continue
		}
		a.also = h
		s.askLocked(h, i, size)
	}
	return next
}

// nackLocked applies the answer that a member does not have a blob.
func (s *Swarm) nackLocked(h *share, i uint32) {
	obj := h.obj
	if h.bits.clear(int(i)) {
		h.n--
		obj.unlearn(int(i))
	}
	if a := obj.asked[i]; a != nil && (a.from == h || a.also == h) {
		s.unaskLocked(obj, i, a, false)
	}
	s.soonLocked(s.now())
}
