package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// leastBytes is what must come of a body in the idle time, and what must come for an
// origin not to count as silent: less is as good as nothing.
const leastBytes = 1 << 10

// errIdle is the cause of a request that was given up because next to nothing came.
var errIdle = errors.New("nothing, or next to nothing, came for too long")

// retryLater is an answer that asks for patience.
type retryLater struct {
	status string
	after  time.Duration // 0: not said
}

func (e *retryLater) Error() string { return "server answers " + e.status }

// server is a source over HTTP.
type server struct {
	base  *url.URL
	http  *http.Client
	agent string
	idle  time.Duration
	count *traffic
}

// traffic counts what passes between the client and its origins.
type traffic struct {
	in, out, requests atomic.Int64
	answer            atomic.Int64 // shortest time to an answer, in nanoseconds; 0: none has come
	silence           silence
}

// answered notes how long an answer took.
func (t *traffic) answered(d time.Duration) {
	for old := t.answer.Load(); old == 0 || int64(d) < old; old = t.answer.Load() {
		if t.answer.CompareAndSwap(old, max(int64(d), 1)) {
			return
		}
	}
}

// A read that found less than it had room for emptied the socket. The next one comes no sooner than readPause later, so
// that a download at the pace of a slow link does not wake the device for every segment. What comes meanwhile is
// acknowledged by the kernel, and waits there without a word unless it is readQuiet bytes.
const (
	readPause = 15 * time.Millisecond
	readQuiet = 64 << 10
	readLong  = 8 << 10 // shorter reads are of headers and small files
)

// countConn counts the bytes of a connection.
type countConn struct {
	net.Conn
	t     *traffic
	drawn time.Time // when the socket was emptied last; used by the reader
}

func (c *countConn) Read(b []byte) (int, error) {
	if d := readPause - time.Since(c.drawn); d > 0 {
		c.wake(readQuiet)
		time.Sleep(d)
		c.wake(1)
	}
	n, err := c.Conn.Read(b)
	c.t.in.Add(int64(n))
	c.t.silence.hear(n)
	if err == nil && n < len(b) && len(b) >= readLong {
		c.drawn = time.Now()
	}
	return n, err
}

// wake has the kernel tell of the connection when n bytes have come.
func (c *countConn) wake(n int) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := s.SyscallConn(); err == nil {
		// One that cannot be told wakes the device more often, nothing worse.
		_ = raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, n) })
	}
}

func (c *countConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.t.out.Add(int64(n))
	return n, err
}

func (s *server) String() string { return shown(s.base) }

// shown returns of an origin's URL what may be told: neither its user nor its query, which
// may hold a token.
func shown(u *url.URL) string {
	s := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
	if u.RawQuery != "" {
		s += "?..."
	}
	return s
}

// maxRedirects is how many redirects are followed for one request.
const maxRedirects = 5

// follow decides whether a redirect is followed. Who speaks for the origin over plain
// HTTP may be anybody on the way there: he must not have the devices of a site send
// requests to others, such as what else is on their LAN. Over HTTPS the origin itself says
// so, and is followed to HTTPS only. Where it leads does not learn the URL that led there,
// whose query may hold a token.
func follow(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	req.Header.Del("Referer")
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case from.Scheme == "https" && req.URL.Scheme == "https", req.URL.Host == from.Host && from.Scheme == "http",
		req.URL.Hostname() == from.Hostname() && from.Scheme == "http" && req.URL.Scheme == "https":
		return nil
	}
	return fmt.Errorf("it redirects to %s://%s: if that is right, name it as the origin", req.URL.Scheme, req.URL.Host)
}

// request builds the smallest request that does: no Accept-Encoding, no cookies.
func (s *server) request(ctx context.Context, q query) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base.JoinPath(q.name).String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %q cannot be part of a URL", ErrName, q.name)
	}
	req.Header.Set("User-Agent", s.agent)
	switch {
	case !q.whole():
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", q.off, q.end-1))
	case q.off > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", q.off))
	case q.etag != "":
		req.Header.Set("If-None-Match", q.etag)
	case q.modified != "":
		req.Header.Set("If-Modified-Since", q.modified)
	}
	return req, nil
}

func (s *server) open(ctx context.Context, q query) (*body, error) {
	defer s.count.silence.wait()()
	rctx, cancel := context.WithCancelCause(ctx)
	req, err := s.request(rctx, q)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	timer := time.AfterFunc(s.idle, func() { cancel(errIdle) })
	s.count.requests.Add(1)
	asked := time.Now()
	resp, err := s.http.Do(req) //nolint:bodyclose // idleBody closes it
	timer.Stop()
	if err == nil {
		s.count.answered(time.Since(asked))
		s.count.silence.hear(leastBytes)
	}
	if err != nil {
		err = s.reason(ctx, rctx, err)
		cancel(nil)
		return nil, err
	}
	r := &idleBody{rc: resp.Body, ctx: func(err error) error { return s.reason(ctx, rctx, err) },
		cancel: cancel, timer: timer, idle: s.idle, left: s.idle, silence: &s.count.silence}
	b, err := s.judge(resp, q)
	if err != nil {
		// A short refusal is read to its end, to keep the connection.
		_, _ = io.CopyN(io.Discard, r, 4<<10)
		r.Close()
		return nil, err
	}
	b.ReadCloser = r
	return b, nil
}

