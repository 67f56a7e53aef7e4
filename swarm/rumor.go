package swarm

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm/lease"
	"updraft/swarm/wire"
)

// On a site with more devices than one has members, what the holder of the lease says goes from member to member: each
// passes on what is new to it to a few others, drawn anew each time. Of a site of any size all but one in fifty hear
// each heartbeat, and nobody misses four in a row for long.
const (
	rumorFirst   = 8                // members to which the holder says it
	rumorFurther = 4                // to which everybody else passes it on
	rumorMost    = 16               // holders of whom the latest is remembered,
	rumorOld     = 2 * lease.Expiry // for so long, where one counts anew, as after a restart:
	rumorAnew    = 2 * rumorMost    // from the beginning to this. What else is behind was held up on the way

	// Of one member a new rumor is taken up so often, and rumorMost at once: a holder says two a second, which come
	// from all sides. More are invented, and each would go round the whole site.
	rumorEach = 250 * time.Millisecond
)

// heard is the latest rumor of a holder.
type heard struct {
	epoch  uint64
	number uint32
	at     time.Duration
}

// startRumorLocked has members pass on what this device says as the holder.
func (s *Swarm) startRumorLocked(msg lease.Message) {
	if !s.partialLocked() || msg.Kind != lease.Heartbeat && msg.Kind != lease.Yield {
		return
	}
	s.rumor++
	s.spreadRumorLocked(wire.Rumor{Kind: wire.LeaseKind(msg.Kind), Epoch: msg.Epoch, Rank: rankTo(msg.Rank), Number: s.rumor, Holder: string(s.self)}, nil, rumorFirst)
}

// rumorLocked takes up what a member passed on.
func (s *Swarm) rumorLocked(from *member, r wire.Rumor) {
	if !s.partialLocked() {
		return // all devices are members here: what others say of a holder can only be wrong
	}
	now := s.now()
	last, known := s.rumors[r.Holder]
	behind := known && (r.Epoch < last.epoch || r.Epoch == last.epoch && r.Number <= last.number)
	anew := now-last.at >= rumorOld && r.Number <= rumorAnew
	if r.Holder == string(s.self) || s.lease.Leaps(r.Epoch) || behind && !anew {
		return
	}
	if from.rumorRoom = max(from.rumorRoom, now); from.rumorRoom > now+rumorMost*rumorEach {
		return
	}
	from.rumorRoom += rumorEach
	if !known && len(s.rumors) >= rumorMost {
		for id := range s.rumors {
			delete(s.rumors, id)
			break
		}
	}
	s.rumors[r.Holder] = heard{r.Epoch, r.Number, now}
	if m := s.members[peer.ID(r.Holder)]; m != nil {
		// It speaks for itself here, and nobody else for it.
		r.Rank.Gateway = r.Rank.Gateway && m.ident.Gateway
	} else {
		// The credential is not known here: who passes on such a rumor is believed, as he is in its epoch, while something comes.
		rank := lease.Rank{Gateway: r.Rank.Gateway, Link: r.Rank.Link, Reach: r.Rank.Reach, Up: int64(r.Rank.Up)}
		s.runLocked(s.lease.Hear(now, r.Holder, lease.Message{Kind: lease.Kind(r.Kind), Epoch: r.Epoch, Rank: rank}))
	}
	s.spreadRumorLocked(r, from, rumorFurther)
}

// spreadRumorLocked queues a rumor for n members, but not for the one it came from nor the one it is about.
func (s *Swarm) spreadRumorLocked(r wire.Rumor, from *member, n int) {
	for _, m := range s.members { // in random order
		if n == 0 {
			return
		}
		if m == from || m.id == peer.ID(r.Holder) {
			continue
		}
		n--
		m.rumors = append(m.rumors[max(0, len(m.rumors)-rumorMost+1):], r)
		m.wakeControl()
	}
}
