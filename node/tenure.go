package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"updraft/delta/release"
	"updraft/swarm"
	"updraft/swarm/origin"
)

// serve brings what is missing while this device holds the lease.
func (u *update) serve(ctx context.Context, t *swarm.Tenure) (deposed bool, err error) {
	defer t.Release()
	held, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	before, _ := u.n.origin.Counters()
	counted := before
	wg.Go(func() { u.oversee(held, cancel, t, &counted) })
	err = u.bring(held, t.Epoch())
	deposed = held.Err() != nil
	if errors.Is(context.Cause(held), errSilent) {
		deposed, err = false, errSilent
	}
	cancel(nil)
	wg.Wait()
	u.count(&counted)
	if counted > before && !errors.Is(err, origin.ErrUnreachable) {
		u.n.setUplink(true)
	}
	return deposed, err
}

// count adds to what this device has brought for the release what has come over the uplink since
// counted.
func (u *update) count(counted *int64) {
	got, _ := u.n.origin.Counters()
	u.n.status.reason(u.m.Version, func(r *reasons) { r.brought += got - *counted })
	*counted = got
}

// oversee ends the work of the tenure t, by cancel, when it may not or should not go on,
// the network has changed, or it is over; meanwhile it counts what comes, and notes when
// that is of no use.
func (u *update) oversee(held context.Context, cancel context.CancelCauseFunc, t *swarm.Tenure, counted *int64) {
	look := time.NewTicker(holderLook)
	defer look.Stop()
	of := time.Now() // use, the plan was last
	at, relink := u.n.netSettled()
	if time.Now().Before(at) { // since the lease was asked for
		cancel(nil)
		return
	}
	for {
		changed := u.n.sw.Changed()
		useless := u.stranded(t.Epoch())
		u.useless.Store(useless)
		if !useless {
			of = time.Now()
		}
		select {
		case <-t.Lost():
			cancel(nil)
			return
		case <-relink:
			if !sleep(held, relinkAnswer) || !u.n.sw.Heard() {
				cancel(nil)
				return
			}
			_, relink = u.n.netSettled()
		case <-held.Done():
			return
		case <-changed:
			continue
		case <-look.C:
		}
		u.count(counted)
		switch {
		case !u.n.windows.Open(time.Now()):
			cancel(nil)
			return
		case t.Wanted() && u.n.origin.Silent() > silentMost:
			cancel(errSilent)
			return
		case u.better.Swap(false), time.Since(of) > baseAbsence:
			cancel(nil)
			return
		}
	}
}

// stranded reports whether the plan of epoch, if that is the plan, has a way that no
// device of the site could go now: what is brought of it is of no use.
func (u *update) stranded(epoch uint64) bool {
	u.mu.Lock()
	plans := u.plans
	planned := u.epoch == epoch
	u.mu.Unlock()
	return planned && slices.ContainsFunc(plans, func(e planEntry) bool {
		return slices.ContainsFunc(u.arts, func(a *assembly) bool {
			w := u.way(a.art, e.Way)
			return a.art.Sum == e.Artifact && !a.complete() && w != nil && !u.passable(w)
		})
	})
}

// passable reports whether some device of the site could go w: this one only if it has not
// failed at it.
func (u *update) passable(w release.Way) bool {
	own := u.n.canApply(w) && !u.wayFailed(w)
	return own || slices.ContainsFunc(u.n.members(), func(m member) bool { return u.n.wants(m, u.target()) && m.profile.able(w) })
}

// watch waits until the update is complete or stalls.
func (u *update) watch(ctx context.Context) bool {
	var moved attention
	lacks := time.Now() // since when nothing lacks
	for !u.complete() {
		if !sleep(ctx, 100*time.Millisecond) {
			return false
		}
		if !u.lacking() {
			lacks = time.Now()
		} else if time.Since(lacks) > lackPatience {
			return true // not in vain: what a device had has gone with it
		}
		patience := stallAlone
		if u.somebodyWorks() {
			patience = stallWorking
		} else if u.somebodyCould() {
			patience = stallAble
		}
		if u.still(&moved) > patience {
			u.stalls++
			return true
		}
	}
	return true
}

// lacking reports whether the site has not all that the plan needs: a device that
// had something has gone.
func (u *update) lacking() bool {
	u.mu.Lock()
	plans := u.plans
	u.mu.Unlock()
	for _, a := range u.arts {
		if a.complete() || u.n.completeAt(a.art) != "" {
			continue
		}
		for _, e := range plans {
			if e.Artifact == a.art.Sum && u.lacks(a, e.Way) {
				return true
			}
		}
	}
	return false
}

// lacks is lacking for one artifact; way is zero where it comes by chunks.
func (u *update) lacks(a *assembly, way [32]byte) bool {
	if way != [32]byte{} {
		return slices.ContainsFunc(u.way(a.art, way), func(s release.Step) bool {
			u.mu.Lock()
			pf := u.patches[s.Sum]
			u.mu.Unlock()
			return pf != nil && len(u.n.sw.Missing(pf.id)) > 0
		})
	}
	if len(u.n.sw.Missing(a.indexID)) > 0 {
		return true
	}
	for _, p := range a.snapshot() {
		if p.missing() > 0 && len(u.n.sw.Missing(p.id)) > 0 {
			return true
		}
	}
	return false
}

// somebodyCould reports whether a device could go a way of the site's plan.
func (u *update) somebodyCould() bool {
	u.mu.Lock()
	plans := u.plans
	u.mu.Unlock()
	for _, e := range plans {
		for _, a := range u.arts {
			if a.art.Sum != e.Artifact || a.complete() {
				continue
			}
			if w := u.way(a.art, e.Way); w != nil && isSlow(a.art, w) && len(u.candidates(a.art, w)) > 0 {
				return true
			}
		}
	}
	return false
}

func (u *update) somebodyWorks() bool {
	if u.rebuilding() {
		return true
	}
	for _, m := range u.n.members() {
		if m.profile.Target == u.digest && m.profile.Working {
			return true
		}
	}
	return false
}
