package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"updraft/delta"
	"updraft/delta/chunk"
	"updraft/delta/release"
	"updraft/swarm"
	"updraft/swarm/origin"
)

// Patience of the uplink work.
const (
	stallAlone   = 3 * time.Second       // nobody rebuilds and nothing comes: bring it by chunks
	stallAble    = 3 * turnPatience      // somebody could rebuild, and nothing comes
	stallWorking = time.Minute           // somebody says it rebuilds, and nothing comes
	lackPatience = time.Second           // something is missing on the site: others may be about to tell that they have it
	holderLook   = time.Second           // how often a holder asks whether it still may, and should, use the uplink
	silentMost   = 5 * time.Second       // so long nothing came from the origin: another device may do better
	replanBytes  = 512 << 10             // so much of what is to come was brought by others: fetch only what is still missing
	baseAbsence  = 3 * time.Second       // so long nobody could go a way of the plan: a device with its base is back sooner if it was cut off
	usePause     = 50 * time.Millisecond // between looks whether one is back
)

// obtain works the uplink until everything of the update is here, whenever this
// device is the one to do it.
func (u *update) obtain(ctx context.Context) error {
	pause := time.Second
	for !u.complete() {
		if err := u.n.uplinkOpen(ctx); err != nil {
			return err
		}
		if err := u.settle(ctx); err != nil {
			return err
		}
		t, err := u.n.sw.Acquire(ctx, swarm.AcquireOptions{})
		if errors.Is(err, swarm.ErrLeaseInUse) { // by a look for a release, which is short
			if !sleep(ctx, 20*time.Millisecond) {
				return ctx.Err()
			}
			continue
		}
		if err != nil {
			return err
		}
		if !u.n.windows.Open(time.Now()) { // it closed while others had the lease
			t.Release()
			continue
		}
		begin := time.Now()
		deposed, err := u.serve(ctx, t)
		if errors.Is(err, errOrigin) {
			u.n.origin.Distrust(begin)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !deposed:
			if errors.Is(err, origin.ErrUnreachable) {
				u.n.setUplink(false)
			}
			u.n.problem(problemFetch, u.m.Version, err)
			u.n.log.Warn("bringing the release failed", "err", err, "again_in", pause)
			if !sleep(ctx, jitter(pause)) {
				return ctx.Err()
			}
			pause = min(2*pause, time.Minute)
		case err == nil:
			pause = time.Second
			u.n.problem(problemFetch, u.m.Version, nil)
			if !u.watch(ctx) {
				return ctx.Err()
			}
		}
	}
	return nil
}

// settle waits while the uplink is to be left alone because the network has changed.
func (u *update) settle(ctx context.Context) error {
	at, _ := u.n.netSettled()
	left := time.Until(at)
	if left <= 0 {
		return nil
	}
	u.stalls = 0 // whom this device waited for in vain it may have been cut off from
	if !sleep(ctx, left) {
		return ctx.Err()
	}
	return nil
}

// errSilent ends work on the uplink in favour of devices that may get further.
var errSilent = fmt.Errorf("%w: nothing came for %v", origin.ErrUnreachable, silentMost)

// bring fetches over the uplink what the site lacks, by the cheapest plan.
func (u *update) bring(ctx context.Context, epoch uint64) error {
	for {
		if err := u.settle(ctx); err != nil { // this device may have been cut off since it has the lease
			return err
		}
		plan, err := u.plan(ctx)
		if err != nil {
			return err
		}
		u.adopt(plan, epoch)
		again := false
		for i, a := range u.arts {
			var more bool
			switch c := plan[i]; {
			case c.none:
			case c.way != nil:
				more, err = u.bringWay(ctx, c.way)
			default:
				more, err = u.bringChunks(ctx, a)
			}
			if err != nil {
				return err
			}
			again = again || more
		}
		if !again {
			return nil
		}
	}
}

// plan chooses for each artifact.
func (u *update) plan(ctx context.Context) ([]choice, error) {
	u.better.Store(false)
	have, _ := u.progress()
	if have > u.had {
		u.had, u.stalls = have, 0
	}
	out := make([]choice, len(u.arts))
	var why []string
	for i, a := range u.arts {
		view, err := u.view(a, u.stalls)
		if err != nil {
			return nil, err
		}
		best, others := choosePlan(a.art, view)
		if a.complete() {
			best = choice{none: true, why: a.art.Name + ": complete here"}
		}
		out[i] = best
		why = append(why, explainPlan(best, others)...)
	}
	for _, w := range why {
		u.n.log.Info("plan", "why", w)
	}
	u.n.status.reason(u.m.Version, func(r *reasons) { r.own, r.followed = why, nil })
	return out, ctx.Err()
}

