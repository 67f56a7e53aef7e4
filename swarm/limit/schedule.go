package limit

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// ErrSchedule reports a window that is not a cron expression of five fields.
var ErrSchedule = errors.New("limit: not a window of minute, hour, day of month, month, day of week")

// Schedule is a set of windows: it is open in every minute that one of its cron
// expressions names. "* 1-4 * * *" is open from 01:00:00 to 04:59:59 each day,
// "*/10 * * * 6,0" in each tenth minute of a weekend. The zero Schedule is always
// open. It is immutable after ParseSchedule and safe for concurrent use.
type Schedule struct {
	windows []string
}

// ParseSchedule checks windows, each a cron expression of five fields (minute,
// hour, day of month, month, day of week). No windows: always open.
func ParseSchedule(windows []string) (Schedule, error) {
	var s Schedule
	for _, w := range windows {
		w = strings.Join(strings.Fields(w), " ")
		if len(strings.Fields(w)) != 5 || !gronx.IsValid(w) {
			return Schedule{}, fmt.Errorf("%w: %q", ErrSchedule, w)
		}
		s.windows = append(s.windows, w)
	}
	return s, nil
}

// Open reports whether t, in its own location, lies in a window.
func (s Schedule) Open(t time.Time) bool {
	if len(s.windows) == 0 {
		return true
	}
	minute := t.Truncate(time.Minute)
	for _, w := range s.windows {
		if due, err := gronx.New().IsDue(w, minute); err == nil && due {
			return true
		}
	}
	return false
}

// Next returns the first time from t on at which the schedule is open; t itself
// when it is open. ok is false when no window ever opens again, as on a 31 April.
func (s Schedule) Next(t time.Time) (next time.Time, ok bool) {
	if s.Open(t) {
		return t, true
	}
	from := t.Truncate(time.Minute).Add(time.Minute)
	for _, w := range s.windows {
		n, err := gronx.NextTickAfter(w, from, true)
		if err == nil && (!ok || n.Before(next)) {
			next, ok = n, true
		}
	}
	return next, ok
}
