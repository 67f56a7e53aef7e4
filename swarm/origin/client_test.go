package origin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"updraft/swarm/limit"
	"updraft/swarm/origin"
)

const pack = "packs/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// tree writes files into a fresh directory.
func tree(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func client(t testing.TB, o origin.ClientOptions, urls ...string) *origin.Client {
	t.Helper()
	c, err := origin.NewClient(urls, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func embedded(t testing.TB, dir string, o origin.ServerOptions) (*origin.Server, string) {
	t.Helper()
	s, err := origin.NewServer(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() { h.Close(); s.Close() })
	return s, h.URL
}

// pieces returns every second piece of n bytes, with gaps of gap bytes.
func pieces(size, n, gap int) (rs []origin.Range) {
	for off := 0; off+n <= size; off += n + gap {
		rs = append(rs, origin.Range{Off: int64(off), Len: int64(n)})
	}
	return rs
}

// check fetches rs and compares each piece with data.
func check(t *testing.T, c *origin.Client, data []byte, rs []origin.Range) {
	t.Helper()
	next := 0
	err := c.Ranges(t.Context(), pack, int64(len(data)), rs, func(i int, b []byte) error {
		if i != next {
			t.Fatalf("range %d comes when %d is due", i, next)
		}
		next++
		if !bytes.Equal(b, data[rs[i].Off:rs[i].Off+rs[i].Len]) {
			t.Fatalf("range %d: wrong bytes", i)
		}
		return nil
	})
	if err != nil || next != len(rs) {
		t.Fatalf("%d of %d ranges: %v", next, len(rs), err)
	}
}

func TestRangesEmbedded(t *testing.T) {
	data := noise(1 << 20)
	dir := tree(t, map[string][]byte{pack: data})
	s, url := embedded(t, dir, origin.ServerOptions{})
	for _, u := range []string{url, url + "/", dir, "file://" + dir} {
		c := client(t, origin.ClientOptions{}, u)
		check(t, c, data, []origin.Range{{0, int64(len(data))}})
		check(t, c, data, pieces(len(data), 10_000, 0))
		check(t, c, data, pieces(len(data), 10_000, 40_000))
		check(t, c, data, []origin.Range{{1, 1}, {int64(len(data)) - 1, 1}})
		check(t, c, data, nil)
	}
	if requests, out := s.Counters(); requests == 0 || out < int64(len(data)) {
		t.Errorf("server counted %d requests, %d bytes", requests, out)
	}
}

func TestNearRangesShareARequest(t *testing.T) {
	data := noise(1 << 20)
	var mu sync.Mutex
	var asked []string
	_, url := embedded(t, tree(t, map[string][]byte{pack: data}), origin.ServerOptions{Access: func(a origin.Access) {
		mu.Lock()
		asked = append(asked, a.Range)
		mu.Unlock()
	}})
	c := client(t, origin.ClientOptions{}, url)
	check(t, c, data, []origin.Range{{0, 1000}, {1000, 1000}, {2000 + 16<<10, 500}, {2501 + 32<<10, 10}, {900_000, 5}})
	mu.Lock()
	defer mu.Unlock()
	// The second and third may reach the server in either order.
	want := []string{"bytes=0-18883", "bytes=35269-35278", "bytes=900000-900004"}
	for _, w := range want {
		if !strings.Contains(strings.Join(asked, " "), w) {
			t.Errorf("asked %q, want %q", asked, want)
		}
	}
	if _, n := c.Counters(); n != 3 || len(asked) != 3 {
		t.Errorf("%d requests, server saw %d", n, len(asked))
	}
}

func TestRangesRefusesBadRanges(t *testing.T) {
	c := client(t, origin.ClientOptions{}, t.TempDir())
	for _, rs := range [][]origin.Range{
		{{-1, 2}}, {{0, 0}}, {{0, -1}}, {{95, 6}}, {{10, 5}, {14, 2}}, {{50, 5}, {0, 5}},
		{{1 << 62, 1 << 62}}, {{0, origin.MaxRange + 1}},
	} {
		err := c.Ranges(t.Context(), pack, 100, rs, func(int, []byte) error { return nil })
		if !errors.Is(err, origin.ErrRange) {
			t.Errorf("%v: %v", rs, err)
		}
	}
	for _, name := range []string{"", ".", "../x", "/etc/passwd", "a//b", "a\\b", "a/./b"} {
		if _, err := c.Get(t.Context(), name, 10); !errors.Is(err, origin.ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestFnErrorEndsTheCall(t *testing.T) {
	data := noise(300_000)
	_, url := embedded(t, tree(t, map[string][]byte{pack: data}), origin.ServerOptions{})
	boom := errors.New("boom")
	calls := 0
	c := client(t, origin.ClientOptions{}, url)
	err := c.Ranges(t.Context(), pack, int64(len(data)), pieces(len(data), 1000, 50_000), func(int, []byte) error {
		calls++
		return boom
	})
	if err != boom || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// TestHostileServers: whatever the first answers are, the bytes are right in the end.
func TestHostileServers(t *testing.T) {
	data := noise(400_000)
	good := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	}
	cutAfter := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			good(&cutter{w, n}, r)
		}
	}
	lie := func(status int, header string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if header != "" {
				w.Header().Set("Content-Range", header)
			}
			w.WriteHeader(status)
			w.Write(body)
		}
	}
	for name, first := range map[string][]http.HandlerFunc{
		"cut at once":          {cutAfter(0), cutAfter(0)},
		"cut in a range":       {cutAfter(5000), cutAfter(7001), cutAfter(100_000)},
		"ignores ranges":       {lie(200, "", data)},
		"ignores ranges, cut":  {lie(200, "", data[:123_456])},
		"server error":         {lie(500, "", nil), lie(503, "", []byte("later"))},
		"wrong start":          {lie(206, "bytes 1-399999/400000", data[1:])},
		"wrong end":            {lie(206, "bytes 0-500000/600000", data)},
		"nonsense range":       {lie(206, "bytes 9-3/x", data), lie(206, "", data), lie(206, "bytes 0-1", data)},
		"short 206":            {lie(206, "bytes 0-4999/400000", data[:5000]), lie(206, "bytes 5000-5000/*", data[5000:5001])},
		"shorter than it says": {lie(206, "bytes 0-399999/400000", data[:50_000])},
		"not modified":         {lie(304, "", nil)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if i := int(n.Add(1)) - 1; i < len(first) {
					first[i](w, r)
					return
				}
				good(w, r)
			}))
			defer s.Close()
			c := client(t, origin.ClientOptions{}, s.URL)
			check(t, c, data, pieces(len(data), 10_000, 0))
			check(t, c, data, pieces(len(data), 10_000, 20_000))
		})
	}
}

