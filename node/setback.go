package node

import (
	"errors"
	"slices"
	"syscall"
	"time"

	"updraft/delta/patch"
	"updraft/delta/release"
)

// A rebuild can fail for want of room, or by the disk, with nothing wrong with patch or
// base. That is a setback: this device tells the others that it does not go the way now,
// and goes it again later, unless the artifact has come by then.

const (
	setbackFirst = 2 * time.Second // until the way is gone again; doubled each time
	setbackMost  = 5 * time.Minute
)

// setback is what has been of an artifact since a way was gone again.
type setback struct {
	ways  []release.Way
	sums  [][32]byte // of the patches that count as failed meanwhile
	pause time.Duration
	again time.Time // zero: the ways may be gone again
}

// isLocal reports whether err says that this device, not a patch, is at fault. Nothing but
// files can fail with a number of the system's: patches wait for what comes from others.
func isLocal(err error) bool {
	var no syscall.Errno
	return errors.Is(err, errScratch) || errors.Is(err, patch.ErrFile) || errors.As(err, &no)
}

// setBack notes that this device could not go w to art, because of the patch with sum or
// later.
func (u *update) setBack(art *release.Artifact, w release.Way, sum [32]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.setbacks[art.Sum]
	if s == nil {
		s = &setback{pause: setbackFirst}
		u.setbacks[art.Sum] = s
	}
	if !slices.ContainsFunc(s.ways, func(o release.Way) bool { return o.Name() == w.Name() }) {
		s.ways = append(s.ways, w)
	}
	s.sums, s.again = append(s.sums, sum), time.Now().Add(jitter(s.pause))
	s.pause = min(2*s.pause, setbackMost)
}

// retryAt returns when to see about the setback of art, if there is one.
func (u *update) retryAt(art *release.Artifact) <-chan time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.setbacks[art.Sum]; s != nil && !s.again.IsZero() {
		return time.After(time.Until(s.again))
	}
	return nil
}

// retry lets the ways of art's setback be gone again if there is room for one of them.
func (u *update) retry(art *release.Artifact) {
	u.measureRoom()
	if u.goAgain(art) {
		u.better.Store(true)
		u.n.announce()
	}
}

// goAgain forgets what failed if there is room, and reports whether it did.
func (u *update) goAgain(art *release.Artifact) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.setbacks[art.Sum]
	if s == nil || s.again.IsZero() { // art has come from others meanwhile
		return false
	}
	if !slices.ContainsFunc(s.ways, func(w release.Way) bool { return fits(w, 0, u.room.Load()) }) {
		s.again = time.Now().Add(jitter(s.pause))
		s.pause = min(2*s.pause, setbackMost)
		return false
	}
	for _, sum := range s.sums {
		delete(u.failed, sum)
	}
	s.sums, s.again = nil, time.Time{}
	return true
}

// overcome notes that art is complete here.
func (u *update) overcome(art *release.Artifact) {
	u.mu.Lock()
	s := u.setbacks[art.Sum]
	delete(u.setbacks, art.Sum)
	u.mu.Unlock()
	if s == nil {
		return
	}
	for _, w := range s.ways {
		u.n.problem(problemDisk, setbackSubject(art, w), nil)
	}
	u.measureRoom()
}

func setbackSubject(art *release.Artifact, w release.Way) string {
	return art.Name + " " + w.BaseVersion()
}

// measureRoom finds out how many bytes are free beside what the release still needs.
func (u *update) measureRoom() {
	if _, left, err := u.n.space(u.m, u.staging); err == nil {
		u.room.Store(left)
	}
}
