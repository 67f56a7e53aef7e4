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

// TestDeck deals ranges out in pieces of several sizes: every byte once and in order, the last of it in small pieces; each
// range is handed on when its last piece has come, whatever the order.
func TestDeck(t *testing.T) {
	for _, size := range []int64{5 << 10, 64 << 10, 256 << 10, 1 << 20} {
		for _, most := range []int64{pieceFirst, 100_000, pieceMost} {
			var rs []Range
			for off := int64(0); off < 48<<20; off += size + 1 {
				rs = append(rs, Range{off, size})
			}
			sum, at, last, had := int64(len(rs))*size, int64(0), int64(0), 0
			d := newDeck(&transfer{rs: rs, fn: func(i int, b []byte) error {
				if int64(len(b)) != size || b[0] != byte(i) || b[size-1] != byte(i) {
					t.Fatalf("range %d of %d: %d bytes, %d to %d", i, size, len(b), b[0], b[len(b)-1])
				}
				had++
				return nil
			}})
			d.lanes = laneCount
			var held []*transfer
			for p, n := d.deal(most); p != nil; p, n = d.deal(most) {
				for _, r := range p.rs {
					if k := at / size; r.Off != rs[k].Off+at%size || r.end() > rs[k].end() {
						t.Fatalf("dealt %v at %d of %v", r, at%size, rs[k])
					}
					at += r.Len
				}
				if n > most+most/2+size && n > pieceFirst+pieceFirst/2 {
					t.Errorf("%d: dealt %d, not %d", size, n, most)
				}
				last = n
				if held = append(held, p); len(held) == 3 || at == sum {
					for k := range held { // the last one first
						p := held[len(held)-1-k]
						for j, r := range p.rs {
							if err := p.fn(j, bytes.Repeat([]byte{byte(r.Off / (size + 1))}, int(r.Len))); err != nil {
								t.Fatal(err)
							}
						}
					}
					held = nil
				}
			}
			if at != sum || d.left != 0 || had != len(rs) || len(d.cut) != 0 || last > pieceEnd+size {
				t.Errorf("ranges of %d in pieces of %d: %d of %d bytes dealt, the last %d; %d of %d ranges came", size, most, at, sum, last, had, len(rs))
			}
		}
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
	if err != nil || seen != len(rs) || most < 2*aheadMax || most > laneMost+laneAsks {
		t.Errorf("%v; %d of %d came, %d asked for at once", err, seen, len(rs), most)
	}
}

// TestFarAndSlow fetches blocks of a patch over links that are far and slow, down to 64 kbit/s: one block after the other
// is complete, within the minute after which a candidate doubts the holder, and hardly more than one is lost in a crash.
func TestFarAndSlow(t *testing.T) {
	for _, rate := range []float64{8_000, 16_000, 32_000, 64_000, 128_000} {
		for _, trip := range []time.Duration{250 * time.Millisecond, 600 * time.Millisecond} {
			for _, gap := range []int64{0, 256 << 10} {
				w := (&link{rate: rate, trip: trip}).bring(t, 20, 256<<10, gap, true)
				if most := 15*time.Second + time.Duration(float64(340<<10)/rate*1e9); w.gap > most {
					t.Errorf("nothing was complete for %v", w.gap)
				}
				if w.held > 768<<10 {
					t.Errorf("%d bytes were not complete", w.held)
				}
				if w.all > w.bound*11/10+2*time.Second || w.carried > 1.02 {
					t.Errorf("took %v, %v alone; the link carried %.3f", w.all, w.bound, w.carried)
				}
			}
		}
	}
}

// TestFarAndFast fetches over links that are far and fast: their rate is found within a few round trips, for pieces that
// do not lie side by side as well.
func TestFarAndFast(t *testing.T) {
	for _, x := range []struct {
		rate         float64
		trip         time.Duration
		n, size, gap int64
		most         time.Duration // beside the time of the link alone
	}{
		{2.5e6, 600 * time.Millisecond, 60, 64 << 10, 64 << 10, 3200 * time.Millisecond},
		{2.5e6, 300 * time.Millisecond, 60, 64 << 10, 64 << 10, 1700 * time.Millisecond},
		{2.5e6, 120 * time.Millisecond, 60, 64 << 10, 64 << 10, 800 * time.Millisecond},
		{2.5e6, 600 * time.Millisecond, 400, 8 << 10, 64 << 10, 4200 * time.Millisecond},
		{2.5e6, 600 * time.Millisecond, 256, 64 << 10, 0, 3600 * time.Millisecond},
		{2.5e6, 600 * time.Millisecond, 64, 256 << 10, 0, 3600 * time.Millisecond},
		{12.5e6, 200 * time.Millisecond, 256, 64 << 10, 0, 2000 * time.Millisecond},
	} {
		if w := (&link{rate: x.rate, trip: x.trip}).bring(t, x.n, x.size, x.gap, true); w.all-w.bound > x.most || w.carried > 1.04 {
			t.Errorf("took %v longer than the link alone, of which it carried %.3f", w.all-w.bound, w.carried)
		}
	}
}