// TestServerThatKnowsNoRanges: of a server, or a proxy, that answers each request with the
// whole object, a device takes no more than a MiB that it does not want, and asks another.
func TestServerThatKnowsNoRanges(t *testing.T) {
	data := noise(24 << 20)
	var asks atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asks.Add(1)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data)
	}))
	defer s.Close()
	far := []origin.Range{{20 << 20, 4096}}
	for name, rs := range map[string][]origin.Range{
		"far from the beginning": far,
		"far from the last":      {{100, 4096}, {20 << 20, 4096}},
		"far from each other":    {{600_000, 4096}, {1_200_000, 4096}, {1_800_000, 4096}, {2_400_000, 4096}},
	} {
		c := client(t, origin.ClientOptions{}, s.URL)
		asks.Store(0)
		got := 0
		err := c.Ranges(t.Context(), pack, int64(len(data)), rs, func(i int, b []byte) error {
			if got++; !bytes.Equal(b, data[rs[i].Off:][:len(b)]) {
				t.Errorf("%s: wrong bytes", name)
			}
			return nil
		})
		if !errors.Is(err, origin.ErrNoRanges) || !errors.Is(err, origin.ErrUnreachable) || got > 1 || asks.Load() != int32(got)+1 {
			t.Errorf("%s: %d ranges, %d requests, %v", name, got, asks.Load(), err)
		}
		if in, _ := c.Counters(); in > 4<<20 {
			t.Errorf("%s: %d bytes came", name, in)
		}
	}
	good := tree(t, map[string][]byte{pack: data})
	check(t, client(t, origin.ClientOptions{}, s.URL, good), data, far)
	asks.Store(0)
	c := client(t, origin.ClientOptions{Retries: -1}, s.URL)
	check(t, c, data, pieces(len(data), 1<<20, 0)) // all of it
	check(t, c, data, []origin.Range{{400_000, 1000}, {900_000, 1000}})
	if asks.Load() != 2 {
		t.Errorf("%d requests", asks.Load())
	}
}