// view tells what a plan for a has to know. After waits in vain less is believed:
// first nothing of who is not seen to work, then nothing at all.
func (u *update) view(a *assembly, stalls int) (siteView, error) {
	left, indexed := u.chunkBytes(a)
	trusted := stalls == 0 || stalls == 1 && u.somebodyWorks()
	v := siteView{chunkBytes: left, indexed: indexed, ways: u.ways[a.art.Sum], unaware: u.n.unaware(u.target()), based: u.n.based, held: u.held, wayBytes: u.wayBytes,
		usable:     func(w release.Way) bool { return trusted && !u.wayFailed(w) },
		rebuilding: func(w release.Way) string { return u.applying(a.art, w) }}
	if stalls == 0 {
		v.complete = u.n.completeAt(a.art)
	}
	for _, w := range v.ways {
		// What the members have of a patch is known once it is open.
		if v.usable(w) && u.held(w) {
			if _, err := u.openWay(w, false); err != nil {
				return siteView{}, err
			}
		}
	}
	return v, nil
}

// held reports whether some device of the site could go w.
func (u *update) held(w release.Way) bool {
	return len(u.n.holders(u.target(), w)) > 0
}

// target is the release that u brings.
func (u *update) target() *target { return &target{u.m, u.raw, u.digest} }

// wayBytes returns how many bytes of w's patches are still missing on the site.
func (u *update) wayBytes(w release.Way) (n int64) {
	for k := range w {
		u.mu.Lock()
		pf := u.patches[w[k].Sum]
		u.mu.Unlock()
		if pf == nil {
			n += w[k].Size
			continue
		}
		for _, i := range u.n.sw.Missing(pf.id) {
			n += int64(pf.size(i))
		}
	}
	return n
}

// chunkBytes returns about what bringing a by chunks costs now, and whether its index is known: only then what is not
// missing does not count.
func (u *update) chunkBytes(a *assembly) (n int64, indexed bool) {
	if a.complete() {
		return 0, true
	}
	pages := a.snapshot()
	if len(pages) == 0 {
		return packedSize(u.m, a.art.Size), false
	}
	var missing, seen int64
	for _, p := range pages {
		for _, c := range p.chunks {
			seen += int64(c.Len)
		}
		for _, i := range u.n.sw.Missing(p.id) {
			missing += int64(p.chunks[i].Len)
		}
	}
	missing += a.art.Size - seen
	return packedSize(u.m, missing), true
}

// packedSize returns about how many bytes of m's packs n bytes of its artifacts take: in
// proportion, but no more than they are themselves, for packs of earlier releases hold
// more than m needs.
func packedSize(m *release.Manifest, n int64) int64 {
	var packs int64
	plain := int64(1)
	for _, p := range m.Packs {
		packs += p.Size
	}
	for i := range m.Artifacts {
		if original(m, i) == i {
			plain += m.Artifacts[i].Size
		}
	}
	return min(n, int64(float64(n)/float64(plain)*float64(packs)))
}

// fetching shows that something comes, unless more than that goes on.
func (u *update) fetching() {
	if !u.rebuilding() {
		u.n.setState(stateFetching)
	}
}

// bringWay fetches the patches of w, in the order in which they are applied.
func (u *update) bringWay(ctx context.Context, w release.Way) (again bool, err error) {
	for i := range w {
		again, err = u.bringPatch(ctx, &w[i].Patch)
		if again || err != nil {
			return again, err
		}
	}
	return false, nil
}

// bringPatch fetches the blocks of p that no member has, until others have much of it, or nobody
// can apply it, meanwhile; again: that was so.
func (u *update) bringPatch(ctx context.Context, p *release.Patch) (again bool, err error) {
	pf, err := u.openPatch(p, false)
	if err != nil {
		return false, err
	}
	list := u.n.sw.Missing(pf.id)
	if len(list) == 0 {
		return false, nil
	}
	rs := make([]origin.Range, len(list))
	for k, i := range list {
		rs[k] = origin.Range{Off: int64(i) * int64(p.BlockSize), Len: int64(pf.size(i))}
	}
	u.fetching()
	came := make([]bool, len(list))
	var unasked int // bytes since it was last asked what others have
	err = u.n.origin.Ranges(ctx, delta.ObjectName(delta.PatchDir, p.Sum), p.Size, rs, func(k int, b []byte) error {
		i := list[k]
		if sha256.Sum256(b) != pf.sum(i) {
			u.countBad(p)
			return fmt.Errorf("%w: patch from %s, block %d", errOrigin, p.BaseVersion, i)
		}
		if err := pf.Put(i, b); err != nil {
			return err
		}
		u.n.sw.Inject(pf.id, i, b)
		came[k] = true
		if unasked += len(b); unasked > replanBytes {
			unasked = 0
			if u.surplus(pf, list, came) > replanBytes {
				return errReplan
			}
		}
		if u.useless.Load() {
			return errUseless
		}
		u.n.sw.Pace(ctx)
		return nil
	})
	switch {
	case errors.Is(err, errUseless):
		for u.useless.Load() && sleep(ctx, usePause) {
		}
		return true, ctx.Err()
	case errors.Is(err, errReplan):
		return true, nil
	}
	return false, err
}

