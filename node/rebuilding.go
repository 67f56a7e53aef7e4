package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"updraft/delta/release"
	"updraft/swarm"
)

// openPatch opens the exchange of p; receive: this device wants all of it.
func (u *update) openPatch(p *release.Patch, receive bool) (*patchFile, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if pf := u.patches[p.Sum]; pf != nil {
		if receive && !u.wanted[p.Sum] {
			u.wanted[p.Sum] = true
			return pf, u.n.sw.SetOptions(p.Sum, swarm.OpenOptions{Receive: true})
		}
		return pf, nil
	}
	pf, err := openPatch(u.n.paths.patch(p.Sum), p)
	if err != nil {
		return nil, err
	}
	if err := u.n.sw.Open(pf.object(), pf, swarm.OpenOptions{Receive: receive}); err != nil {
		return nil, errors.Join(err, pf.f.Close())
	}
	u.patches[p.Sum], u.wanted[p.Sum] = pf, receive
	return pf, nil
}

func (u *update) patchFailed(p *release.Patch) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failed[p.Sum]
}

// rebuildWhenPossible rebuilds a from a base held here as soon as the site's plan
// says so, or at once when a held release has the very artifact.
func (u *update) rebuildWhenPossible(ctx context.Context, a *assembly) error {
	for !a.complete() {
		if same := u.n.lib.find(a.art.Sum); same != nil {
			err := u.rebuild(ctx, a, nil, same)
			if err == nil {
				return nil
			}
			if e := errors.Join(ctx.Err(), a.err()); e != nil {
				return e
			}
			u.n.lib.spoil(a.art.Sum)
			u.n.problem(problemBase, a.art.Name, err)
		}
		if p, base := u.myPatch(a.art); p != nil {
			if !u.awaitTurn(ctx, a, p) {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				continue
			}
			if err := u.rebuildFrom(ctx, a, p, base); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.planned:
		}
	}
	return nil
}

// rebuildFrom rebuilds a with patch p. A failure of patch or base is remembered,
// and a comes from the others or by another plan.
func (u *update) rebuildFrom(ctx context.Context, a *assembly, p *release.Patch, base *assembly) error {
	pf, err := u.openPatch(p, true)
	if err != nil {
		return err
	}
	err = u.rebuild(ctx, a, pf, base)
	if err == nil {
		a.reused.Add(max(0, a.art.Size-p.Size))
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errOtherPlan) || errors.Is(err, errYield) {
		return nil
	}
	if e := a.err(); e != nil {
		return e // the disk, not the patch
	}
	u.mu.Lock()
	u.failed[p.Sum] = true
	u.mu.Unlock()
	if isBase(err) {
		u.n.lib.spoil(base.art.Sum)
		u.n.problem(problemBase, base.art.Name+" "+p.BaseVersion, err)
	} else {
		u.n.problem(problemPatch, a.art.Name+" "+p.BaseVersion, err)
	}
	_ = u.n.sw.SetOptions(p.Sum, swarm.OpenOptions{}) // the swarm is closing, or still has it
	u.n.announce()
	return nil
}

// myPatch returns the patch that the site's plan has for art, if this device can
// apply it.
func (u *update) myPatch(art *release.Artifact) (*release.Patch, *assembly) {
	u.mu.Lock()
	sum, ok := u.chosen[art.Sum]
	bad := u.failed[sum]
	u.mu.Unlock()
	if !ok || bad || sum == [32]byte{} {
		return nil, nil
	}
	for i := range art.Patches {
		if p := &art.Patches[i]; p.Sum == sum && (u.n.cfg.Memory == 0 || p.Memory <= u.n.cfg.Memory) {
			if base := u.n.lib.find(p.Base); base != nil {
				return p, base
			}
		}
	}
	return nil, nil
}

func (u *update) rebuild(ctx context.Context, a *assembly, pf *patchFile, base *assembly) error {
	u.setWorking(1)
	defer u.setWorking(-1)
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { u.reportRebuild(ctx, a, pf) })
	job := rebuildJob{stop: cancel}
	if pf != nil {
		job.patch = pf.p.Sum
	}
	u.mu.Lock()
	u.active[a.art.Sum] = job
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		delete(u.active, a.art.Sum)
		u.mu.Unlock()
	}()
	src := source{readerAt(func(b []byte, off int64) (int, error) {
		n, err := base.readAt(b, off)
		u.read.Add(int64(n))
		return n, err
	}), base.art.Size}
	if pf == nil {
		return a.rebuild(ctx, nil, src, u.n.paths.scratch(), u.n.cfg.Memory)
	}
	return a.rebuild(ctx, pf.reader(ctx), src, u.n.paths.scratch(), u.n.cfg.Memory)
}

type readerAt func(b []byte, off int64) (int, error)

func (f readerAt) ReadAt(b []byte, off int64) (int, error) { return f(b, off) }

// reportRebuild tells the site now and then how far the rebuild is, and gives a slow
// one up when another device has come to its end before.
func (u *update) reportRebuild(ctx context.Context, a *assembly, pf *patchFile) {
	for sleep(ctx, 2*time.Second) {
		if n := u.worked(); n != u.setRebuilt(n) {
			u.n.announce()
		}
		if pf != nil && isSlow(a.art, pf.p) && u.n.completeAt(a.art) != "" {
			u.yield(a.art)
		}
	}
}

// worked is a number that grows while this device rebuilds something.
func (u *update) worked() int64 {
	n := u.read.Load()
	for _, a := range u.arts {
		n += a.written.Load()
	}
	return n
}

// yield ends the rebuild of art, but not a second time: then the other device does
// not give it away.
func (u *update) yield(art *release.Artifact) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if j, ok := u.active[art.Sum]; ok && !u.yielded[art.Sum] {
		u.yielded[art.Sum] = true
		j.stop(errYield)
	}
}

func (u *update) setRebuilt(n int64) (old int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old, u.rebuilt = u.rebuilt, n
	return old
}

func (u *update) setWorking(d int) {
	u.mu.Lock()
	u.working += d
	w := u.working
	u.mu.Unlock()
	if w > 0 {
		u.n.setState(stateRebuilding)
	}
	u.n.announce()
}

func (u *update) rebuilding() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.working > 0
}