// cutter breaks the connection after n bytes of the body.
type cutter struct {
	http.ResponseWriter
	n int
}

func (c *cutter) Write(b []byte) (int, error) {
	if len(b) > c.n {
		c.ResponseWriter.Write(b[:c.n])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.n -= len(b)
	return c.ResponseWriter.Write(b)
}

func TestPartialRangeIsNotFetchedAgain(t *testing.T) {
	data := noise(200_000)
	var first atomic.Bool
	var asked atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first.CompareAndSwap(false, true) {
			w = &cutter{w, 150_000}
		} else {
			asked.Store(r.Header.Get("Range"))
		}
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	}))
	defer s.Close()
	check(t, client(t, origin.ClientOptions{}, s.URL), data, []origin.Range{{0, 200_000}})
	if got := asked.Load(); got != "bytes=150000-199999" {
		t.Errorf("resumed with %v", got)
	}
}

func TestServerRestart(t *testing.T) {
	data := noise(300_000)
	dir := tree(t, map[string][]byte{pack: data})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	start := func(l net.Listener) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- origin.Serve(ctx, l, dir, origin.ServerOptions{}) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := start(l)
	c := client(t, origin.ClientOptions{}, "http://"+addr)
	rs := pieces(len(data), 10_000, 20_000)
	err = c.Ranges(t.Context(), pack, int64(len(data)), rs, func(i int, b []byte) error {
		if !bytes.Equal(b, data[rs[i].Off:][:len(b)]) {
			t.Errorf("range %d differs", i)
		}
		if i == 3 {
			stop()
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Skipf("port taken meanwhile: %v", err)
			}
			stop = start(l)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	stop()
}

func TestIdleServerIsGivenUp(t *testing.T) {
	data := noise(100_000)
	var first atomic.Bool
	hang := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first.CompareAndSwap(false, true) {
			w.Header().Set("Content-Range", "bytes 0-99999/100000")
			w.WriteHeader(206)
			w.Write(data[:30_000])
			w.(http.Flusher).Flush()
			<-hang
			return
		}
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	}))
	defer s.Close()
	defer close(hang)
	c := client(t, origin.ClientOptions{Idle: 50 * time.Millisecond}, s.URL)
	check(t, c, data, pieces(len(data), 10_000, 0))
}

