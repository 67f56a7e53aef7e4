package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"time"
)

const (
	headerTimeout = 10 * time.Second // more than warmLife
	idleTimeout   = 3 * time.Minute
	stuckTimeout  = 5 * time.Minute
	// stopTimeout is how long Serve waits for answers under way when it ends.
	stopTimeout = time.Second
)

// Access is one request as the server saw it.
type Access struct {
	Remote string // address and port of the client
	Name   string // path below the root
	Status int
	Bytes  int64 // of the body
	Range  string
}

// ServerOptions configure a Server. The zero value is usable.
type ServerOptions struct {
	Access func(Access)  // called after each request, concurrently; may be nil
	Stuck  time.Duration // for Serve: a connection on which nothing of an answer is taken for so long is closed; 0: 5 min
	Log    *slog.Logger  // nil: silent
}

// Server serves a tree as plain files: GET and HEAD, ranges, strong ETags, no
// listings, no files or directories whose name begins with a dot. What is named by
// its digest may be cached for ever, all else must be asked for again. Symbolic
// links are followed inside the tree only. It is safe for concurrent use.
//
// Answers are small: less than 200 bytes of headers to a range request.
type Server struct {
	root     *os.Root
	access   func(Access)
	log      *slog.Logger
	requests atomic.Int64
	bytes    atomic.Int64
}

var _ http.Handler = (*Server)(nil)

// NewServer returns a server for the tree at dir. Close it after use.
func NewServer(dir string, o ServerOptions) (*Server, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	s := &Server{root: root, access: o.Access, log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Close releases the directory.
func (s *Server) Close() error { return s.root.Close() }

// Counters returns the requests answered and the bytes of the bodies sent.
func (s *Server) Counters() (requests, bytesOut int64) {
	return s.requests.Load(), s.bytes.Load()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 { // nothing is asked with a body: it is not waited for
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // of HTTP/1 it does
	}
	lean := &leanWriter{w: w}
	name := strings.TrimPrefix(r.URL.Path, "/")
	s.serve(lean, r, name)
	s.requests.Add(1)
	s.bytes.Add(lean.bytes)
	s.log.Debug("request", "remote", r.RemoteAddr, "name", name, "status", lean.status, "bytes", lean.bytes)
	if s.access != nil {
		s.access(Access{r.RemoteAddr, name, lean.status, lean.bytes, r.Header.Get("Range")})
	}
}

func (s *Server) serve(w *leanWriter, r *http.Request, name string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	f, st, err := s.file(name)
	if err != nil {
		refuse(w, http.StatusNotFound)
		return
	}
	defer f.Close()
	h := w.Header()
	h["Content-Type"] = nil // nothing needs it, and guessing it reads the file
	if immutable(name) {
		w.lean = true
		h.Set("Cache-Control", "max-age=31536000, immutable")
		// The name is the digest: eight digits of it tell versions apart.
		base := path.Base(name)
		h.Set("Etag", `"`+base[:min(8, len(base))]+`"`)
		http.ServeContent(w, r, "", time.Time{}, f)
		return
	}
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", fmt.Sprintf(`"%x-%x"`, st.ModTime().UnixNano(), st.Size()))
	http.ServeContent(w, r, "", st.ModTime(), f)
}

// file opens a regular file below the root.
func (s *Server) file(name string) (*os.File, os.FileInfo, error) {
	if err := validName(name); err != nil {
		return nil, nil, err
	}
	if name[0] == '.' || strings.Contains(name, "/.") {
		return nil, nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	st, err := s.root.Stat(name)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return nil, nil, err
	}
	f, err := s.root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	if st, err = f.Stat(); err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

func refuse(w http.ResponseWriter, status int) {
	w.Header()["Content-Type"] = nil
	w.WriteHeader(status)
}

// leanWriter leaves out headers that say nothing new and counts what is sent.
type leanWriter struct {
	w      http.ResponseWriter
	lean   bool // the object is immutable: its age does not matter
	status int
	bytes  int64
}

func (w *leanWriter) Header() http.Header { return w.w.Header() }

func (w *leanWriter) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	h := w.w.Header()
	if status != http.StatusOK {
		h.Del("Accept-Ranges")
	}
	if w.lean {
		h["Date"] = nil
	}
	w.w.WriteHeader(status)
}

func (w *leanWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	n, err := w.w.Write(b)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom lets the kernel copy the file where it can.
func (w *leanWriter) ReadFrom(r io.Reader) (int64, error) {
	w.WriteHeader(http.StatusOK)
	n, err := io.Copy(w.w, r)
	w.bytes += n
	return n, err
}

// stuckListener makes connections that do not wait for ever for who takes nothing.
type stuckListener struct {
	net.Listener
	after time.Duration
}

func (l stuckListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return stuckConn{c, l.after}, nil
}

type stuckConn struct {
	net.Conn
	after time.Duration
}

func (c stuckConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.after)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Serve answers requests on l for the tree at dir until ctx ends, then waits up to
// a second for answers under way. It closes l. It returns nil when ctx ended it.
func Serve(ctx context.Context, l net.Listener, dir string, o ServerOptions) error {
	s, err := NewServer(dir, o)
	if err != nil {
		l.Close()
		return err
	}
	defer s.Close()
	h := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	if o.Stuck <= 0 {
		o.Stuck = stuckTimeout
	}
	done := make(chan error, 1)
	go func() { done <- h.Serve(stuckListener{l, o.Stuck}) }()
	select {
	case err := <-done:
		return fmt.Errorf("origin: serve: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := h.Shutdown(grace); err != nil {
		h.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("origin: serve: %w", err)
	}
	return nil
}
