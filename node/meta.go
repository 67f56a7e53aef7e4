package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
	"updraft/swarm"
	"updraft/swarm/origin"
)

// Limits and times of bringing metadata here.
const (
	metaLimit    = 8 << 20                 // bytes of one metadata file or manifest
	settleTime   = 1500 * time.Millisecond // before the first look: the others may be there already
	checkTimeout = 2 * time.Minute
	windowLook   = 5 * time.Second  // how often an open window is looked at
	reachAgain   = 10 * time.Minute // so long after it has failed an origin counts as not tried
)

// syncOrigin refreshes the metadata from the origin.
func (n *Node) syncOrigin(ctx context.Context) error {
	if n.origin == nil {
		return fmt.Errorf("%w: none is configured", origin.ErrUnreachable)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer giveUp(nil)
	wg.Go(func() {
		for sleep(ctx, holderLook) {
			if n.origin.Silent() > silentMost && n.othersReach() {
				giveUp(errSilent)
			}
		}
	})
	n.setState(stateChecking)
	defer n.restState()
	err := n.syncAtOnce(ctx)
	if errors.Is(context.Cause(ctx), errSilent) && err != nil {
		err = errSilent
	}
	if err == nil {
		n.bringRenewals(ctx, n.fetch)
	}
	n.setUplink(err == nil || !errors.Is(err, origin.ErrUnreachable))
	n.problem(problemOrigin, "the origin", err)
	return err
}

// othersReach reports whether a member may get to the origin.
func (n *Node) othersReach() bool {
	return slices.ContainsFunc(n.members(), func(m member) bool { return m.profile.Uplink != uplinkBad })
}

// timestampSum is the digest of the timestamp that this device holds; nil without one.
func (n *Node) timestampSum() []byte {
	b, err := n.trust.File(release.TimestampName)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// syncFrom refreshes the metadata from a member, which is trusted no more than
// the origin: everything is verified here. A timestamp with the digest held is taken
// from this device's own store if it is there: most looks find nothing new, and then
// nothing is fetched. A member that says so wrongly could as well send an old one.
func (n *Node) syncFrom(ctx context.Context, by peer.ID, held []byte) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := n.sync(ctx, func(ctx context.Context, name string, limit int64) ([]byte, error) {
		if name == release.TimestampName && len(held) > 0 && bytes.Equal(held, n.timestampSum()) {
			return n.trust.File(name)
		}
		b, err := n.sw.Request(ctx, by, name, int(min(limit, metaLimit)))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %w", release.ErrNotFound, err)
		}
		if errors.Is(err, swarm.ErrTooLarge) {
			return nil, fmt.Errorf("%w: %w", release.ErrTooLarge, err)
		}
		return b, err
	})
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		n.problem(problemPeerMeta, n.nameOf(by), err)
	} else if err == nil {
		n.problem(problemPeerMeta, n.nameOf(by), nil)
	}
	return err
}

// sync runs the metadata workflow with fetch and takes the release that results
// as the target.
func (n *Node) sync(ctx context.Context, fetch release.Fetcher) error {
	defer n.expelEnded(ctx) // newer metadata may tell that it is later than the clock says
	n.trustMu.Lock()
	defer n.trustMu.Unlock()
	if err := n.trust.Refresh(ctx, fetch, time.Now()); err != nil {
		return err
	}
	if err := n.syncRevocations(ctx, fetch); err != nil {
		return err
	}
	m, raw, err := n.trust.Release(ctx, n.enr.Channel, n.enr.Type, fetch)
	switch {
	case errors.Is(err, release.ErrNoRelease):
		n.synced(nil, nil)
		return nil
	case err != nil:
		return err
	}
	n.synced(m, raw)
	return nil
}

// files serves metadata to members.
func (n *Node) files(name string) ([]byte, error) {
	n.mu.Lock()
	u, served := n.upd, n.served
	n.mu.Unlock()
	for _, u := range []*update{u, served} {
		if u == nil {
			continue
		}
		if b := u.mapNamed(name); b != nil {
			return b, nil
		}
	}
	b, err := n.trust.File(name)
	if errors.Is(err, release.ErrNotFound) {
		return nil, fs.ErrNotExist
	}
	return b, err
}

// call answers the small requests of members.
func (n *Node) call(ctx context.Context, from peer.ID, method string, arg []byte) ([]byte, error) {
	switch method {
	case callCheck:
		if err := n.answerCheck(ctx, from, arg); err != nil {
			return nil, err
		}
		return n.timestampSum(), nil
	case callCertificate:
		return n.answerCertificate(arg), nil
	case callStatus:
		return n.answerStatus(from)
	default:
		return nil, fmt.Errorf("node: unknown call %q", method)
	}
}

// poll looks for a release now and then, and follows members that know more.
func (n *Node) poll(ctx context.Context) error {
	var next <-chan time.Time
	if n.cfg.Poll > 0 || n.cfg.Once {
		next = time.After(settleTime)
	}
	wait := time.Second
	asked := make(map[peer.ID]claim)
	again := time.NewTicker(claimPause / 4)
	defer again.Stop()
	for {
		changed := n.sw.Changed()
		n.expel()
		n.expelEnded(ctx)
		n.followMembers(ctx, asked)
		select {
		case <-ctx.Done():
			return nil
		case <-again.C: // of what came to nothing nobody tells once more
		case <-changed:
			select { // members change together: take them in one go
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return nil
			}
		case <-next:
			if d := n.untilLook(); d > 0 {
				next = time.After(jitter(min(d, windowLook)))
				continue
			}
			err := n.checker.check(ctx, false)
			if err != nil && ctx.Err() == nil {
				n.log.Warn("look for a release failed", "err", err, "again_in", wait)
				next = time.After(jitter(wait))
				wait = min(2*wait, max(n.cfg.Poll, time.Minute))
				continue
			}
			n.checkedOnce()
			wait = time.Second
			next = nil
			if n.cfg.Poll > 0 {
				next = time.After(jitter(n.cfg.Poll))
			}
		}
	}
}

// errWindow reports a look that would use the uplink when it may not be used.
var errWindow = errors.New("node: the uplink may not be used at this hour")

// untilLook returns how long it is, at least, until a look for a release may use the
// uplink unasked.
func (n *Node) untilLook() time.Duration {
	now := time.Now()
	if n.cfg.LooksAnyTime || n.windows.Open(now) {
		return 0
	}
	if next, ok := n.windows.Next(now); ok {
		return max(time.Until(next), time.Second)
	}
	return time.Hour
}

// claim is what a member said it had when it was asked for it.
type claim struct {
	meta int64
	at   time.Time
}

// claimPause is how long a claim that came to nothing is left alone.
const claimPause = time.Minute

// followTimeout bounds what a member that answers slowly takes of that.
const followTimeout = 30 * time.Second

// followMembers fetches metadata from members that say they have newer. Who has claimed
// what it does not have is asked again after a minute only, whatever it claims: then that
// costs little. asked is who was asked lately.
func (n *Node) followMembers(ctx context.Context, asked map[peer.ID]claim) {
	maps.DeleteFunc(asked, func(_ peer.ID, c claim) bool { return time.Since(c.at) > claimPause })
	for _, m := range n.members() {
		have := n.trust.Version()
		if c, lately := asked[m.ID]; m.profile.Meta <= have || lately && c.meta > have {
			continue
		}
		asked[m.ID] = claim{m.profile.Meta, time.Now()}
		brief, done := context.WithTimeout(ctx, followTimeout)
		_ = n.syncFrom(brief, m.ID, nil) // noted as a problem there
		done()
	}
}
