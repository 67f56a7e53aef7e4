package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"updraft/swarm/limit"
)

const (
	defaultIdle    = 30 * time.Second
	defaultRetries = 6
	dialTimeout    = 10 * time.Second
	// patience is how long a call goes on without a byte, whatever the retries.
	patience = 45 * time.Second
	// The pause before the n-th retry is firstPause·2ⁿ, at most lastPause, ± 25 %.
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	// A source that is distrusted is not asked for doubtFor, unless the others fail: while
	// one of them is left, not before doubtTries failures in a row.
	doubtFor   = time.Hour
	doubtTries = 3
	// slowCall is how long a call goes on without progress, at least, before its end by the
	// deadline speaks against the source.
	slowCall = time.Second
	// A body of the cache is kept for conditional requests only.
	cacheEntries = 64
	cacheBytes   = 1 << 20
)

// ClientOptions configure a Client. The zero value is usable.
type ClientOptions struct {
	Limiter   *limit.Limiter // rate of bodies; nil: unlimited
	UserAgent string         // sent with each request; empty: "updraft"
	Idle      time.Duration  // a request that brings less than 1 KiB, and does not end, in so long is given up; 0: 30 s
	Retries   int            // attempts without progress after the first one; 0: 6 (about 6 s), negative: none
	TLS       *tls.Config    // for https, not changed; nil: the system's roots
	Log       *slog.Logger   // nil: silent
}

// Client reads from one or more origins that hold the same tree: it stays with
// one as long as it answers and takes the next when it does not, when it is told that
// what came is wrong (Distrust), or when a call made no progress until its context ended
// by its deadline or with a cause that is ErrUnreachable. It is safe for concurrent use.
type Client struct {
	sources []source
	lim     *limit.Limiter
	retries int
	log     *slog.Logger
	count   traffic
	idle    func() // closes idle connections
	warm    stash

	mu     sync.Mutex  // guards all below
	last   int         // the source that answered last
	sent   []time.Time // when each source sent something last
	doubts []time.Time // when each source was distrusted or put off last
	cache  map[cacheKey]*cached
	order  []cacheKey // oldest first
	bytes  int
}

type cacheKey struct {
	source int
	name   string
}

type cached struct {
	etag, modified string
	body           []byte
}

// NewClient returns a client for the origins at urls, in order of preference:
// http:// and https:// URLs, file:// URLs or paths of directories.
func NewClient(urls []string, o ClientOptions) (*Client, error) {
	if len(urls) == 0 {
		return nil, errors.New("origin: no URL given")
	}
	c := &Client{lim: o.Limiter, retries: o.Retries, log: o.Log, cache: map[cacheKey]*cached{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.retries == 0 {
		c.retries = defaultRetries
	}
	tr := c.transport(o.TLS)
	c.idle = tr.CloseIdleConnections
	for _, raw := range urls {
		s, err := c.source(raw, o, &http.Client{Transport: tr, CheckRedirect: follow})
		if err != nil {
			return nil, err
		}
		c.sources = append(c.sources, s)
	}
	c.sent, c.doubts = make([]time.Time, len(urls)), make([]time.Time, len(urls))
	return c, nil
}

func (c *Client) source(raw string, o ClientOptions, h *http.Client) (source, error) {
	if !strings.Contains(raw, "://") {
		return dir(raw), nil
	}
	u, err := url.Parse(raw)
	if err != nil { // which tells the URL, that may hold a token
		scheme, _, _ := strings.Cut(raw, "://")
		return nil, fmt.Errorf("origin: what begins with %.20q is no URL", scheme+"://")
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" && u.Host != "localhost" {
			return nil, fmt.Errorf("origin: %s: a file URL names no host", shown(u))
		}
		return dir(u.Path), nil
	case "http", "https":
		if u.Host == "" {
			return nil, fmt.Errorf("origin: %s: no host", shown(u))
		}
	default:
		return nil, fmt.Errorf("origin: %s: scheme is not http, https or file", shown(u))
	}
	s := &server{base: u, http: h, agent: o.UserAgent, idle: o.Idle, count: &c.count}
	if s.agent == "" {
		s.agent = "updraft"
	}
	if s.idle <= 0 {
		s.idle = defaultIdle
	}
	return s, nil
}

// transport is HTTP/1.1 over few, long-lived connections whose bytes are counted. Those
// after the first resume its TLS session: a handshake in full is 3 to 5 kB, of each lane.
func (c *Client) transport(conf *tls.Config) *http.Transport {
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	} else {
		conf = conf.Clone()
	}
	if conf.ClientSessionCache == nil {
		conf.ClientSessionCache = new(sessions)
	}
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	c.warm.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countConn{Conn: conn, t: &c.count}, nil
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            c.warm.get,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    dialTimeout,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    2 * laneMost,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 16 << 10,
		ReadBufferSize:         32 << 10,
	}
}

