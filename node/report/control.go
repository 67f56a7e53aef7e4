package report

import (
	"bytes"
	"context"
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
)

// SocketName is the control socket's name in the data directory.
const SocketName = "control.sock"

// maxPath is the longest socket path the system takes; a longer one is reached
// through the descriptor of its directory.
const maxPath = 100

// maxAnswer bounds what a Client reads, in bytes.
const maxAnswer = 16 << 20

// ErrNotRunning reports that no agent serves the data directory.
var ErrNotRunning = errors.New("report: no agent runs on this data directory")

// Backend is what the control socket asks. Its methods are called concurrently.
type Backend interface {
	Status() Status
	Peers() []Peer
	// Check looks for a release now and returns when that is known; it ends with ctx.
	Check(ctx context.Context) (CheckResult, error)
}

// Serve answers on the control socket in the data directory until ctx ends. A
// socket that an earlier agent left behind is replaced.
func Serve(ctx context.Context, data string, b Backend, log *slog.Logger) error {
	path := filepath.Join(data, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("report: remove old control socket: %w", err)
	}
	l, err := listen(data)
	if err != nil {
		return fmt.Errorf("report: control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("report: control socket: %w", err), l.Close())
	}
	err = serve(ctx, l, Handler(b), log)
	return errors.Join(err, removeSocket(path))
}

func removeSocket(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("report: remove control socket: %w", err)
	}
	return nil
}

func serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
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

// ServeMetrics answers GET /metrics on addr until ctx ends. Without a host it
// binds to loopback.
func ServeMetrics(ctx context.Context, addr string, b Backend, log *slog.Logger) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("report: metrics address: %w", err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return fmt.Errorf("report: metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", metricsHandler(b))
	return serve(ctx, l, mux, log)
}

// Handler returns the control socket's HTTP handler.
func Handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, b.Status(), nil) })
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
	mux.HandleFunc("GET /metrics", metricsHandler(b))
	return mux
}

type failure struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		v = failure{err.Error()}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return // our own types always marshal
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client has gone: nobody to tell
}

// short returns a path of dir's socket that fits the system's limit; done
// releases it.
func short(dir string) (path string, done func(), err error) {
	path = filepath.Join(dir, SocketName)
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), SocketName), func() { f.Close() }, nil
}

func listen(dir string) (net.Listener, error) {
	path, done, err := short(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the name may be one that is gone by then
	return l, nil
}

// Client asks the agent of a data directory. It is safe for concurrent use.
type Client struct{ http http.Client }

// Dial returns a Client for the agent of the data directory; it connects when it
// is used.
func Dial(data string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		path, done, err := short(data)
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
		var f failure
		if json.Unmarshal(b, &f) != nil || f.Error == "" {
			f.Error = res.Status
		}
		return nil, errors.New(f.Error)
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

// Check has the agent look for a release now.
func (c *Client) Check(ctx context.Context) (r CheckResult, err error) {
	err = c.do(ctx, http.MethodPost, "/check", &r)
	return r, err
}

// Metrics asks for the metrics as Prometheus text.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	b, err := c.raw(ctx, http.MethodGet, "/metrics")
	return string(b), err
}
