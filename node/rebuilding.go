package node

import (
	"context"
	"errors"
	"io"
	"slices"
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
			return pf, u.n.sw.SetOptions(pf.id, swarm.OpenOptions{Receive: true})
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

// openWay opens the exchange of all patches of w.
func (u *update) openWay(w release.Way, receive bool) ([]*patchFile, error) {
	files := make([]*patchFile, len(w))
	for i := range w {
		pf, err := u.openPatch(&w[i].Patch, receive)
		if err != nil {
			return nil, err
		}
		files[i] = pf
	}
	return files, nil
}

// way returns the way to art with the name, or nil.
func (u *update) way(art *release.Artifact, name [32]byte) release.Way {
	for _, w := range u.ways[art.Sum] {
		if w.Name() == name {
			return w
		}
	}
	return nil
}

// wayFailed reports whether a patch of w has failed here.
func (u *update) wayFailed(w release.Way) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.ContainsFunc(w, func(s release.Step) bool { return u.failed[s.Sum] })
}

// rebuildWhenPossible rebuilds a from a base held here as soon as the site's plan
// says so, or at once when a held release has the very artifact.
func (u *update) rebuildWhenPossible(ctx context.Context, a *assembly) error {
	for !a.complete() {
		if same := u.n.lib.find(a.art.Sum); same != nil {
			err := u.rebuild(ctx, a, nil, same)
			if err == nil || errors.Is(err, errComplete) {
				return nil
			}
			if e := errors.Join(ctx.Err(), a.err()); e != nil {
				return e
			}
			u.n.lib.spoil(a.art.Sum)
			u.n.problem(problemBase, a.art.Name, err)
		}
		if w, base := u.myWay(a.art); w != nil {
			if !u.awaitTurn(ctx, a, w) {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				continue
			}
			if err := u.rebuildFrom(ctx, a, w, base); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.planned:
		case <-u.retryAt(a.art):
			u.retry(a.art)
		}
	}
	return nil
}

// rebuildFrom rebuilds a by way of w. A failure of a patch or the base is remembered,
// and a comes from the others or by another plan.
func (u *update) rebuildFrom(ctx context.Context, a *assembly, w release.Way, base *assembly) error {
	if _, err := u.openWay(w, true); err != nil {
		return err
	}
	err := u.rebuild(ctx, a, w, base)
	if err == nil {
		a.reused.Add(max(0, a.art.Size-w.Size()))
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errOtherPlan) || errors.Is(err, errYield) || errors.Is(err, errComplete) {
		return nil
	}
	if e := a.err(); e != nil {
		return e // the disk, not the patch
	}
	u.giveUp(a.art, w, base.art, err)
	return nil
}

// giveUp remembers that err came of going w to art from base: for good, unless this
// device is at fault.
func (u *update) giveUp(art *release.Artifact, w release.Way, base *release.Artifact, err error) {
	bad := w[len(w)-1].Sum
	var at *stepError
	if errors.As(err, &at) {
		bad = at.sum
	}
	var files []*patchFile
	u.mu.Lock()
	u.failed[bad] = true
	for i := range w {
		delete(u.wanted, w[i].Sum) // another way may have use for it
		if pf := u.patches[w[i].Sum]; pf != nil {
			files = append(files, pf)
		}
	}
	u.mu.Unlock()
	switch {
	case isBase(err) && (at == nil && len(w) == 1 || at != nil && at.first):
		u.n.lib.spoil(base.Sum)
		u.n.problem(problemBase, base.Name+" "+w.BaseVersion(), err)
	case isLocal(err):
		u.setBack(art, w, bad)
		u.measureRoom()
		u.n.problem(problemDisk, setbackSubject(art, w), err)
	default:
		u.n.problem(problemPatch, art.Name+" "+w.BaseVersion(), err)
	}
	for _, pf := range files {
		_ = u.n.sw.SetOptions(pf.id, swarm.OpenOptions{}) // the swarm is closing, or still has it
	}
	u.n.announce()
}

// myWay returns the way that the site's plan has for art, and what it starts from, if
// this device can go it.
func (u *update) myWay(art *release.Artifact) (release.Way, *assembly) {
	u.mu.Lock()
	name, ok := u.chosen[art.Sum]
	u.mu.Unlock()
	w := u.way(art, name)
	if !ok || w == nil || u.wayFailed(w) || !u.n.canApply(w) {
		return nil, nil
	}
	if base := u.n.lib.find(w.Base()); base != nil {
		return w, base
	}
	return nil, nil
}

// rebuild makes a by way of w from base; without w it copies base, which is the
// artifact itself.
func (u *update) rebuild(ctx context.Context, a *assembly, w release.Way, base *assembly) error {
	u.setWorking(1)
	defer u.setWorking(-1)
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { u.reportRebuild(ctx, a, w) })
	job := rebuildJob{stop: cancel}
	if w != nil {
		job.way = w.Name()
	}
	u.mu.Lock()
	u.active[a.art.Sum] = job
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		delete(u.active, a.art.Sum)
		u.mu.Unlock()
	}()
	src := u.counted(readerAt(base.readAt), base.art.Size)
	if w == nil {
		return a.rebuild(ctx, nil, src, u.n.paths.scratch(), u.n.cfg.Memory)
	}
	files, err := u.openWay(w, true)
	if err != nil {
		return err
	}
	src, done, err := u.between(ctx, a, w, files, src)
	if err != nil {
		return err
	}
	defer done()
	return a.rebuild(ctx, files[len(w)-1].reader(ctx), src, u.n.paths.scratch(), u.n.cfg.Memory)
}

// counted is r with what is read of it noted, for others to see that a rebuild works.
func (u *update) counted(r io.ReaderAt, size int64) source {
	return source{readerAt(func(b []byte, off int64) (int, error) {
		n, err := r.ReadAt(b, off)
		u.read.Add(int64(n))
		return n, err
	}), size}
}

type readerAt func(b []byte, off int64) (int, error)

func (f readerAt) ReadAt(b []byte, off int64) (int, error) { return f(b, off) }

// reportRebuild tells the site now and then how far the rebuild is, and gives a slow
// one up when another device has come to its end before. One that nothing is left to do
// for, since a came from others while a chain was on its way, ends: other artifacts wait
// for the room that it has.
func (u *update) reportRebuild(ctx context.Context, a *assembly, w release.Way) {
	for sleep(ctx, 2*time.Second) {
		if a.complete() {
			u.stop(a.art, errComplete)
			return
		}
		if n := u.worked(); n != u.setRebuilt(n) {
			u.n.announce()
		}
		if w != nil && isSlow(a.art, w) && u.n.completeAt(a.art) != "" {
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

// stop ends the rebuild of art, if there is one.
func (u *update) stop(art *release.Artifact, why error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if j, ok := u.active[art.Sum]; ok {
		j.stop(why)
	}
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
