package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"updraft/node/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

// device is a Backend with fixed answers.
type device struct {
	status report.Status
	peers  []report.Peer
	check  func(ctx context.Context) (report.CheckResult, error)
	retry  error
	plan   report.Plan
}

func (d *device) Plan() (report.Plan, error) { return d.plan, d.retry }

func (d *device) Retry() error { return d.retry }

func (d *device) Status() report.Status { return d.status }
func (d *device) Peers() []report.Peer  { return d.peers }
func (d *device) Check(ctx context.Context) (report.CheckResult, error) {
	return d.check(ctx)
}

func sample() *device {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &device{
		status: report.Status{
			Name: "till-7", Type: "rpi4", Site: "store-12", Channel: "stable", Role: "gateway", PeerID: "12D3KooW", State: "fetching",
			Current: "1.0.0", Target: "2.0.0", Holder: "till-7", IsHolder: true, Progress: &report.Progress{Have: 1, Total: 4},
			Bytes: report.Bytes{Uplink: 1, LANIn: 2, LANOut: 3, Reused: 4, Written: 5}, Peers: 6,
			Problems:  []report.Problem{{Code: "origin", Subject: "http://a", Text: "refused", Hint: "look", First: at, Last: at, Count: 2}},
			WhyFor:    "2.0.0",
			Why:       []string{"the patch from 1.0.0 is the smallest"},
			Brought:   7,
			LastCheck: at, Since: at,
			Releases: []report.ReleaseStatus{{Version: "1.0.0", InService: true, Artifacts: []report.ArtifactStatus{{Name: "app.bin", Kind: "file", Size: 9, CID: "bafk"}}}},
		},
		peers: []report.Peer{{ID: "12D3", Name: "till-8", Type: "rpi4", Roles: []string{"device"}, Addr: "/ip4/10.0.0.8/tcp/4001", Since: at,
			Version: "1.0.0", State: "idle", Progress: 1000, BytesIn: 1, BytesOut: 2}},
		check: func(context.Context) (report.CheckResult, error) {
			return report.CheckResult{Current: "1.0.0", Target: "2.0.0", New: true}, nil
		},
	}
}

