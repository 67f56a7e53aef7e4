package origin_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/swarm/origin"
)

// raw sends one request and returns status line, headers and body as they came.
func raw(t *testing.T, url, request string) (head, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s\r\nHost: x\r\nConnection: close\r\n\r\n", strings.ReplaceAll(request, "\n", "\r\n"))
	b, err := io.ReadAll(bufio.NewReader(conn))
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ = strings.Cut(string(b), "\r\n\r\n")
	return head, body
}

func TestServer(t *testing.T) {
	dir := tree(t, map[string][]byte{
		pack: []byte("0123456789"), "metadata/timestamp.json": []byte("{}"),
		"packs/.partial": []byte("secret"), ".keys/root": []byte("secret"),
	})
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "packs", "link")); err != nil {
		t.Fatal(err)
	}
	_, url := embedded(t, dir, origin.ServerOptions{})
	for _, c := range []struct{ request, status, header, body string }{
		{"GET /" + pack + " HTTP/1.1", "200", "Cache-Control: max-age=31536000, immutable", "0123456789"},
		{"GET /" + pack + " HTTP/1.1\nRange: bytes=2-4", "206", "Content-Range: bytes 2-4/10", "234"},
		{"GET /" + pack + " HTTP/1.1\nRange: bytes=-3", "206", "Content-Range: bytes 7-9/10", "789"},
		{"GET /" + pack + " HTTP/1.1\nRange: bytes=20-", "416", "Content-Range: bytes */10", "*"},
		{"GET /" + pack + " HTTP/1.1\nIf-None-Match: \"01234567\"", "304", "", ""},
		{"HEAD /" + pack + " HTTP/1.1", "200", "Content-Length: 10", ""},
		{"GET /metadata/timestamp.json HTTP/1.1", "200", "Cache-Control: no-cache", "{}"},
		{"GET /metadata/timestamp.json HTTP/1.1", "200", "Last-Modified: ", "{}"},
		{"POST /" + pack + " HTTP/1.1", "405", "Allow: GET, HEAD", ""},
		{"GET / HTTP/1.1", "404", "", ""},
		{"GET /packs HTTP/1.1", "404", "", ""},
		{"GET /packs/ HTTP/1.1", "404", "", ""},
		{"GET /packs/none HTTP/1.1", "404", "", ""},
		{"GET /packs/.partial HTTP/1.1", "404", "", ""},
		{"GET /.keys/root HTTP/1.1", "404", "", ""},
		{"GET /packs/link HTTP/1.1", "404", "", ""},
		{"GET /../../etc/passwd HTTP/1.1", "404", "", ""},
		{"GET /packs/%2e%2e/%2e%2e/x HTTP/1.1", "404", "", ""},
	} {
		head, body := raw(t, url, c.request)
		if !strings.HasPrefix(head, "HTTP/1.1 "+c.status) || !strings.Contains(head, c.header) || c.body != "*" && body != c.body {
			t.Errorf("%s:\n%s\n%q", c.request, head, body)
		}
	}
}

func TestServerMissingDir(t *testing.T) {
	if _, err := origin.NewServer(filepath.Join(t.TempDir(), "none"), origin.ServerOptions{}); err == nil {
		t.Error("no error")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := origin.Serve(t.Context(), l, "/nonexistent", origin.ServerOptions{}); err == nil {
		t.Error("no error")
	}
	if _, err := l.Accept(); err == nil {
		t.Error("listener left open")
	}
}

func TestServeReportsListenerFailure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := origin.Serve(t.Context(), l, t.TempDir(), origin.ServerOptions{}); err == nil {
		t.Error("no error")
	}
}

// TestServeWaitsForNobody: connections do not stay for a body that does not come, nor for
// an answer that nobody takes.
func TestServeWaitsForNobody(t *testing.T) {
	dir := tree(t, map[string][]byte{"metadata/small": []byte("x"), pack: make([]byte, 64<<20)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- origin.Serve(ctx, l, dir, origin.ServerOptions{Stuck: time.Second}) }()
	for _, method := range []string{"GET", "POST"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "%s /metadata/small HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", method)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 ") {
			t.Errorf("%s: %q, %v", method, b, err)
		}
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", pack)
	time.Sleep(3 * time.Second)
	if n, err := io.Copy(io.Discard, c); n >= 64<<20 {
		t.Errorf("after a time in which nothing was taken all came, %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

var _ http.Handler = (*origin.Server)(nil)
