package origin_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"updraft/swarm/limit"
	"updraft/swarm/origin"
)

// TestRequestIsMinimal: what a client says about itself, and nothing else.
func TestRequestIsMinimal(t *testing.T) {
	var mu sync.Mutex
	var seen []http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Header.Clone())
		mu.Unlock()
		http.ServeContent(w, r, "x", time.Time{}, strings.NewReader("0123456789"))
	}))
	defer s.Close()
	c := client(t, origin.ClientOptions{UserAgent: "updraft/1"}, s.URL)
	if _, err := c.Get(t.Context(), pack, 10); err != nil {
		t.Fatal(err)
	}
	if err := c.Ranges(t.Context(), pack, 10, []origin.Range{{2, 3}}, func(int, []byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	want := "[map[User-Agent:[updraft/1]] map[Range:[bytes=2-4] User-Agent:[updraft/1]]]"
	if got := fmt.Sprint(seen); got != want {
		t.Errorf("headers %s, want %s", got, want)
	}
}

// TestURLForms: credentials, a path, a query and redirects all work.
func TestURLForms(t *testing.T) {
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		switch {
		case strings.HasPrefix(r.URL.Path, "/moved/"):
			http.Redirect(w, r, s.URL+"/fleet/"+strings.TrimPrefix(r.URL.Path, "/moved/"), http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/secret/") && (user != "till" || pass != "pw" || r.URL.RawQuery != "sig=a%2Fb"):
			w.WriteHeader(http.StatusUnauthorized)
		default:
			http.ServeContent(w, r, "x", time.Time{}, strings.NewReader(r.URL.Path))
		}
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	for base, path := range map[string]string{
		s.URL + "/fleet":  "/fleet/",
		s.URL + "/fleet/": "/fleet/",
		s.URL + "/moved":  "/fleet/",
		"http://till:pw@" + host + "/secret?sig=a%2Fb": "/secret/",
	} {
		b, err := client(t, origin.ClientOptions{Retries: -1}, base).Get(t.Context(), "metadata/a b+c.json", 100)
		if err != nil || string(b) != path+"metadata/a b+c.json" {
			t.Errorf("%s: %q, %v", base, b, err)
		}
	}
	_, err := client(t, origin.ClientOptions{Retries: -1}, s.URL+"/secret").Get(t.Context(), "x", 100)
	if !errors.Is(err, origin.ErrUnreachable) {
		t.Errorf("no credentials: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "pw") {
		t.Error("a password in an error")
	}
}

// TestErrorsHoldNoToken: what goes wrong with an origin is told in logs, in the status and to members; who reads them is
// not told the user, password or token in its URL.
func TestErrorsHoldNoToken(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large/x":
			w.Write([]byte("more than the limit"))
		case "/away/x":
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		case "/cut/x":
			w.Header().Set("Content-Length", "9")
			w.Write([]byte("cut"))
		case "/unchanged/x":
			w.WriteHeader(http.StatusNotModified)
		case "/drop/x":
			panic(http.ErrAbortHandler)
		case "/broken/x":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	for _, base := range []string{s.URL + "/", s.URL + "/large", s.URL + "/away", s.URL + "/cut", s.URL + "/unchanged", s.URL + "/drop", s.URL + "/broken",
		"http://127.0.0.1:1/", "ftp://127.0.0.1/", "http:///x", "http://127.0.0.1:port/", "file://host/x"} {
		base = strings.Replace(base, "://", "://us3r:passw0rd@", 1) + "?sig=t0ken"
		var log strings.Builder
		c, err := origin.NewClient([]string{base}, origin.ClientOptions{Retries: -1, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		if err == nil {
			_, err = c.Get(t.Context(), "x", 10)
			c.Close()
		}
		if err == nil {
			t.Errorf("%s: no error", base)
			continue
		}
		for _, secret := range []string{"us3r", "passw0rd", "t0ken"} {
			if strings.Contains(err.Error()+log.String(), secret) {
				t.Errorf("%s: %v, logged %s", base, err, log.String())
			}
		}
	}
}

// TestRedirects: who can answer for an origin over plain HTTP cannot make a device ask
// another server, nor one over HTTPS make it ask in plain; an origin may move on its own
// host, and over HTTPS to another one, which is not told of the token in its query.
func TestRedirects(t *testing.T) {
	var asked atomic.Int32
	serve := func(start func(http.Handler) *httptest.Server, to func(r *http.Request) string) *httptest.Server {
		s := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u := to(r); u != "" {
				http.Redirect(w, r, u, http.StatusTemporaryRedirect)
				return
			}
			asked.Add(1)
			if said := fmt.Sprint(r.URL, r.Header); strings.Contains(said, "token") || r.Referer() != "" {
				t.Errorf("who is redirected to is told %s", said)
			}
			w.Write([]byte("ok"))
		}))
		t.Cleanup(s.Close)
		return s
	}
	stays := func(*http.Request) string { return "" }
	plain, secure := serve(httptest.NewServer, stays), serve(httptest.NewTLSServer, stays)
	leads := func(u string) func(*http.Request) string {
		return func(r *http.Request) string { return u + r.URL.Path }
	}
	roots := secure.Client().Transport.(*http.Transport).TLSClientConfig // httptest has one certificate for all
	for name, c := range map[string]struct {
		from *httptest.Server
		ok   bool
	}{
		"plain to another server":          {serve(httptest.NewServer, leads(plain.URL)), false},
		"plain to HTTPS of the same host":  {serve(httptest.NewServer, leads(secure.URL)), true},
		"plain to HTTPS of another host":   {serve(httptest.NewServer, leads(strings.Replace(secure.URL, "127.0.0.1", "localhost", 1))), false},
		"HTTPS to plain":                   {serve(httptest.NewTLSServer, leads(plain.URL)), false},
		"HTTPS to another server by HTTPS": {serve(httptest.NewTLSServer, leads(secure.URL)), true},
		"in circles":                       {serve(httptest.NewServer, func(r *http.Request) string { return r.URL.Path }), false},
	} {
		asked.Store(0)
		b, err := client(t, origin.ClientOptions{Retries: -1, TLS: roots.Clone()}, c.from.URL+"?token=s").Get(t.Context(), "x", 10)
		if c.ok && (err != nil || string(b) != "ok") {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if !c.ok && (!errors.Is(err, origin.ErrUnreachable) || !strings.Contains(err.Error(), "redirects") || asked.Load() != 0) {
			t.Errorf("%s: %q, %v; %d requests", name, b, err, asked.Load())
		}
	}
}

// TestSessionsAreResumed: over HTTPS only the first connection makes a handshake in full.
func TestSessionsAreResumed(t *testing.T) {
	const many = 6
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var mu sync.Mutex
		resumed := map[string]bool{} // by the client's address
		var all sync.WaitGroup       // so that each request takes a connection of its own
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			resumed[r.RemoteAddr] = r.TLS.DidResume
			mu.Unlock()
			all.Done()
			all.Wait()
			w.Write([]byte("ok"))
		}))
		defer s.Close()
		conf := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		conf.MaxVersion = version
		c := client(t, origin.ClientOptions{Retries: -1, TLS: conf}, s.URL)
		get := func() {
			if b, err := c.Get(t.Context(), "x", 10); err != nil || string(b) != "ok" {
				t.Errorf("%q, %v", b, err)
			}
		}
		all.Add(1)
		get()
		all.Add(many)
		var wg sync.WaitGroup
		for range many {
			wg.Go(get)
		}
		wg.Wait()
		full := 0
		for _, was := range resumed {
			if !was {
				full++
			}
		}
		if len(resumed) != many || full != 1 {
			t.Errorf("%s: %d handshakes in full for %d connections", tls.VersionName(version), full, len(resumed))
		}
		if conf.ClientSessionCache != nil {
			t.Error("the caller's configuration is changed")
		}
	}
}