// reason turns an error of a request into one of this package, which does not tell the
// URL that was asked for.
func (s *server) reason(ctx, rctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err
	}
	if cause := context.Cause(rctx); errors.Is(cause, errIdle) {
		err = cause
	}
	return fmt.Errorf("%w: %s: %w", ErrUnreachable, s, err)
}

// judge decides what an answer means before its body is read.
func (s *server) judge(resp *http.Response, q query) (*body, error) {
	b := &body{etag: resp.Header.Get("Etag"), modified: resp.Header.Get("Last-Modified")}
	where := func() string { return q.name + " at " + s.String() }
	switch resp.StatusCode {
	case http.StatusOK:
		b.total = resp.ContentLength
		b.end = b.total
		if q.size >= 0 && b.total >= 0 && b.total != q.size {
			return nil, fmt.Errorf("%w: %s has %d bytes, not %d", ErrChanged, where(), b.total, q.size)
		}
		if b.end < 0 && q.size >= 0 {
			b.end = q.size
		}
		return b, nil
	case http.StatusPartialContent:
		return b, b.partial(resp, q, where())
	case http.StatusNotModified:
		b.unchanged = true
		return b, nil
	case http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		// Buckets answer 403 for what does not exist when they may not be listed.
		return nil, fmt.Errorf("%w: %s: %s", ErrNotFound, where(), resp.Status)
	case http.StatusRequestedRangeNotSatisfiable:
		return nil, fmt.Errorf("%w: %s: %s", ErrChanged, where(), resp.Status)
	}
	later := &retryLater{status: resp.Status}
	if sec, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && sec > 0 {
		later.after = time.Duration(min(sec, 3600)) * time.Second
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, where(), later)
}

// partial checks a 206 answer against what was asked.
func (b *body) partial(resp *http.Response, q query, where string) error {
	header := resp.Header.Get("Content-Range")
	start, end, total, ok := parseContentRange(header)
	if !ok || start != q.off || !q.whole() && end > q.end || resp.ContentLength >= 0 && resp.ContentLength != end-start {
		return fmt.Errorf("%w: %s answers %q to bytes %d to %d", ErrUnreachable, where, header, q.off, q.end-1)
	}
	if q.size >= 0 && total >= 0 && total != q.size {
		return fmt.Errorf("%w: %s has %d bytes, not %d", ErrChanged, where, total, q.size)
	}
	b.start, b.end, b.total = start, end, total
	return nil
}

// parseContentRange reads "bytes a-b/total" as [a, b+1) of total; total is -1
// for "*".
func parseContentRange(s string) (start, end, total int64, ok bool) {
	span, found := strings.CutPrefix(s, "bytes ")
	span, size, found2 := strings.Cut(span, "/")
	first, last, found3 := strings.Cut(span, "-")
	if !found || !found2 || !found3 {
		return 0, 0, 0, false
	}
	start, err := decimal(first)
	end, err2 := decimal(last)
	total, err3 := int64(-1), error(nil)
	if size != "*" {
		total, err3 = decimal(size)
	}
	if errors.Join(err, err2, err3) != nil || end < start || total >= 0 && end >= total {
		return 0, 0, 0, false
	}
	return start, end + 1, total, true
}

// decimal reads a number of digits only, below 2^62.
func decimal(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 62)
	return int64(n), err
}

// idleBody gives up when less than leastBytes come in the idle time and the body does not
// end. Time between reads does not count: it is the reader's own.
type idleBody struct {
	rc     io.ReadCloser
	ctx    func(error) error // translates errors
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration
	left   time.Duration // for the rest of leastBytes
	got    int           // of them

	silence *silence
}

func (b *idleBody) Read(p []byte) (int, error) {
	defer b.silence.wait()()
	begin := time.Now()
	b.timer.Reset(b.left)
	n, err := b.rc.Read(p)
	b.timer.Stop()
	b.left -= time.Since(begin)
	if b.got += n; b.got >= leastBytes {
		b.got, b.left = 0, b.idle
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.ctx(err)
	}
	return n, err
}

func (b *idleBody) Close() error {
	b.timer.Stop()
	err := b.rc.Close()
	b.cancel(nil)
	return err
}
