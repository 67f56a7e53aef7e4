package release

import (
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// keepPassed is how often it is written how much time has passed on a device whose clock is
// before the newest signed time: time that it is on for less than that does not count.
const keepPassed = time.Hour

// clockAnchor lets time pass from the newest signed time on, while the clock is
// before it: it was now when the clock said clock.
type clockAnchor struct{ signed, now, clock time.Time }

// Advance tells of a time that was signed for this device's enrollment, as the start of
// validity of its certificate: it was at least that late then. It counts as one that the keys
// of the root which trust began with have signed, and no more when others have replaced those:
// whoever enrolled the device may have had a clock that was far ahead.
func (t *Trust) Advance(signed time.Time) error {
	t.busy.Lock()
	defer t.busy.Unlock()
	first, err := parseRoot(t.held.roots[t.held.first])
	if err != nil || keysOf(first, nil, metadata.TIMESTAMP) != t.floor.By {
		return err
	}
	f := t.floor.clone()
	f.advance(signed)
	if f.Signed == t.floor.Signed {
		return nil
	}
	return t.store(t.held, f)
}

// Now is the time to check validity by: the clock, but not before the newest
// signed time seen. While the clock is before that, time passes from there on, also from one
// start to the next.
func (t *Trust) Now(clock time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.nowLocked(clock)
}

func (t *Trust) nowLocked(clock time.Time) time.Time {
	signed := t.floor.signed()
	if !clock.Before(signed) {
		return clock
	}
	if !t.early.signed.Equal(signed) {
		t.early = clockAnchor{signed, signed.Add(time.Duration(t.floor.Passed) * time.Second), clock}
	}
	return t.early.now.Add(max(0, clock.Sub(t.early.clock)))
}

// pass notes how much time has passed until now, if that is for the next start to know; busy
// and mu are held.
func (t *Trust) pass(clock, now time.Time) {
	signed := t.floor.signed()
	if passed := now.Sub(signed); clock.Before(signed) && passed >= time.Duration(t.floor.Passed)*time.Second+keepPassed {
		t.floor.Passed, t.unsaved = int64(passed/time.Second), true
	}
}

// CertificateTime is the time to judge certificates by, for a device that was enrolled at
// one time, from, and whose certificate is valid until another, to: the clock. One that is before from, or before the root held
// was signed, is wrong; then it is Now instead, but not after to. Timestamps are signed by
// keys that are online, and whoever stole those can sign any time: it must not end the
// certificates of the neighbours by which the root comes that replaces the keys.
func (t *Trust) CertificateTime(clock, from, to time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	from = latest(from, issuedAt(t.held.root.Signed.UnrecognizedFields))
	if !clock.Before(from) {
		return clock
	}
	now := t.nowLocked(clock)
	if now.After(to) {
		now = to
	}
	return latest(from, now)
}

// Signed is the newest signed time seen; zero: none.
func (t *Trust) Signed() time.Time {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.floor.signed()
}

func (t *Trust) setTime(at time.Time) {
	t.mu.Lock()
	t.at = at
	t.mu.Unlock()
}
