package origin_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"updraft/swarm/origin"
)

// silentFor waits until the client has heard nothing for d.
func silentFor(t *testing.T, c *origin.Client, d time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); c.Silent() < d; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("silent for %v", c.Silent())
		}
	}
}

// TestSilent: what counts is the time in which somebody waits for the origin, over all
// attempts, not what the caller takes for itself.
func TestSilent(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	more := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-answer
		w.Header().Set("Content-Range", "bytes 0-1/2")
		w.Header().Set("Content-Length", "2")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write([]byte("a"))
		w.(http.Flusher).Flush()
		<-more
		_, _ = w.Write([]byte("b"))
	}))
	t.Cleanup(srv.Close)
	c := client(t, origin.ClientOptions{}, srv.URL)
	if d := c.Silent(); d != 0 {
		t.Errorf("silent for %v, and nothing was asked", d)
	}
	done := make(chan error, 1)
	took := make(chan time.Duration, 2)
	go func() {
		done <- c.Ranges(t.Context(), pack, 2, []origin.Range{{Off: 0, Len: 1}, {Off: 1, Len: 1}}, func(int, []byte) error {
			time.Sleep(20 * time.Millisecond)
			took <- c.Silent()
			return nil
		})
	}()
	silentFor(t, c, 50*time.Millisecond)
	close(answer)
	first := <-took
	silentFor(t, c, 50*time.Millisecond)
	close(more)
	if second := <-took; first != 0 || second != 0 {
		t.Errorf("silent for %v and %v while the caller works", first, second)
	}
	if err := <-done; err != nil || c.Silent() != 0 {
		t.Errorf("%v; silent for %v at the end", err, c.Silent())
	}
}

// TestDripsAreSilence: a byte now and then, within a header or a body, is no answer.
func TestDripsAreSilence(t *testing.T) {
	t.Parallel()
	body := drips(t, 1, 20*time.Millisecond, noise(20_000))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for _, err := conn.Write([]byte("HTTP/1.1 200 OK\r\nX: ")); err == nil; _, err = conn.Write([]byte("x")) {
			time.Sleep(20 * time.Millisecond)
		}
	}()
	for _, url := range []string{body, "http://" + l.Addr().String()} {
		c := client(t, origin.ClientOptions{}, url)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			_, _ = c.Get(ctx, pack, 20_000)
			close(done)
		}()
		silentFor(t, c, time.Second)
		cancel()
		<-done
	}
}

// TestSilentOverAttempts: an origin that refuses again and again has said nothing.
func TestSilentOverAttempts(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := client(t, origin.ClientOptions{Retries: 4}, "http://"+l.Addr().String())
	done := make(chan error, 1)
	go func() {
		_, err := c.Get(t.Context(), "metadata/timestamp.json", 100)
		done <- err
	}()
	silentFor(t, c, 300*time.Millisecond) // longer than each of the first pauses
	if err := <-done; err == nil || c.Silent() != 0 {
		t.Errorf("%v; silent for %v at the end", err, c.Silent())
	}
}
