package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
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

// syncOrigin refreshes the metadata from the origin, as l. Unless that is patient it is errSilent
// as soon as nothing has come for a while and a member may get further.
func (n *Node) syncOrigin(ctx context.Context, l *look) error {
	if n.origin == nil {
		return fmt.Errorf("%w: none is configured", origin.ErrUnreachable)
	}
	ctx, cancel := context.WithTimeout(ctx, n.checker.limit)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer giveUp(nil)
	wg.Go(func() {
		for sleep(ctx, holderLook) {
			if n.origin.Silent() > n.checker.silence && !l.patient.Load() && n.othersReach() {
				giveUp(errSilent)
			}
		}
	})
	n.setState(stateChecking)
	defer n.restState()
	begin := time.Now()
	err := n.syncAtOnce(ctx)
	switch {
	case err == nil:
		n.bringRenewals(ctx, n.fetch)
	case errors.Is(context.Cause(ctx), errSilent):
		err = errSilent
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("%w: the look is not over in its time: %w", origin.ErrUnreachable, err)
	case untrusted(err):
		n.origin.Distrust(begin) // the next look asks another one, if there is one
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
// as the target. Nobody else waits for fetch: see gathered.
func (n *Node) sync(ctx context.Context, fetch release.Fetcher) error {
	defer n.expelEnded(ctx) // newer metadata may tell that it is later than the clock says
	g := gathered{files: make(map[string]answer), version: n.trust.Version()}
	for {
		g.unkept = nil
		err := n.syncGathered(ctx, &g)
		if !errors.Is(err, release.ErrLater) {
			if err == nil || g.unkept != nil {
				n.problem(problemDisk, "metadata", g.unkept)
			}
			return err
		}
		b, err := fetch(ctx, g.next, g.limit)
		g.files[g.next] = answer{b, err}
	}
}

// gathered is the fetcher of a metadata workflow that runs with the store locked. It has
// the files that came before; the first that is not among them ends the workflow, which
// is run again once that has been asked for, without the lock. So whoever sends slowly,
// or not at all, keeps this device from nothing that others know.
type gathered struct {
	files   map[string]answer // by name at the origin
	next    string            // the file that is missing
	limit   int64             // of its size
	version int64             // of the metadata that the workflow knows of
	unkept  error             // why what it has accepted is not on disk
}

// answer is what came of asking for a file.
type answer struct {
	b   []byte
	err error
}

func (g *gathered) fetch(_ context.Context, name string, limit int64) ([]byte, error) {
	a, ok := g.files[name]
	if !ok {
		g.next, g.limit = name, limit
		return nil, release.ErrLater
	}
	return a.b, a.err
}

// inForce returns err unless it is that something is in force, and not on disk, which it notes.
func (g *gathered) inForce(err error) error {
	if errors.Is(err, release.ErrNotKept) {
		g.unkept = err
		return nil
	}
	return err
}

// syncGathered runs the metadata workflow as far as it gets with what g has; then it is
// release.ErrLater. What is older than what others have brought since g began is left
// alone, and no error.
func (n *Node) syncGathered(ctx context.Context, g *gathered) error {
	n.trustMu.Lock()
	defer n.trustMu.Unlock()
	err := g.inForce(n.trust.Refresh(ctx, g.fetch, time.Now()))
	if errors.Is(err, release.ErrRollback) && n.trust.Version() != g.version {
		return nil
	}
	if err != nil {
		return err
	}
	g.version = n.trust.Version()
	return n.takeOver(ctx, g)
}

// takeOver takes over what the metadata in force speak of, the list of revocations and the
// release; what is not here comes from g. trustMu is held.
func (n *Node) takeOver(ctx context.Context, g *gathered) error {
	if err := n.syncRevocations(ctx, g); err != nil {
		return err
	}
	m, raw, err := n.trust.Release(ctx, n.enr.Channel, n.enr.Type, g.fetch)
	err = g.inForce(err)
	switch {
	case errors.Is(err, release.ErrNoRelease):
		n.synced(nil, nil)
		return nil
	case errors.Is(err, release.ErrExpired): // of such metadata nobody has more
		n.synced(nil, nil)
		return err
	case errors.As(err, new(*release.JudgedError)): // nor of these, of which not all is kept here
		n.judge()
		return err
	case err != nil:
		return err
	}
	n.synced(m, raw)
	return nil
}

// takeStock takes over the metadata on disk. Where a part of them is missing, as when whoever
// sent the rest had kept it back, they are not announced, and members are asked for it.
func (n *Node) takeStock(ctx context.Context) {
	n.trustMu.Lock()
	defer n.trustMu.Unlock()
	err := n.takeOver(ctx, new(gathered))
	n.log.Debug("metadata on disk", "version", n.trust.Version(), "err", err)
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
			return nil, forMember(err)
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

// forMember returns what a member is told of a look that failed: of an error of the origin its kind, and not the origin's
// host and path, which this device's own log and status name.
func forMember(err error) error {
	for _, kind := range []error{errSilent, origin.ErrNoRanges, origin.ErrUnreachable, origin.ErrNotFound, origin.ErrChanged, origin.ErrTooLarge} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return err
}

// poll looks for a release now and then.
func (n *Node) poll(ctx context.Context) error {
	if n.cfg.Poll == 0 && !n.cfg.Once {
		return nil
	}
	wait, next := time.Second, settleTime
	for sleep(ctx, next) {
		if d := n.untilLook(); d > 0 {
			next = jitter(min(d, windowLook))
			continue
		}
		err := n.checker.check(ctx, false)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			n.log.Warn("look for a release failed", "err", err, "again_in", wait)
			next = jitter(wait)
			wait = min(2*wait, max(n.cfg.Poll, time.Minute))
			continue
		}
		n.checkedOnce()
		if n.cfg.Poll == 0 {
			return nil
		}
		wait, next = time.Second, jitter(n.cfg.Poll)
	}
	return nil
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
