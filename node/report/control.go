package report

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// SocketName is the control socket's name in the data directory.
const SocketName = "control.sock"

// maxPath is the longest socket path the system takes, in bytes; a longer one is
// reached through the descriptor of its directory.
const maxPath = 107

// maxAnswer bounds what a Client reads, in bytes.
const maxAnswer = 16 << 20

var (
	// ErrNotRunning reports that no agent serves the data directory.
	ErrNotRunning = errors.New("report: no agent runs on this data directory")
	// ErrToken reports an address that strangers reach, without a token to keep
	// them out.
	ErrToken = errors.New("report: metrics beyond loopback need a token")
)

// Backend is what the control socket asks. Its methods are called concurrently.
type Backend interface {
	Status() Status
	Peers() []Peer
	// Check looks for a release now and returns when that is known; it ends with ctx.
	Check(ctx context.Context) (CheckResult, error)
	// Retry forgets which releases were refused: they are tried again.
	Retry() error
	// Plan tells what the site would bring for the channel's newest release.
	Plan() (Plan, error)
}

// Serve answers on the control socket in the data directory until ctx ends. A
// socket that an earlier agent left behind is replaced; that no other agent uses
// the directory is for the caller to know. Requests under way end with ctx.
func Serve(ctx context.Context, data string, b Backend, log *slog.Logger) error {
	l, err := listen(data)
	if err != nil {
		return fmt.Errorf("report: control socket: %w", err)
	}
	err = serve(ctx, l, Handler(b), log)
	if e := os.Remove(filepath.Join(data, SocketName)); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("report: remove control socket: %w", e))
	}
	return err
}

func serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	s := &http.Server{Handler: h, DisableGeneralOptionsHandler: true, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	if log != nil {
		s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	}
	end := context.AfterFunc(ctx, func() { s.Close() })
	err := s.Serve(l)
	if !end() && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// maxScrapers bounds what who has no token can have of the agent's memory and files.
const maxScrapers = 16

// ServeMetrics answers GET /metrics on addr (host:port) until ctx ends. Without a
// host it binds to loopback. It serves maxScrapers connections at a time. Where token is
// not empty, requests must carry it as "Authorization: Bearer TOKEN", or are the last of
// their connection; beyond loopback a token is a must, ErrToken.
func ServeMetrics(ctx context.Context, addr, token string, b Backend, log *slog.Logger) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("report: metrics address: %w", err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); token == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%w: %s", ErrToken, addr)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return fmt.Errorf("report: metrics: %w", err)
	}
	return serve(ctx, netutil.LimitListener(l, maxScrapers), MetricsHandler(token, b), log)
}

// MetricsHandler is what ServeMetrics answers with.
func MetricsHandler(token string, b Backend) http.Handler {
	want := sha256.Sum256([]byte("Bearer " + token))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", metricsHandler(b))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // nothing is asked with a body: a stranger's is not waited for
			w.Header().Set("Connection", "close")
			_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // of HTTP/1 it does
		}
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if token != "" && subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("Connection", "close") // it is for others, whatever is asked next
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a token is needed", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// Handler returns the control socket's HTTP handler.
func Handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s := b.Status()
		s.Format = StatusFormat
		answer(w, s, nil)
	})
	mux.HandleFunc("GET /peers", func(w http.ResponseWriter, _ *http.Request) {
		ps := b.Peers()
		if ps == nil {
			ps = []Peer{}
		}
		answer(w, ps, nil)
	})
	mux.HandleFunc("POST /check", func(w http.ResponseWriter, r *http.Request) {
		res, err := b.Check(r.Context())
		answer(w, res, err)
	})
	mux.HandleFunc("GET /plan", func(w http.ResponseWriter, _ *http.Request) {
		p, err := b.Plan()
		answer(w, p, err)
	})
	mux.HandleFunc("POST /retry", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, struct{}{}, b.Retry())
	})
	mux.HandleFunc("GET /metrics", metricsHandler(b))
	return mux
}

// Kinds of a Failure.
const (
	KindOther       = ""
	KindUnreachable = "unreachable" // the origin or a device does not answer
	KindNotFound    = "not-found"   // there is no such release
	KindUntrusted   = "untrusted"   // bytes, a signature or a date are not what they should be
)

// Failure is what an agent could not do, as those who asked for it get to know it.
// A Backend may return one; all other errors become one of KindOther.
type Failure struct {
	Text string `json:"error"`
	Kind string `json:"kind,omitempty"`
	Hint string `json:"hint,omitempty"` // what a person can do
	Err  error  `json:"-"`              // the cause; it stays in the agent
}

func (f *Failure) Error() string { return f.Text }
func (f *Failure) Unwrap() error { return f.Err }

func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		var f *Failure
		if !errors.As(err, &f) {
			f = &Failure{Text: err.Error()}
		}
		v = f
	}
	b, err := json.Marshal(v)
	if err != nil {
		return // our own types always marshal
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client has gone: nobody to tell
}

// short returns a path of the socket name in dir that fits the system's limit;
// done releases it.
func short(dir, name string) (path string, done func(), err error) {
	path = filepath.Join(dir, name)
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), func() { unix.Close(fd) }, nil
}

// listen makes the control socket. It is bound in a directory that nobody else may
// enter and gets its name when its mode is set, so that it is never open to others
// and takes the place of an old one in one step.
func listen(data string) (net.Listener, error) {
	private := filepath.Join(data, ".control")
	if err := errors.Join(os.RemoveAll(private), os.Mkdir(private, 0o700)); err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	path, done, err := short(private, "s")
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it has another name by then
	if err := errors.Join(os.Chmod(path, 0o600), os.Rename(path, filepath.Join(data, SocketName))); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Client asks the agent of a data directory. It is safe for concurrent use.
type Client struct{ http http.Client }

// Dial returns a Client for the agent of the data directory; it connects when it
// is used.
func Dial(data string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		path, done, err := short(data, SocketName)
		if err != nil {
			return nil, err
		}
		defer done()
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

func (c *Client) do(ctx context.Context, method, path string, v any) error {
	b, err := c.raw(ctx, method, path)
	if err != nil {
		return err
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(v); err != nil {
		return fmt.Errorf("report: answer of the agent: %w", err)
	}
	return nil
}

func (c *Client) raw(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	res, err := c.http.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	if err != nil {
		return nil, fmt.Errorf("report: ask the agent: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("report: ask the agent: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		f := new(Failure)
		if json.Unmarshal(b, f) != nil || f.Text == "" {
			f.Text = res.Status
		}
		return nil, f
	}
	return b, nil
}

// Status asks for the device's status.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.do(ctx, http.MethodGet, "/status", &s)
	return s, err
}

// Peers asks for the connected devices.
func (c *Client) Peers(ctx context.Context) (p []Peer, err error) {
	err = c.do(ctx, http.MethodGet, "/peers", &p)
	return p, err
}

// Check has the agent look for a release now; that may take minutes. When ctx ends,
// the agent's look ends too.
func (c *Client) Check(ctx context.Context) (r CheckResult, err error) {
	err = c.do(ctx, http.MethodPost, "/check", &r)
	return r, err
}

// Retry has the agent try releases again that it refused.
func (c *Client) Retry(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/retry", new(struct{}))
}

// Plan asks what the site would bring for the channel's newest release.
func (c *Client) Plan(ctx context.Context) (p Plan, err error) {
	err = c.do(ctx, http.MethodGet, "/plan", &p)
	return p, err
}

// Metrics asks for the metrics as Prometheus text.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	b, err := c.raw(ctx, http.MethodGet, "/metrics")
	return string(b), err
}