// Counters returns the bytes received from origins, with all headers, and the
// requests made. Bytes from directories are not counted.
func (c *Client) Counters() (bytesIn, requests int64) {
	return c.count.in.Load(), c.count.requests.Load()
}

// BytesOut returns the bytes sent to origins.
func (c *Client) BytesOut() int64 { return c.count.out.Load() }

// Far reports whether no origin has answered soon yet: it is far away, as over a
// satellite, or has not been asked.
func (c *Client) Far() bool {
	d := time.Duration(c.count.answer.Load())
	return d == 0 || d >= laneFar
}

// Close closes idle connections. Calls under way are not touched.
func (c *Client) Close() {
	c.idle()
	c.warm.close()
}

// Get returns a whole small object of at most limit bytes. Objects that can
// change are asked for conditionally: when the origin says that the body is the
// one it sent before, that one is returned. The result is the caller's.
//
// An error wraps ErrNotFound, ErrTooLarge, ErrUnreachable, ErrName or ctx.Err.
func (c *Client) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := validName(name); err != nil {
		return nil, err
	}
	defer c.count.silence.begin()()
	var got []byte
	a := c.attempts()
	for {
		b, err := c.get(ctx, a.source, name, limit, got)
		if err == nil {
			a.success()
			return b, nil
		}
		progress := immutable(name) && len(b) > len(got)
		if progress {
			a.part()
		}
		if immutable(name) {
			got = b
		}
		if err := a.failed(ctx, err, progress, optional(name)); err != nil {
			return nil, fmt.Errorf("get %s: %w", name, err)
		}
	}
}

// get makes one attempt to complete got; with an error it returns what it has.
func (c *Client) get(ctx context.Context, src int, name string, limit int64, got []byte) ([]byte, error) {
	q := query{name: name, off: int64(len(got)), end: -1, size: -1}
	key := cacheKey{src, name}
	old := c.recall(key)
	if old != nil {
		q.etag, q.modified = old.etag, old.modified
	}
	b, err := c.sources[src].open(ctx, q)
	if err != nil {
		return got, err
	}
	defer b.Close()
	if b.unchanged {
		if old == nil {
			return got, fmt.Errorf("%w: %s answers not modified to a plain request", ErrUnreachable, c.sources[src])
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(b, 1))
		return append([]byte(nil), old.body...), nil
	}
	if b.total > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, limit %d", ErrTooLarge, name, b.total, limit)
	}
	got, err = c.readAll(ctx, b, got[:b.start], limit)
	if err == nil && !immutable(name) {
		c.remember(key, &cached{b.etag, b.modified, append([]byte(nil), got...)})
	}
	return got, err
}

func (c *Client) readAll(ctx context.Context, b *body, got []byte, most int64) ([]byte, error) {
	r := io.LimitReader(limit.Reader(ctx, b, c.lim), most+1-int64(len(got)))
	for {
		if len(got) == cap(got) {
			got = append(got, 0)[:len(got)]
		}
		n, err := r.Read(got[len(got):cap(got)])
		got = got[:len(got)+n]
		if int64(len(got)) > most {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, most)
		}
		if errors.Is(err, io.EOF) {
			if want := max(b.end, b.total); want >= 0 && int64(len(got)) != want {
				return got, fmt.Errorf("%w: body ends after %d of %d bytes", ErrUnreachable, len(got), want)
			}
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
}

func (c *Client) recall(key cacheKey) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cache[key]
}

// remember keeps a body that came with a validator.
func (c *Client) remember(key cacheKey, e *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked(key)
	if e.etag == "" && e.modified == "" || len(e.body) > cacheBytes/2 {
		return
	}
	for len(c.order) > 0 && (len(c.order) >= cacheEntries || c.bytes+len(e.body) > cacheBytes) {
		c.forgetLocked(c.order[0])
	}
	c.cache[key] = e
	c.order = append(c.order, key)
	c.bytes += len(e.body)
}

func (c *Client) forgetLocked(key cacheKey) {
	old := c.cache[key]
	if old == nil {
		return
	}
	delete(c.cache, key)
	c.bytes -= len(old.body)
	for i, k := range c.order {
		if k == key {
			c.order = append(c.order[:i], c.order[i+1:]...)
			return
		}
	}
}

