package swarm

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func turnMember() *member {
	return &member{gone: make(chan struct{}), bulk: &bulkConn{left: make(chan struct{}, 1)}}
}

// TestTurns has a member that takes what it is sent, one that is slow and one that takes nothing.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Swarm{turns: make(chan struct{}, 1)}
		slow, other := turnMember(), turnMember()
		slow.bulk.sent.Store(500)
		first := s.takeTurn(slow)
		if !first.held {
			t.Fatal("the first has no turn")
		}
		got := make(chan *turn)
		go func() { got <- s.takeTurn(other) }()
		synctest.Wait()
		// What left the connection before does not count, all of what is sent now does.
		waited := make(chan error)
		go func() { waited <- first.await(100) }()
		for range 2 {
			slow.bulk.count(50)
		}
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
		first.free()
		second := <-got
		if !second.held {
			t.Error("a turn that was given back went to nobody")
		}

		begin := time.Now()
		third := s.takeTurn(slow)
		if third.held || time.Since(begin) != turnPatience {
			t.Errorf("waited %v for a turn that others have", time.Since(begin))
		}
		third.free()

		go func() { waited <- second.await(1) }()
		time.Sleep(turnPatience)
		synctest.Wait()
		fourth := s.takeTurn(slow)
		if !fourth.held {
			t.Error("one that takes nothing keeps others from their turns")
		}
		if err := <-waited; !errors.Is(err, errTakesNothing) || time.Since(begin) < stuckAfter {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		second.free()

		go func() { waited <- fourth.await(1) }()
		close(slow.gone)
		if err := <-waited; err != nil {
			t.Error(err)
		}
		fourth.free()
		if len(s.turns) > 0 {
			t.Error("a turn was not given back")
		}
	})
}