// drips sends n bytes at a time, with a pause before each.
func drips(t *testing.T, n int, pause time.Duration, data []byte) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.(http.Flusher).Flush()
		for rest := data; len(rest) > 0; rest = rest[min(n, len(rest)):] {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(pause):
			}
			w.Write(rest[:min(n, len(rest))])
			w.(http.Flusher).Flush()
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestSlowRetrieval: an origin that sends a byte now and then is as good as silent; one
// that sends a little all the time is not, and a small body may come in small pieces.
func TestSlowRetrieval(t *testing.T) {
	t.Parallel()
	data := noise(20_000)
	slow := drips(t, 1, 20*time.Millisecond, data)
	_, good := embedded(t, tree(t, map[string][]byte{"metadata/timestamp.json": data, pack: data}), origin.ServerOptions{})
	idle := origin.ClientOptions{Idle: 300 * time.Millisecond}
	if b, err := client(t, idle, slow, good).Get(t.Context(), "metadata/timestamp.json", 20_000); err != nil || !bytes.Equal(b, data) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	check(t, client(t, idle, slow, good), data, pieces(len(data), 5_000, 0))
	alone := client(t, origin.ClientOptions{Idle: idle.Idle, Retries: -1}, slow)
	if _, err := alone.Get(t.Context(), pack, 20_000); !errors.Is(err, origin.ErrUnreachable) {
		t.Errorf("one that is slow: %v", err)
	}
	patient := origin.ClientOptions{Idle: 2 * time.Second, Retries: -1}
	for _, url := range []string{drips(t, 50, 100*time.Millisecond, data[:500]), drips(t, 800, 100*time.Millisecond, data)} {
		if _, err := client(t, patient, url).Get(t.Context(), pack, 20_000); err != nil {
			t.Errorf("slow, but not too slow: %v", err)
		}
	}
}

// TestDeadline: a call whose time an origin lets go by is not made there again, nor is one
// that is given up because nothing comes. A call that is taken back says nothing.
func TestDeadline(t *testing.T) {
	t.Parallel()
	data := noise(20_000)
	slow := drips(t, 1, 20*time.Millisecond, data)
	_, good := embedded(t, tree(t, map[string][]byte{pack: data}), origin.ServerOptions{})
	for name, c := range map[string]struct {
		cause error // of the end; nil: its deadline
		moves bool
	}{
		"deadline":  {nil, true},
		"silent":    {fmt.Errorf("%w: not a word", origin.ErrUnreachable), true},
		"cancelled": {context.Canceled, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := client(t, origin.ClientOptions{}, slow, good)
			call := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer cancel()
				ctx, end := context.WithCancelCause(ctx)
				defer end(nil)
				if c.cause != nil {
					time.AfterFunc(1200*time.Millisecond, func() { end(c.cause) })
				}
				return cl.Ranges(ctx, pack, int64(len(data)), pieces(len(data), 5_000, 0), func(int, []byte) error { return nil })
			}
			if err := call(); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if err := call(); c.moves != (err == nil) {
				t.Errorf("the next call: %v", err)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + l.Addr().String()
	l.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer broken.Close()
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	defer silent.Close()
	gone := filepath.Join(t.TempDir(), "unplugged")
	for _, u := range []string{refused, broken.URL, silent.URL, gone} {
		c := client(t, origin.ClientOptions{Retries: 1, Idle: 30 * time.Millisecond}, u)
		if _, err := c.Get(t.Context(), "metadata/timestamp.json", 100); !errors.Is(err, origin.ErrUnreachable) {
			t.Errorf("Get from %s: %v", u, err)
		}
		err := c.Ranges(t.Context(), pack, 10, []origin.Range{{0, 10}}, func(int, []byte) error { return nil })
		if !errors.Is(err, origin.ErrUnreachable) || errors.Is(err, origin.ErrNotFound) {
			t.Errorf("Ranges from %s: %v", u, err)
		}
	}
}

func TestNotFoundAndChanged(t *testing.T) {
	data := noise(1000)
	dir := tree(t, map[string][]byte{pack: data})
	_, url := embedded(t, dir, origin.ServerOptions{})
	forbid := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	defer forbid.Close()
	nop := func(int, []byte) error { return nil }
	for _, u := range []string{url, dir, forbid.URL} {
		c := client(t, origin.ClientOptions{}, u)
		if _, err := c.Get(t.Context(), "metadata/2.root.json", 100); !errors.Is(err, origin.ErrNotFound) {
			t.Errorf("Get from %s: %v", u, err)
		}
		if err := c.Ranges(t.Context(), "packs/none", 10, []origin.Range{{0, 10}}, nop); !errors.Is(err, origin.ErrNotFound) {
			t.Errorf("Ranges from %s: %v", u, err)
		}
		if u == forbid.URL {
			continue
		}
		for _, size := range []int64{999, 1001, 5000} {
			if err := c.Ranges(t.Context(), pack, size, []origin.Range{{size - 5, 5}}, nop); !errors.Is(err, origin.ErrChanged) {
				t.Errorf("size %d from %s: %v", size, u, err)
			}
		}
		if _, err := c.Get(t.Context(), pack, 999); !errors.Is(err, origin.ErrTooLarge) {
			t.Errorf("limit, %s: %v", u, err)
		}
	}
}

func TestSecondOriginTakesOver(t *testing.T) {
	data := noise(300_000)
	full := tree(t, map[string][]byte{pack: data, "metadata/timestamp.json": []byte("{}")})
	cutting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(&cutter{w, 60_000}, r, "x", time.Time{}, bytes.NewReader(data))
	}))
	defer cutting.Close()
	empty := tree(t, nil)
	check(t, client(t, origin.ClientOptions{}, cutting.URL, full), data, pieces(len(data), 10_000, 0))
	check(t, client(t, origin.ClientOptions{}, empty, full), data, pieces(len(data), 10_000, 0))
	check(t, client(t, origin.ClientOptions{}, filepath.Join(empty, "x"), full), data, pieces(len(data), 10_000, 0))
	c := client(t, origin.ClientOptions{}, filepath.Join(empty, "x"), full)
	if b, err := c.Get(t.Context(), "metadata/timestamp.json", 100); err != nil || string(b) != "{}" {
		t.Errorf("Get: %q, %v", b, err)
	}
}

