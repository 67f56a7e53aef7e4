package node

import (
	"testing"
	"time"
)

// TestLending: the wait for others lasts as long as they take what they lack, and ends soon where they take nothing, too
// little, or the same again and again.
func TestLending(t *testing.T) {
	const size = 64 << 20
	for name, c := range map[string]struct {
		sole        func(at time.Duration) int64
		least, most time.Duration
	}{
		"nothing is taken":       {func(time.Duration) int64 { return size }, lendMost, lendMost + time.Second},
		"a slow LAN":             {func(at time.Duration) int64 { return size - int64(at/time.Millisecond)*100 }, 650 * time.Second, 680 * time.Second},
		"256 KiB each 3 s":       {func(at time.Duration) int64 { return size - int64(at/(3*time.Second))*256<<10 }, 760 * time.Second, 770 * time.Second},
		"a blob now and then":    {func(at time.Duration) int64 { return size - int64(at/(3*time.Second))*64<<10 }, lendMost, 20 * time.Second},
		"the same over and over": {func(at time.Duration) int64 { return max(1, size*int64(at/time.Second%2)) }, lendMost + lendFor(size) - 2*time.Second, lendMost + lendFor(size) + time.Second},
		"taken but for a rest":   {func(at time.Duration) int64 { return max(1000, size-int64(at/time.Millisecond)*100_000) }, lendMost, lendMost + 2*time.Second},
	} {
		var l lending
		begin := time.Now()
		at := time.Duration(0)
		for ; at < time.Hour && (at == 0 || c.sole(at) > 0) && l.more(begin.Add(at), max(c.sole(at), 0), size); at += lendLook {
		}
		if at < c.least || at > c.most {
			t.Errorf("%s: waits %v, not %v to %v", name, at, c.least, c.most)
		}
	}
}
