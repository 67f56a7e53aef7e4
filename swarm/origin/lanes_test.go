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
	"sync"
	"testing"
	"time"
)

// TestDeck deals 64 MiB: everything once and in order, the last of it in small pieces.
func TestDeck(t *testing.T) {
	var rs []Range
	for off := int64(0); off < 64<<20; off += 64 << 10 {
		rs = append(rs, Range{off, 64 << 10})
	}
	most, last, at := 0, 0, 0
	d := &deck{rs: rs, left: 64 << 20, of: func(from, to int) *transfer {
		if from != at {
			t.Fatalf("dealt from %d on after %d", from, at)
		}
		most, last, at = max(most, to-from), to-from, to
		return new(transfer)
	}}
	for d.deal() != nil {
	}
	if at != len(rs) || d.left != 0 || most*64<<10 > laneMost || most*64<<10 < laneMost/2 || last*64<<10 > laneEnd {
		t.Errorf("dealt %d of %d, at most %d and at last %d, %d bytes left", at, len(rs), most, last, d.left)
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

// TestScattered fetches pieces that do not lie side by side from an origin that is far away: many of them are asked
// for at once, and all of them come.
func TestScattered(t *testing.T) {
	data := make([]byte, 10<<20)
	for i := range data {
		data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	var mu sync.Mutex
	now, most := 0, 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(200 * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		http.ServeContent(w, r, "pack", time.Time{}, bytes.NewReader(data))
	}))
	defer srv.Close()
	c, err := NewClient([]string{srv.URL}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.count.answered(150 * time.Millisecond)
	var rs []Range
	for off := int64(0); off < int64(len(data)); off += 160 << 10 {
		rs = append(rs, Range{off, 32 << 10})
	}
	seen := 0
	err = c.Ranges(t.Context(), "pack", int64(len(data)), rs, func(i int, b []byte) error {
		if !bytes.Equal(b, data[rs[i].Off:rs[i].end()]) {
			t.Errorf("range %d is wrong", i)
		}
		seen++
		return nil
	})
	if err != nil || seen != len(rs) || most < 2*aheadMax {
		t.Errorf("%v; %d of %d came, %d asked for at once", err, seen, len(rs), most)
	}
}