// TestMirrorWithoutMetadata: what an origin has lost comes from the next one. What there
// need not be is asked of one only.
func TestMirrorWithoutMetadata(t *testing.T) {
	var asks atomic.Int32
	access := origin.ServerOptions{Access: func(origin.Access) { asks.Add(1) }}
	_, lost := embedded(t, t.TempDir(), access)
	_, good := embedded(t, tree(t, map[string][]byte{"metadata/timestamp.json": []byte("{}"), "metadata/3.snapshot.json": []byte("{}"), "renewals/2": nil}), access)
	for name, want := range map[string]int32{
		"metadata/timestamp.json": 2, "metadata/3.snapshot.json": 2, "metadata/4.snapshot.json": 2,
		"metadata/2.root.json": 1, "metadata/stable.bundle": 1, "renewals/1": 1, "renewals/2": 1,
	} {
		asks.Store(0)
		_, err := client(t, origin.ClientOptions{}, lost, good).Get(t.Context(), name, 100)
		if found := name == "metadata/timestamp.json" || name == "metadata/3.snapshot.json"; found != (err == nil) || !found && !errors.Is(err, origin.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		if asks.Load() != want {
			t.Errorf("%s: %d requests, want %d", name, asks.Load(), want)
		}
	}
}

// counted serves data under each name, and counts the requests.
func counted(t *testing.T, data []byte, wrap func(http.ResponseWriter) http.ResponseWriter) (url string, n *atomic.Int32, stop func()) {
	t.Helper()
	n = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		if wrap != nil {
			w = wrap(w)
		}
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	return s.URL, n, s.Close
}

// TestDistrust: an origin whose bytes were wrong is asked again when the others fail, and
// not before; where there is no other, nothing changes.
func TestDistrust(t *testing.T) {
	a, asksA, _ := counted(t, []byte("a"), nil)
	b, asksB, stopB := counted(t, []byte("b"), nil)
	c := client(t, origin.ClientOptions{}, a, b)
	asks := func(want string, ofA, ofB int32) {
		t.Helper()
		begin := time.Now()
		asksA.Store(0)
		asksB.Store(0)
		got, err := c.Get(t.Context(), "metadata/timestamp.json", 10)
		if err != nil || string(got) != want || asksA.Load() != ofA || asksB.Load() != ofB {
			t.Errorf("%q, %v with %d and %d requests, want %q with %d and %d", got, err, asksA.Load(), asksB.Load(), want, ofA, ofB)
		}
		if want == "a" {
			c.Distrust(begin)
		}
	}
	asks("a", 1, 0)
	asks("b", 0, 1)
	asks("b", 0, 1)
	c.Distrust(time.Now()) // nothing has come since
	asks("b", 0, 1)
	stopB()
	asks("a", 1, 0)
	one := client(t, origin.ClientOptions{}, a)
	for range 2 {
		if got, err := one.Get(t.Context(), "x", 10); err != nil || string(got) != "a" {
			t.Errorf("%q, %v", got, err)
		}
		one.Distrust(time.Time{})
	}
}

// TestDistrustedIsAllThereIs: when the others are gone, the one that was distrusted is
// asked first again, as long as nothing is wrong with what it sends.
func TestDistrustedIsAllThereIs(t *testing.T) {
	a, asks, _ := counted(t, []byte("a"), nil)
	gone, _, stop := counted(t, nil, nil)
	stop()
	c := client(t, origin.ClientOptions{}, a, gone)
	for range 3 {
		if got, err := c.Get(t.Context(), "x", 10); err != nil || string(got) != "a" {
			t.Fatalf("%q, %v", got, err)
		}
		if asks.Load() == 1 {
			c.Distrust(time.Time{})
		}
	}
	begin := time.Now()
	for range 20 { // each would make three attempts at the other, with 700 ms between them
		if _, err := c.Get(t.Context(), "x", 10); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("20 small files took %v", d)
	}
}

// TestDistrustOfSeveral: a bad origin breaks off in the middle of a piece, so that the
// good one that completes it is under suspicion, too. It is then asked alone.
func TestDistrustOfSeveral(t *testing.T) {
	data := noise(100_000)
	bad, asksBad, _ := counted(t, make([]byte, len(data)), func(w http.ResponseWriter) http.ResponseWriter { return &cutter{w, 50_000} })
	good, _, _ := counted(t, data, nil)
	for name, get := range map[string]func(c *origin.Client) []byte{
		"whole": func(c *origin.Client) []byte {
			b, err := c.Get(t.Context(), pack, 100_000)
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		"range": func(c *origin.Client) (got []byte) {
			wrong := errors.New("wrong")
			err := c.Ranges(t.Context(), pack, 100_000, []origin.Range{{0, 100_000}}, func(_ int, b []byte) error {
				if got = bytes.Clone(b); !bytes.Equal(b, data) {
					return wrong
				}
				return nil
			})
			if err != nil && err != wrong {
				t.Fatal(err)
			}
			return got
		},
	} {
		c := client(t, origin.ClientOptions{}, bad, good)
		begin := time.Now()
		if got := get(c); bytes.Equal(got, data) {
			t.Fatalf("%s: the bad origin was not asked", name)
		}
		c.Distrust(begin)
		asksBad.Store(0)
		for range 3 {
			if got := get(c); !bytes.Equal(got, data) || asksBad.Load() != 0 {
				t.Errorf("%s: right: %t; the bad one was asked %d times", name, bytes.Equal(got, data), asksBad.Load())
			}
		}
	}
}

func TestConditionalGet(t *testing.T) {
	const name = "metadata/timestamp.json"
	dir := tree(t, map[string][]byte{name: []byte(`{"v":1}`)})
	var statuses []int
	_, url := embedded(t, dir, origin.ServerOptions{Access: func(a origin.Access) { statuses = append(statuses, a.Status) }})
	for _, u := range []string{url, dir} {
		c := client(t, origin.ClientOptions{}, u)
		for range 3 {
			b, err := c.Get(t.Context(), name, 100)
			if err != nil || string(b) != `{"v":1}` {
				t.Fatalf("%q, %v", b, err)
			}
			b[0] = 'x' // the caller's own
		}
	}
	if fmt.Sprint(statuses) != "[200 304 304]" {
		t.Errorf("answers %v", statuses)
	}
	c := client(t, origin.ClientOptions{}, url)
	c.Get(t.Context(), name, 100)
	next := filepath.Join(dir, "next")
	os.WriteFile(next, []byte(`{"v":2}`), 0o644)
	os.Rename(next, filepath.Join(dir, name))
	if b, err := c.Get(t.Context(), name, 100); err != nil || string(b) != `{"v":2}` {
		t.Errorf("after a change: %q, %v", b, err)
	}
}

func TestGetResumesImmutable(t *testing.T) {
	data := noise(200_000)
	var ranges []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		http.ServeContent(&cutter{w, 90_000}, r, "x", time.Time{}, bytes.NewReader(data))
	}))
	defer s.Close()
	b, err := client(t, origin.ClientOptions{}, s.URL).Get(t.Context(), pack, 200_000)
	if err != nil || !bytes.Equal(b, data) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if len(ranges) != 3 || ranges[0] != "" || ranges[2] != "bytes=180000-" {
		t.Errorf("asked %q", ranges)
	}
}

