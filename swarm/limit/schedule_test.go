package limit_test

import (
	"errors"
	"testing"
	"time"

	"updraft/swarm/limit"
)

func at(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		windows []string
		at      string
		open    bool
		next    string // "" when never
	}{
		{nil, "2026-03-02 12:00:00", true, "2026-03-02 12:00:00"},
		{[]string{"* 1-4 * * *"}, "2026-03-02 04:59:59", true, "2026-03-02 04:59:59"},
		{[]string{"* 1-4 * * *"}, "2026-03-02 05:00:00", false, "2026-03-03 01:00:00"},
		{[]string{"* 1-4 * * *", "30-59  12 * * *"}, "2026-03-02 12:29:59", false, "2026-03-02 12:30:00"},
		{[]string{"*/10 * * * 6,0"}, "2026-03-06 23:59:59", false, "2026-03-07 00:00:00"},
		{[]string{"*/10 * * * 6,0"}, "2026-03-07 00:10:30", true, "2026-03-07 00:10:30"},
		{[]string{"* * 31 4 *"}, "2026-03-07 00:10:30", false, ""},
	} {
		s, err := limit.ParseSchedule(c.windows)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Open(at(c.at)); got != c.open {
			t.Errorf("%q at %s: open %v", c.windows, c.at, got)
		}
		next, ok := s.Next(at(c.at))
		if ok != (c.next != "") || ok && !next.Equal(at(c.next)) {
			t.Errorf("%q after %s: next %v %v, want %s", c.windows, c.at, next, ok, c.next)
		}
	}
}

func TestScheduleRefuses(t *testing.T) {
	for _, w := range []string{"", "* * * *", "61 * * * *", "* * * * * *", "x * * * *", "@daily", "* 25 * * *"} {
		if _, err := limit.ParseSchedule([]string{w}); !errors.Is(err, limit.ErrSchedule) {
			t.Errorf("%q: %v", w, err)
		}
	}
}
