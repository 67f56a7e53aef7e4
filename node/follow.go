package node

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// How members that say they have newer metadata are asked for it.
const (
	claimPause    = time.Minute      // how long a claim that came to nothing is left alone
	followTimeout = 30 * time.Second // of what one member sends
	followPause   = time.Second      // who has not sent it by then is no reason not to ask another
	followAtOnce  = 8                // members asked at the same time
)

// claim is what a member said it had when it was asked for it.
type claim struct {
	meta int64
	at   time.Time
}

// follower fetches metadata from members that say they have newer: from one if that is
// quick, else from several side by side, so that one that sends slowly, maybe because it
// would be found revoked, delays nothing. What one keeps back of newer metadata others are
// asked for. Who has claimed what it does not have is asked again after a minute only,
// whatever it claims: then that costs little. It belongs to the goroutine of follow.
type follower struct {
	n     *Node
	asked map[peer.ID]claim // who was asked lately
	last  time.Time         // when the last one was
	busy  int               // how many have not sent all yet
	done  chan struct{}     // one for each that has
}

// follow keeps up with what members know, and closes the connections with those who are
// no devices of this site any more, until ctx ends.
func (n *Node) follow(ctx context.Context) error {
	f := &follower{n: n, asked: make(map[peer.ID]claim), done: make(chan struct{}, followAtOnce)}
	var wg sync.WaitGroup
	defer wg.Wait()
	again := time.NewTicker(claimPause / 8)
	defer again.Stop()
	for {
		changed := n.sw.Changed()
		n.expel()
		var next <-chan time.Time
		if d := f.ask(ctx, &wg); d > 0 {
			next = time.After(d)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C: // of what came to nothing nobody tells once more
		case <-next:
		case <-f.done:
			f.busy--
		case <-changed:
			if !sleep(ctx, 50*time.Millisecond) { // members change together: take them in one go
				return nil
			}
		}
	}
}

// ask asks a member, if there is one to ask, and returns when to look for another; 0: when something changes.
func (f *follower) ask(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	m, ok := f.choose()
	if !ok || f.busy == followAtOnce {
		return 0
	}
	if d := followPause - time.Since(f.last); f.busy > 0 && d > 0 {
		return d
	}
	f.asked[m.ID], f.last = claim{m.profile.Meta, time.Now()}, time.Now()
	f.busy++
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, followTimeout)
		defer cancel()
		_ = f.n.syncFrom(ctx, m.ID, nil) // noted as a problem there
		f.done <- struct{}{}
	})
	return followPause
}

// choose returns a member that says it has newer metadata, or all of what is here in part, and
// has not said so lately.
func (f *follower) choose() (member, bool) {
	maps.DeleteFunc(f.asked, func(_ peer.ID, c claim) bool { return time.Since(c.at) > claimPause })
	have := f.n.trust.Version()
	if f.n.partly() {
		have-- // older ones are a rollback
	}
	for _, m := range f.n.members() {
		if c, lately := f.asked[m.ID]; m.profile.Meta > have && (!lately || c.meta <= have) {
			return m, true
		}
	}
	return member{}, false
}