// errUseless ends a transfer for which nobody has a use now: bytes that come into the buffers of a
// connection while nobody reads from it have crossed the uplink, too.
var errUseless = errors.New("node: no device could apply it now")

// surplus returns how many bytes of the blocks in list, which is ascending, somebody has by now
// although they did not come over the uplink. This device need not have them: without the base
// it does not receive the patch.
func (u *update) surplus(pf *patchFile, list []int, came []bool) (n int64) {
	missing := u.n.sw.Missing(pf.id)
	for k, i := range list {
		if _, miss := slices.BinarySearch(missing, i); !came[k] && !miss {
			n += int64(pf.size(i))
		}
	}
	return n
}

// countBad gives a patch up that the origin has changed: after some tries the
// release comes by chunks.
func (u *update) countBad(p *release.Patch) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.bad[p.Sum]++
	if u.bad[p.Sum] >= badTries {
		u.failed[p.Sum] = true
	}
}

// badTries is how often wrong bytes of a patch are fetched again.
const badTries = 3

// errOrigin reports bytes from the origin that are not what was published.
var errOrigin = errors.New("node: the origin's bytes do not have their digest")

// bringChunks fetches the parts of a's index and the chunks that no member has.
func (u *update) bringChunks(ctx context.Context, a *assembly) (again bool, err error) {
	if a.complete() {
		return false, nil
	}
	u.fetching()
	var early sync.WaitGroup
	if len(u.n.sw.Missing(a.indexID)) > 0 {
		// Where the chunks lie is asked for while the index comes: over a satellite a
		// round trip is most of a second. What goes wrong is seen when it is needed.
		early.Go(func() { _, _ = u.packMap(ctx, a.art) })
		most, _ := u.chunkBytes(a)
		early.Go(func() { u.n.origin.Warm(ctx, most) })
	}
	again, err = u.bringIndex(ctx, a)
	early.Wait()
	if again || err != nil {
		return again, err
	}
	if err := a.advance(); err != nil {
		return false, err
	}
	var want []stored
	pages := a.snapshot()
	for k, p := range pages {
		for _, i := range u.n.sw.Missing(p.id) {
			want = append(want, stored{page: p, i: i, ordinal: k*chunk.PageLen + i})
		}
	}
	if len(want) == 0 {
		return false, nil
	}
	if err := u.locate(ctx, a, want); err != nil {
		return false, err
	}
	return u.bringStored(ctx, want)
}

// bringIndex fetches the index pages that no member has, and waits for the others; again: no member has them any more.
func (u *update) bringIndex(ctx context.Context, a *assembly) (again bool, err error) {
	list := u.n.sw.Missing(a.indexID)
	var rs []origin.Range
	for _, i := range list {
		rs = append(rs, origin.Range{Off: int64(i) * pageBytes, Len: int64(pageSize(a.art, i))})
	}
	if len(rs) == 0 {
		return u.awaitIndex(ctx, a)
	}
	size := int64(len(a.art.Pages)-1)*pageBytes + int64(pageSize(a.art, len(a.art.Pages)-1))
	err = u.n.origin.Ranges(ctx, delta.ObjectName(delta.IndexDir, a.art.Index), size, rs, func(k int, b []byte) error {
		i := list[k]
		if sha256.Sum256(b) != a.art.Pages[i] {
			return fmt.Errorf("%w: chunk index of %s, page %d", errOrigin, a.art.Name, i)
		}
		if err := u.n.reg.putIndex(a, i, b); err != nil {
			return err
		}
		u.n.sw.Inject(a.indexID, i, b)
		return nil
	})
	if err != nil {
		return false, err
	}
	return u.awaitIndex(ctx, a)
}

// awaitIndex waits for the pages that members have; again: some of them went with who had them.
func (u *update) awaitIndex(ctx context.Context, a *assembly) (again bool, err error) {
	if len(a.art.Pages) == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for lacks := time.Now(); ; { // since when nothing lacks
		short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
		err := u.n.sw.Wait(short, a.indexID)
		stop()
		switch {
		case err == nil:
			return false, nil
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return false, fmt.Errorf("node: chunk index of %s: %w", a.art.Name, err)
		case len(u.n.sw.Missing(a.indexID)) == 0:
			lacks = time.Now()
		case time.Since(lacks) > lackPatience:
			return true, nil
		}
	}
}