// Distrust tells that what came since a time is not what was published. Calls from now
// on begin at another origin than those that have sent something since, if there is one,
// and ask those only after the others have failed or an hour has passed. If there is
// none, they begin at the one that was distrusted first or, of several at once, answered
// last: what is wrong when it comes of several origins is tried with one alone.
func (c *Client) Distrust(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for i, s := range c.sources {
		if c.sent[i].Before(since) {
			continue
		}
		if c.doubts[i] = now; len(c.sources) > 1 {
			c.log.Warn("origin is asked last from now on", "origin", s.String())
		}
	}
}

// putOff has calls begin at another source than one that let a call's time go by.
func (c *Client) putOff(source int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubts[source] = time.Now()
}

func (c *Client) doubtedLocked(source int) bool {
	return time.Since(c.doubts[source]) < doubtFor
}

// firstLocked returns the source to begin with: the one that answered last, or else the
// next that is not distrusted; when all are, the one that has been so for longest.
func (c *Client) firstLocked() int {
	longest := c.last
	for k := range c.sources {
		i := (c.last + k) % len(c.sources)
		if !c.doubtedLocked(i) {
			return i
		}
		if c.doubts[i].Before(c.doubts[longest]) {
			longest = i
		}
	}
	return longest
}

// attempts decides, for one call, which source is asked next and when to stop.
type attempts struct {
	c       *Client
	source  int
	bad     map[int]bool // sources that answered, but do not have it or cannot send it
	tries   int          // failures since the last progress
	since   time.Time    // the last progress
	refusal error        // what the first bad source said
}

func (c *Client) attempts() *attempts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &attempts{c: c, source: c.firstLocked(), bad: map[int]bool{}, since: time.Now()}
}

// success notes that the source has answered, whatever its bytes are worth. When the
// others have failed it is as good as they are, although it was distrusted.
func (a *attempts) success() {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	if a.tries > 0 {
		a.c.doubts[a.source] = time.Time{}
	}
	a.c.last, a.c.sent[a.source] = a.source, time.Now()
	a.tries, a.since = 0, time.Now()
}

// part notes that the source has sent something, though not all.
func (a *attempts) part() {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	a.c.sent[a.source] = time.Now()
}

// failed takes the error of an attempt; it returns nil when another one is worth
// making, after the pause that is due, and what to report otherwise. final says
// that a source which does not have the object settles the matter.
func (a *attempts) failed(ctx context.Context, err error, progress, final bool) error {
	switch {
	case ctx.Err() != nil:
		late := errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(context.Cause(ctx), ErrUnreachable)
		if late && time.Since(a.since) >= slowCall {
			a.c.putOff(a.source)
		}
		return ctx.Err()
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrChanged), errors.Is(err, ErrTooLarge), errors.Is(err, ErrNoRanges):
		if a.bad[a.source] = true; a.refusal == nil {
			a.refusal = err
		}
		if final && errors.Is(err, ErrNotFound) || len(a.bad) == len(a.c.sources) {
			return a.refusal
		}
		a.next()
		return nil
	case !errors.Is(err, ErrUnreachable):
		return err
	}
	a.c.log.Debug("origin request failed", "origin", a.c.sources[a.source].String(), "err", err)
	if progress {
		a.tries, a.since = 0, time.Now()
	}
	a.tries++
	if a.tries > a.c.retries || time.Since(a.since) > patience {
		return err
	}
	a.next()
	var later *retryLater
	wait := min(firstPause<<(a.tries-1), lastPause)
	if errors.As(err, &later) && later.after > wait {
		if later.after > patience {
			return err
		}
		wait = later.after
	}
	defer a.c.count.silence.wait()()
	return pause(ctx, wait)
}

// next takes the following source that is not known to be of no use, and one that is
// distrusted only if there is no other or the others fail.
func (a *attempts) next() {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	doubted := -1
	for k := range a.c.sources {
		i := (a.source + 1 + k) % len(a.c.sources)
		switch {
		case a.bad[i]:
		case a.tries < doubtTries && a.c.doubtedLocked(i):
			if doubted < 0 {
				doubted = i
			}
		default:
			a.source = i
			return
		}
	}
	if doubted >= 0 {
		a.source = doubted
	}
}

// pause sleeps d ± 25 %, so that sites that failed together do not come back
// together.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d*3/4 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