// TestRetryAfter: a server that asks for more patience than there is gets none.
func TestRetryAfter(t *testing.T) {
	var n atomic.Int32
	var after atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			w.Header().Set("Retry-After", after.Load().(string))
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.Write([]byte("ok"))
	}))
	defer s.Close()
	after.Store("1")
	if b, err := client(t, origin.ClientOptions{}, s.URL).Get(t.Context(), "a", 10); err != nil || string(b) != "ok" {
		t.Errorf("patient: %q, %v", b, err)
	}
	n.Store(0)
	after.Store("7200")
	if _, err := client(t, origin.ClientOptions{}, s.URL).Get(t.Context(), "a", 10); !errors.Is(err, origin.ErrUnreachable) {
		t.Errorf("long: %v", err)
	}
	if n.Load() != 1 {
		t.Errorf("%d requests to a server that asked for two hours", n.Load())
	}
}

// TestCacheIsBounded: hundreds of names do not stay in memory, and dropping one
// only costs a body.
func TestCacheIsBounded(t *testing.T) {
	var full, unchanged atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"1"` {
			unchanged.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		full.Add(1)
		w.Header().Set("Etag", `"1"`)
		w.Write([]byte(r.URL.Path))
	}))
	defer s.Close()
	c := client(t, origin.ClientOptions{}, s.URL)
	for range 2 {
		for i := range 200 {
			name := fmt.Sprintf("metadata/%d.json", i)
			if b, err := c.Get(t.Context(), name, 100); err != nil || string(b) != "/"+name {
				t.Fatalf("%s: %q, %v", name, b, err)
			}
		}
	}
	if full.Load() != 400 || unchanged.Load() != 0 {
		t.Errorf("%d bodies, %d not modified: more is kept than said", full.Load(), unchanged.Load())
	}
	for range 5 {
		c.Get(t.Context(), "metadata/199.json", 100)
	}
	if unchanged.Load() != 5 {
		t.Errorf("%d not modified: what was asked for last is not kept", unchanged.Load())
	}
}

func TestConcurrentUse(t *testing.T) {
	data := noise(400_000)
	_, url := embedded(t, tree(t, map[string][]byte{pack: data, "metadata/x.json": []byte("x")}), origin.ServerOptions{})
	c := client(t, origin.ClientOptions{}, url)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			rs := pieces(len(data), 5000+i, 30_000)
			err := c.Ranges(t.Context(), pack, int64(len(data)), rs, func(j int, b []byte) error {
				if !bytes.Equal(b, data[rs[j].Off:rs[j].Off+rs[j].Len]) {
					t.Error("wrong bytes")
				}
				// A call from inside a call must not wait for it.
				_, err := c.Get(t.Context(), "metadata/x.json", 10)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestLimiterHolds: bodies come no faster than the limit, whatever the server does.
func TestLimiterHolds(t *testing.T) {
	data := noise(300_000)
	_, url := embedded(t, tree(t, map[string][]byte{pack: data}), origin.ServerOptions{})
	const rate = 1_000_000
	c := client(t, origin.ClientOptions{Limiter: limit.New(rate)}, url)
	start := time.Now()
	check(t, c, data, pieces(len(data), 10_000, 0))
	if least := time.Duration(len(data)-limit.Burst) * time.Second / rate; time.Since(start) < least {
		t.Errorf("%d bytes at %d B/s cannot take %v", len(data), rate, time.Since(start))
	}
}

// TestAheadRequestsEnd: a call that stops leaves no request behind.
func TestAheadRequestsEnd(t *testing.T) {
	data := noise(2_000_000)
	var busy atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		busy.Add(1)
		defer busy.Add(-1)
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	}))
	c := client(t, origin.ClientOptions{}, s.URL)
	boom := errors.New("boom")
	err := c.Ranges(t.Context(), pack, int64(len(data)), pieces(len(data), 30_000, 40_000), func(i int, _ []byte) error {
		if i == 3 {
			return boom
		}
		return nil
	})
	if err != boom {
		t.Error(err)
	}
	c.Close()
	s.Close() // waits for requests under way
	if n := busy.Load(); n != 0 {
		t.Errorf("%d requests under way", n)
	}
}
