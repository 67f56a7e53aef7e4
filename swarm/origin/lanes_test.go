package origin

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestLanes(t *testing.T) {
	var rs []Range
	for off := int64(0); off < 20<<20; off += 64 << 10 {
		rs = append(rs, Range{off, 64 << 10})
	}
	if n := len(lanes(rs, 50*time.Millisecond)); n != 1 {
		t.Errorf("%d lanes to a near origin", n)
	}
	if n := len(lanes(rs[:20], time.Second)); n != 1 {
		t.Errorf("%d lanes for little", n)
	}
	parts := lanes(rs, time.Second)
	var all []int
	for _, p := range parts {
		if !slices.IsSorted(p) || len(p) < len(rs)/8 {
			t.Errorf("a lane of %d", len(p))
		}
		all = append(all, p...)
	}
	slices.Sort(all)
	if len(parts) != laneCount || len(all) != len(rs) || all[0] != 0 || all[len(all)-1] != len(rs)-1 || len(slices.Compact(all)) != len(rs) {
		t.Errorf("%d lanes of %d ranges", len(parts), len(all))
	}
}

// TestFarOrigin fetches over several connections: everything comes once, fn is never called twice at a time, and its
// error ends the call.
func TestFarOrigin(t *testing.T) {
	data := make([]byte, 12<<20)
	for i := range data {
		data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pack"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	c, err := NewClient([]string{srv.URL}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.count.answered(time.Second)
	var rs []Range
	for off := int64(0); off < int64(len(data)); off += 100_000 {
		rs = append(rs, Range{off, min(100_000, int64(len(data))-off)})
	}
	seen := make([]int, len(rs))
	err = c.Ranges(context.Background(), "pack", int64(len(data)), rs, func(i int, b []byte) error {
		seen[i]++ // the race detector watches
		if !bytes.Equal(b, data[rs[i].Off:rs[i].end()]) {
			t.Errorf("range %d is wrong", i)
		}
		return nil
	})
	if err != nil || slices.Min(seen) != 1 || slices.Max(seen) != 1 {
		t.Errorf("%v: each came %d to %d times", err, slices.Min(seen), slices.Max(seen))
	}
	if n := c.count.answer.Load(); n >= int64(time.Second) {
		t.Error("answers are not timed")
	}
	c.count.answer.Store(int64(time.Second))
	enough, calls := errors.New("enough"), 0
	err = c.Ranges(context.Background(), "pack", int64(len(data)), rs, func(int, []byte) error {
		calls++
		if calls >= 5 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || calls != 5 {
		t.Errorf("%v after %d calls", err, calls)
	}
}
