package node

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A device that has just completed a release may be the only one that has some of it, as the one that rebuilt it from a
// base that nobody else has is. An install may end with a reboot, and the site would pay for what went with the device:
// it waits until others have that. Whoever takes it too slowly is not waited for. A device that runs no program when it
// installs, and goes on afterwards, serves all the while.
const (
	lendLook = 200 * time.Millisecond
	lendMost = 10 * time.Second // waited in sum, less what is granted for what others take
	lendRate = 64 << 10         // bytes a second: what that is
	lendNews = 2 * time.Second  // who has yet to learn of the release has this long,
	lendOpen = lendNews / 4     // and this from then on to ask for it
)

// lend waits while members want what only this device has of the release, unless the channel names another by now, or
// nothing says that the device may go.
func (u *update) lend(ctx context.Context) error {
	if h := u.n.cfg.Hooks; !u.n.cfg.Once && h.Stage == "" && h.Commit == "" && h.Health == "" {
		return nil
	}
	var l lending
	defer func() {
		for _, a := range u.arts {
			u.explain(a.art, "")
		}
	}()
	_, size := u.progress()
	begun := time.Now()
	var news time.Time // some member had yet to learn of it
	for {
		sole, now := u.sole(), time.Now()
		if now.Sub(begun) < lendNews && u.n.someBehind() {
			news = now
		}
		if sole == 0 && now.Sub(news) > lendOpen || u.n.aim() != u.digest {
			return nil
		}
		if sole > 0 && !l.more(now, sole, size) {
			u.n.log.Info("install waits no longer for others", "version", u.m.Version, "only_here", sole)
			return nil
		}
		if !sleep(ctx, lendLook) {
			return ctx.Err()
		}
	}
}

// sole returns how many bytes that members want are here only, and notes them for status.
func (u *update) sole() (n int64) {
	for _, a := range u.arts {
		var ids [][32]byte
		for _, p := range a.snapshot() {
			ids = append(ids, p.id)
		}
		k, text := u.n.sw.Sole(a.indexID, ids...), ""
		if k > 0 {
			text = fmt.Sprintf("%s: complete, and installed when others have the %d bytes that they want and only this device has", a.art.Name, k)
		}
		u.explain(a.art, text)
		n += k
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, pf := range u.patches {
		n += u.n.sw.Sole(pf.id)
	}
	return n
}

// someBehind reports whether a member has older metadata.
func (n *Node) someBehind() bool {
	v := n.trust.Version()
	return slices.ContainsFunc(n.members(), func(m member) bool { return m.profile.V > 0 && m.profile.Meta < v })
}

// aim returns the digest of the manifest that the channel names.
func (n *Node) aim() [32]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.target.digest
}

// lending tells for how long to wait for others to take what is here only: as long as they take lendRate together, but
// for lendMost, and no longer than all of it would take at that rate.
type lending struct {
	begun, last time.Time // last: as of the last look
	sole        int64     // then
	waited      time.Duration
}

// more reports whether to wait on at now, when sole of size bytes are here only.
func (l *lending) more(now time.Time, sole, size int64) bool {
	if l.begun.IsZero() {
		l.begun, l.last, l.sole = now, now, sole
	}
	l.waited = max(l.waited+now.Sub(l.last)-lendFor(l.sole-sole), 0)
	l.last, l.sole = now, sole
	return l.waited < lendMost && now.Sub(l.begun) < lendMost+lendFor(size)
}

// lendFor returns the time that is granted for n bytes.
func lendFor(n int64) time.Duration {
	return time.Duration(float64(max(n, 0)) / lendRate * float64(time.Second))
}
