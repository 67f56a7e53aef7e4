package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"updraft/delta/release"
	"updraft/delta/tree"
)

// synced takes over what the metadata says now, all of which is here; trustMu is held.
func (n *Node) synced(m *release.Manifest, raw []byte) {
	changed := false
	if m != nil {
		changed = n.setTarget(m, raw)
	}
	n.mu.Lock()
	v := n.trust.Version()
	changed = changed || v != n.whole
	n.whole = v
	n.mu.Unlock()
	if changed {
		n.announce()
	}
}

// judge notes that nothing is missing here of the metadata, though the release that they
// speak of is not for this device: it is too old, or the publisher has erred.
func (n *Node) judge() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.judged = n.trust.Version()
}

// partly reports whether a member may have more of the metadata of the newest version.
func (n *Node) partly() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return max(n.whole, n.judged) != n.trust.Version()
}

// wholeVersion returns the version of the metadata of which everything is here: the list of
// revocations and the manifest, too, which whoever sent the rest may have kept back.
func (n *Node) wholeVersion() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.whole
}

// checkedOnce notes that the metadata is as fresh as the origin's.
func (n *Node) checkedOnce() {
	n.mu.Lock()
	n.fresh = true
	n.wakeLocked()
	n.mu.Unlock()
	n.status.checked()
}

func (n *Node) wakeLocked() {
	close(n.retarget)
	n.retarget = make(chan struct{})
}

func (n *Node) setTarget(m *release.Manifest, raw []byte) (changed bool) {
	d := sha256.Sum256(raw)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.target != nil && n.target.digest == d {
		return false
	}
	n.target = &target{m, raw, d}
	n.status.aim(m.Version)
	n.wakeLocked()
	n.log.Info("release on the channel", "version", m.Version, "sequence", m.Sequence)
	return true
}

// updates brings each target into service, one after the other.
func (n *Node) updates(ctx context.Context) error {
	n.resumeTrial(ctx)
	pause := time.Second
	for {
		n.mu.Lock()
		t, fresh, change := n.target, n.fresh, n.retarget
		n.mu.Unlock()
		var again <-chan time.Time
		switch {
		case t == nil:
			if n.cfg.Once && fresh {
				return fmt.Errorf("%w: channel %s, type %s", release.ErrNoRelease, n.enr.Channel, n.enr.Type)
			}
		case n.inService(t.m):
			if n.cfg.Once && fresh {
				return nil
			}
		case n.refusal(t.digest) != nil:
			if n.cfg.Once && fresh {
				return n.refusal(t.digest)
			}
		default:
			err := n.update(ctx, t, change)
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				pause = time.Second
				continue
			}
			again = time.After(jitter(pause))
			pause = min(2*pause, 5*time.Minute)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-change:
		case <-again:
		}
	}
}

// errReused reports a release under the version of the one in service, with other
// contents: another channel's, or one that was published under a taken version.
var errReused = errors.New("node: another release is in service under the same version")

// inService reports whether m is what is in service: its version, and its contents.
func (n *Node) inService(m *release.Manifest) bool {
	v, ok := n.dir.Current()
	return ok && v == m.Version && !n.lib.differs(m)
}

// update runs one update; it is given up when the channel names another release.
func (n *Node) update(ctx context.Context, t *target, change <-chan struct{}) (err error) {
	n.keepPatches(nil)
	if v, ok := n.dir.Current(); ok && v == t.m.Version { // and it is not this one
		err := n.refuse(v, t.digest, fmt.Errorf("%w: %s", errReused, v))
		n.ended(ctx, t, err)
		return err
	}
	if m, digest := n.lib.manifest(t.m.Version); m != nil && (digest == t.digest || sameArtifacts(m, t.m)) {
		// Complete here already: an earlier release again, maybe as another channel has it, or a crash before
		// the switch.
		var err error
		if digest != t.digest {
			err = n.lib.restate(t.m, t.raw)
		}
		if err == nil {
			err = n.activate(ctx, t.m.Version, t.m, t.digest)
		}
		n.ended(ctx, t, err)
		return err
	}
	life := ctx // an install that has begun is not given up for another release
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	u, err := n.newUpdate(t.m, t.raw, t.digest)
	if err == nil {
		n.mu.Lock()
		n.upd = u
		n.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-change:
				}
				n.mu.Lock()
				now := n.target
				change = n.retarget
				n.mu.Unlock()
				if now.digest != t.digest {
					cancel()
				}
			}
		})
		err = u.run(ctx)
		if (errors.Is(err, errDigest) || errors.Is(err, tree.ErrListing)) && ctx.Err() == nil {
			// All chunks are right, and the whole or its listing is not, twice the same: it was published so.
			err = n.refuse(t.m.Version, t.digest, err)
		}
		cancel()
		wg.Wait()
		if err == nil {
			err = u.install(life)
		}
		n.mu.Lock()
		n.upd = nil
		for _, a := range u.arts {
			n.status.add(a)
		}
		n.mu.Unlock()
		if err != nil && !u.kept {
			err = errors.Join(err, u.abandon())
		} else {
			n.keepPatches(u)
		}
		n.lib.forgetLookup()
	}
	n.ended(life, t, err)
	return err
}

// ended tells how an update ended.
func (n *Node) ended(ctx context.Context, t *target, err error) {
	n.restState()
	if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		if n.refusal(t.digest) == nil {
			n.problem(problemUpdate, t.m.Version, err)
		}
		n.status.setFailed()
	} else if err == nil {
		n.status.clearAll()
	}
	n.announce()
}

// keepPatches goes on serving the patches of an update that is done, so that slower
// devices get them, until the next update; those of the one before are closed.
func (n *Node) keepPatches(u *update) {
	n.mu.Lock()
	old := n.served
	n.served = u
	n.mu.Unlock()
	if old != nil && old != u {
		if err := old.closePatches(); err != nil {
			n.problem(problemDisk, "patches", err)
		}
	}
}