// serve runs the control socket of data until the test ends, or stop is called.
func serve(t *testing.T, data string, b report.Backend) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- report.Serve(ctx, data, b, nil) }()
	var once bool
	stop = func() {
		if once {
			return
		}
		once = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	for {
		c, err := net.Dial("unix", filepath.Join(shortened(t, data), report.SocketName))
		if err == nil {
			c.Close()
			return stop
		}
		select {
		case err := <-done:
			t.Fatalf("Serve: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// shortened returns a link to dir whose path fits into a socket's address.
func shortened(t *testing.T, dir string) string {
	t.Helper()
	tmp, err := os.MkdirTemp("/tmp", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	link := filepath.Join(tmp, "d")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	return link
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func TestQuestionsAndAnswers(t *testing.T) {
	data, d := t.TempDir(), sample()
	serve(t, data, d)
	c := report.Dial(data)
	s, err := c.Status(t.Context())
	want := d.status
	want.Format = report.StatusFormat
	if err != nil || asJSON(t, s) != asJSON(t, want) {
		t.Errorf("Status = %s, %v", asJSON(t, s), err)
	}
	ps, err := c.Peers(t.Context())
	if err != nil || asJSON(t, ps) != asJSON(t, d.peers) {
		t.Errorf("Peers = %v, %v", ps, err)
	}
	if r, err := c.Check(t.Context()); err != nil || !r.New || r.Target != "2.0.0" {
		t.Errorf("Check = %+v, %v", r, err)
	}
	if text, err := c.Metrics(t.Context()); err != nil || !strings.Contains(text, "updraft_peers 6\n") {
		t.Errorf("Metrics = %s, %v", text, err)
	}
}

// ofProcess are metrics whose values are those of the test.
var ofProcess = regexp.MustCompile(`(?m)^((?:go|process)_[a-z_]+) [1-9].*$`)

// TestGolden pins the names of the fields, which other people's programs read.
func TestGolden(t *testing.T) {
	d := sample()
	d.status.Format = report.StatusFormat
	w := httptest.NewRecorder()
	report.Handler(d).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := ofProcess.ReplaceAllString(w.Body.String(), "$1 0")
	for name, got := range map[string]string{"status.json": asJSON(t, d.status), "peers.json": asJSON(t, d.peers), "metrics.txt": text} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s%v", name, got, want, err)
		}
	}
}

func TestEmptyListsAreLists(t *testing.T) {
	w := httptest.NewRecorder()
	report.Handler(&device{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/peers", nil))
	if w.Body.String() != "[]" {
		t.Errorf("peers: %s", w.Body)
	}
}

func TestMethods(t *testing.T) {
	h := report.Handler(sample())
	for path, method := range map[string]string{"/check": http.MethodGet, "/status": http.MethodPost, "/peers": http.MethodDelete} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %d", method, path, w.Code)
		}
	}
}

func TestOnlyTheOwnerMayAsk(t *testing.T) {
	data := t.TempDir()
	serve(t, data, sample())
	fi, err := os.Stat(filepath.Join(data, report.SocketName))
	if err != nil || fi.Mode().Perm() != 0o600 || fi.Mode()&fs.ModeSocket == 0 {
		t.Errorf("socket: %v, %v", fi, err)
	}
	if es, err := os.ReadDir(data); err != nil || len(es) != 1 {
		t.Errorf("beside the socket: %v, %v", es, err)
	}
}

func TestNobodyThere(t *testing.T) {
	data := t.TempDir()
	if _, err := report.Dial(data).Status(t.Context()); !errors.Is(err, report.ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := report.Dial(filepath.Join(data, strings.Repeat("x", 120))).Status(t.Context()); !errors.Is(err, report.ErrNotRunning) {
		t.Errorf("no directory: %v", err)
	}
	dead(t, data)
	if _, err := report.Dial(data).Status(t.Context()); !errors.Is(err, report.ErrNotRunning) {
		t.Errorf("dead socket: %v", err)
	}
}

// dead leaves the socket of an agent that was killed.
func dead(t *testing.T, data string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(data, report.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOldSocketIsReplaced(t *testing.T) {
	data := t.TempDir()
	dead(t, data)
	if err := os.Mkdir(filepath.Join(data, ".control"), 0o700); err != nil { // killed while it bound
		t.Fatal(err)
	}
	stop := serve(t, data, sample())
	if _, err := report.Dial(data).Status(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if es, err := os.ReadDir(data); err != nil || len(es) != 0 {
		t.Errorf("left behind: %v, %v", es, err)
	}
}

// A data directory may lie deeper than the address of a socket is long.
func TestLongPath(t *testing.T) {
	data := filepath.Join(t.TempDir(), strings.Repeat("d", 200), strings.Repeat("e", 200))
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	stop := serve(t, data, sample())
	if s, err := report.Dial(data).Status(t.Context()); err != nil || s.Name != "till-7" {
		t.Errorf("Status = %+v, %v", s, err)
	}
	stop()
	if _, err := report.Dial(data).Status(t.Context()); !errors.Is(err, report.ErrNotRunning) {
		t.Errorf("after the end: %v", err)
	}
}

// Every length around the limit works.
func TestPathsAroundTheLimit(t *testing.T) {
	tmp := shortened(t, t.TempDir())
	for n := 80; n <= 112; n++ {
		data := filepath.Join(tmp, strings.Repeat("d", n-len(tmp)-1))
		if err := os.Mkdir(data, 0o755); err != nil {
			t.Fatal(err)
		}
		stop := serve(t, data, sample())
		if _, err := report.Dial(data).Peers(t.Context()); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		stop()
	}
}

func TestCheckFails(t *testing.T) {
	data, d := t.TempDir(), sample()
	d.check = func(context.Context) (report.CheckResult, error) {
		return report.CheckResult{}, errors.New("the origin is out of reach")
	}
	serve(t, data, d)
	if _, err := report.Dial(data).Check(t.Context()); err == nil || err.Error() != "the origin is out of reach" {
		t.Errorf("Check: %v", err)
	}
}

// A client that goes away ends its check; so does the end of the agent.
func TestCheckEnds(t *testing.T) {
	data, d := t.TempDir(), sample()
	begun, ended := make(chan bool), make(chan error)
	d.check = func(ctx context.Context) (report.CheckResult, error) {
		begun <- true
		<-ctx.Done()
		ended <- ctx.Err()
		return report.CheckResult{}, ctx.Err()
	}
	stop := serve(t, data, d)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	ask := func(ctx context.Context) {
		_, err := report.Dial(data).Check(ctx)
		answer <- err
	}
	go ask(ctx)
	<-begun
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("in the agent: %v", err)
	}
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("in the client: %v", err)
	}

	go ask(t.Context())
	<-begun
	go stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("in the agent that stops: %v", err)
	}
	if err := <-answer; err == nil {
		t.Error("an answer from an agent that stopped")
	}
}

func TestServeFails(t *testing.T) {
	if err := report.Serve(t.Context(), filepath.Join(t.TempDir(), "none"), sample(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Serve without a directory: %v", err)
	}
}

// What is no agent's answer is an error, however it looks.
func TestOddAnswers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"no JSON":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"half":      func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"name":"x`) },
		"endless":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte(" "), 17<<20)) },
		"not found": http.NotFound,
		"bare 500":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
	} {
		data := t.TempDir()
		l, err := net.Listen("unix", filepath.Join(shortened(t, data), report.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: h}
		go func() { _ = s.Serve(l) }()
		if st, err := report.Dial(data).Status(t.Context()); err == nil {
			t.Errorf("%s: %+v", name, st)
		}
		s.Close()
	}
}

func TestMetricsToken(t *testing.T) {
	ask := func(token, header string) int {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		report.MetricsHandler(token, sample()).ServeHTTP(w, r)
		if w.Code != http.StatusOK && strings.Contains(w.Body.String(), "updraft_") {
			t.Errorf("status %d with metrics", w.Code)
		}
		return w.Code
	}
	for _, c := range []struct {
		token, header string
		want          int
	}{
		{"", "", 200}, {"", "Bearer x", 200}, {"x", "Bearer x", 200},
		{"x", "", 401}, {"x", "Bearer", 401}, {"x", "Bearer ", 401}, {"x", "Bearer xx", 401}, {"x", "x", 401},
	} {
		if got := ask(c.token, c.header); got != c.want {
			t.Errorf("token %q, header %q: %d, want %d", c.token, c.header, got, c.want)
		}
	}
}

// TestMetricsBody: a stranger does not hold connections by bodies that do not come.
func TestMetricsBody(t *testing.T) {
	s := httptest.NewServer(report.MetricsHandler("x", sample()))
	defer s.Close()
	for _, method := range []string{"GET", "POST"} {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "%s /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", method)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 4") {
			t.Errorf("%s: %q, %v", method, b, err)
		}
	}
}

