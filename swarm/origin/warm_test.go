package origin

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestWarm: connections made ahead are used by the requests that follow, and nothing is
// made ahead for an origin that is near, nor for little.
func TestWarm(t *testing.T) {
	data := bytes.Repeat([]byte("updraft "), 1<<20)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pack"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	var made atomic.Int64
	srv := httptest.NewUnstartedServer(http.FileServer(http.Dir(dir)))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			made.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	c, err := NewClient([]string{srv.URL}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !c.Far() {
		t.Error("an origin that was not asked is known to be near")
	}
	if _, err := c.Get(t.Context(), "pack", 16<<20); err != nil {
		t.Fatal(err)
	}
	c.count.answer.Store(int64(time.Millisecond))
	c.Warm(t.Context(), int64(len(data)))
	if n := made.Load(); n != 1 || c.Far() {
		t.Errorf("%d connections to a near origin", n)
	}
	c.count.answer.Store(int64(time.Second))
	c.Warm(t.Context(), laneLeast-1)
	if n := len(c.warm.conns); n != 0 {
		t.Errorf("%d connections made ahead for little", n)
	}
	for range 2 {
		c.Warm(t.Context(), int64(len(data)))
		if n := len(c.warm.conns); n != laneCount-warmIdle || !c.Far() {
			t.Errorf("%d connections made ahead", n)
		}
	}
	dial := c.warm.dial
	var dials, more atomic.Int64 // by the transfer; connections of them
	c.warm.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		conn, err := dial(ctx, network, addr)
		if err == nil {
			more.Add(1)
		}
		return conn, err
	}
	var rs []Range
	for off := int64(0); off < int64(len(data)); off += 64 << 10 {
		rs = append(rs, Range{off, 64 << 10})
	}
	if err := c.Ranges(t.Context(), "pack", int64(len(data)), rs, func(int, []byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if n := dials.Load(); n < laneMost-laneCount {
		t.Errorf("%d more made for a transfer that may use %d", n, laneMost)
	}
	if n := len(c.warm.conns); n == laneCount-warmIdle+int(more.Load()) {
		t.Error("none of the connections was used")
	}
	c.warm.close()
	// One that is too old, or goes elsewhere, is closed and not used.
	c.warm.fill(t.Context(), 2)
	c.warm.conns[0].since = time.Now().Add(-warmLife)
	c.warm.conns[1].addr = "elsewhere"
	old := c.warm.conns
	conn, err := c.warm.get(t.Context(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for _, w := range old[:2] {
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("it is still open")
		}
	}
	c.warm.fill(t.Context(), 1)
	c.Close()
	if len(c.warm.conns) != 0 {
		t.Error("closed, and connections are left")
	}
	if c.warm.end.Stop() {
		t.Error("closed, and a timer is left")
	}
}

// TestWarmMore: what is made ahead for a transfer is a small part of it.
func TestWarmMore(t *testing.T) {
	for size, want := range map[int64]int{0: 0, 300 << 10: 0, laneCount * warmWorth: 0, 20 * warmWorth: 20 - laneCount, 1 << 40: laneMost - laneCount} {
		if n := warmMore(size); n != want {
			t.Errorf("%d bytes: %d more, want %d", size, n, want)
		}
	}
}