func TestCancel(t *testing.T) {
	data := noise(200_000)
	_, url := embedded(t, tree(t, map[string][]byte{pack: data}), origin.ServerOptions{})
	c := client(t, origin.ClientOptions{Limiter: limit.New(10_000)}, url)
	ctx, cancel := context.WithCancel(t.Context())
	rs := pieces(len(data), 1000, 40_000)
	err := c.Ranges(ctx, pack, int64(len(data)), rs, func(i int, _ []byte) error {
		if i == 1 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Ranges: %v", err)
	}
	if _, err := c.Get(ctx, pack, 1<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
}

func TestNewClientRefuses(t *testing.T) {
	for _, u := range [][]string{nil, {"ftp://x/y"}, {"http://"}, {"file://host/x"}, {"http://%zz"}} {
		if _, err := origin.NewClient(u, origin.ClientOptions{}); err == nil {
			t.Errorf("%q is taken", u)
		}
	}
}

// TestOverhead counts what a request costs on the link, and the connections.
func TestOverhead(t *testing.T) {
	data := noise(2_000_000)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var count limit.Counters
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	dir := tree(t, map[string][]byte{pack: data})
	go func() { done <- origin.Serve(ctx, limit.Listener(l, 0, &count), dir, origin.ServerOptions{}) }()
	c := client(t, origin.ClientOptions{}, "http://"+l.Addr().String())
	rs := pieces(len(data), 10_000, 50_000)
	check(t, c, data, rs)
	check(t, c, data, rs)
	in, n := c.Counters()
	if n != int64(2*len(rs)) || in != count.Out.Load() || c.BytesOut() != count.In.Load() {
		t.Errorf("%d requests, in %d of %d, out %d of %d", n, in, count.Out.Load(), c.BytesOut(), count.In.Load())
	}
	up, down := count.In.Load()/n, count.Out.Load()/n-10_000
	if up >= 200 || down >= 200 {
		t.Errorf("a request costs %d bytes up, %d down", up, down)
	}
	t.Logf("a request costs %d bytes up, %d down", up, down)
	if count.Conns.Load() > 12 { // a dial may overtake a connection that becomes free
		t.Errorf("%d connections", count.Conns.Load())
	}
	c.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func BenchmarkRanges(b *testing.B) {
	data := noise(64 << 20)
	_, url := embedded(b, tree(b, map[string][]byte{pack: data}), origin.ServerOptions{})
	c := client(b, origin.ClientOptions{}, url)
	rs := pieces(len(data), 32<<10, 0)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := c.Ranges(b.Context(), pack, int64(len(data)), rs, func(int, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