// serveMetrics serves metrics for who has the token x until the end of the test. The function it returns opens a connection
// and says something.
func serveMetrics(t *testing.T) (say func(words string) net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- report.ServeMetrics(ctx, addr, "x", sample(), nil) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(words string) net.Conn {
		var c net.Conn
		for end := time.Now().Add(10 * time.Second); c == nil; time.Sleep(10 * time.Millisecond) { // until it listens
			if c, err = net.Dial("tcp", addr); err != nil && time.Now().After(end) {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, words)
		return c
	}
}

// TestMetricsOfACrowd: strangers without the token have the agent hold few connections,
// and are in nobody's way when they are gone.
func TestMetricsOfACrowd(t *testing.T) {
	say := serveMetrics(t)
	answered := func(c net.Conn, patience time.Duration) bool {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		n, _ := c.Read(make([]byte, 1))
		return n == 1
	}
	const beginning = "GET /metrics HTTP/1.1\r\nHost: x\r\n"
	const all = beginning + "Authorization: Bearer x\r\n\r\n"
	var crowd []net.Conn
	for range 15 {
		crowd = append(crowd, say(beginning))
	}
	if !answered(say(all), 9*time.Second) {
		t.Error("15 connections are all there are")
	}
	late := say(all)
	if answered(late, 50*time.Millisecond) {
		t.Error("17 connections are served at once")
	}
	for _, c := range crowd {
		c.Close()
	}
	if !answered(late, 10*time.Second) {
		t.Error("nobody is served afterwards")
	}
}

// TestMetricsOfPatientStrangers: who has no token does not keep a connection by asking again and again.
func TestMetricsOfPatientStrangers(t *testing.T) {
	say := serveMetrics(t)
	for _, line := range []string{"GET /metrics", "GET /", "PUT /metrics", "OPTIONS *"} {
		c := say(line + " HTTP/1.1\r\nHost: x\r\n\r\n")
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 4") {
			t.Errorf("%s: %q, %v", line, b, err)
		}
	}
}

func TestMetricsAddress(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0"} {
		if err := report.ServeMetrics(t.Context(), addr, "", sample(), nil); !errors.Is(err, report.ErrToken) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := report.ServeMetrics(t.Context(), "9100", "", sample(), nil); err == nil {
		t.Error("an address without a port")
	}
	for _, addr := range []string{":0", "127.0.0.1:0", "localhost:0"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := report.ServeMetrics(ctx, addr, "", sample(), nil); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
