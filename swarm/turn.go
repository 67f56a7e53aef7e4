package swarm

import (
	"errors"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

const (
	turnsMost    = 8           // members that blobs are written to at once
	turnPatience = time.Second // a member that takes longer keeps nobody else from his turn
)

// errTakesNothing ends the connection with a member that does not take what it was sent.
var errTakesNothing = errors.New("swarm: member takes nothing")

// turn is the right to write to one member. What waits for a connection lies in memory two or three times over, in clear
// and encrypted, and a relay has something for every member at the same moment: with few turns it writes to one after the
// other, as its link does anyway, and what has no turn yet is not even read. The next turn of a member comes when all of
// the last one is with the kernel, so that its list, not a queue, says what it lacks by then.
type turn struct {
	s     *Swarm
	m     *member
	begin int64 // bytes that had left the connection
	held  bool
}

// takeTurn waits for a turn, but not for long.
func (s *Swarm) takeTurn(m *member) *turn {
	t := &turn{s: s, m: m}
	if m.bulk == nil {
		return t
	}
	select {
	case s.turns <- struct{}{}:
		t.held = true
	default:
		late := time.NewTimer(turnPatience)
		defer late.Stop()
		select {
		case s.turns <- struct{}{}:
			t.held = true
		case <-m.gone:
		case <-late.C:
		}
	}
	t.begin = m.bulk.sent.Load()
	return t
}

// await returns when n bytes more are with the kernel than at the beginning of the turn.
func (t *turn) await(n int64) error {
	b := t.m.bulk
	if b == nil || b.sent.Load() >= t.begin+n {
		return nil
	}
	late := time.NewTimer(turnPatience)
	defer late.Stop()
	for patient := true; b.sent.Load() < t.begin+n; {
		select {
		case <-b.left:
		case <-t.m.gone:
			return nil
		case <-late.C:
			if !patient {
				return errTakesNothing
			}
			patient = false
			t.free()
			late.Reset(stuckAfter)
		}
	}
	return nil
}

// free gives the turn to somebody else.
func (t *turn) free() {
	if t.held {
		t.held = false
		<-t.s.turns
	}
}

// bulkMuxer is a multiplexer whose connections tell the bulkConn below them to who asks with As.
type bulkMuxer struct{ network.Multiplexer }

// NewConn is part of network.Multiplexer.
func (x bulkMuxer) NewConn(c net.Conn, server bool, scope network.PeerScope) (network.MuxedConn, error) {
	m, err := x.Multiplexer.NewConn(c, server, scope)
	if b, ok := c.(*bulkConn); ok && err == nil {
		return bulkMuxed{m, b}, nil
	}
	return m, err
}

type bulkMuxed struct {
	network.MuxedConn
	bulk *bulkConn
}

// As is part of network.MuxedConn.
func (m bulkMuxed) As(target any) bool {
	if t, ok := target.(**bulkConn); ok {
		*t = m.bulk
		return true
	}
	return m.MuxedConn.As(target)
}
