package origin_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"updraft/swarm/origin"
)

// nginxConf is all that is needed to serve an origin with nginx.
const nginxConf = `
daemon off;
pid %[1]s/nginx.pid;
error_log stderr error;
worker_processes 1;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f;
	uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server { listen %[2]s; root %[3]s; }
}
`

// nginx starts the system's nginx on loopback for the tree at dir.
func nginx(t *testing.T, dir string) (url string, stop func()) {
	t.Helper()
	bin, err := exec.LookPath("nginx")
	if err != nil {
		if bin, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("nginx is not installed: the test against a real web server needs it")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	// Its workers may run as another user: the temporary directory must let them in.
	prefix := t.TempDir()
	for p := dir; p != "/" && p != os.TempDir(); p = filepath.Dir(p) {
		os.Chmod(p, 0o755)
	}
	conf := filepath.Join(prefix, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, prefix, addr, dir), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(bin, "-p", prefix, "-c", conf)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}
	for range 100 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return "http://" + addr, stop
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	t.Skipf("nginx does not start here: %s", out.String())
	return "", nil
}

func TestNginx(t *testing.T) {
	data := noise(3 << 20)
	const meta = "metadata/timestamp.json"
	dir := tree(t, map[string][]byte{pack: data, meta: []byte(`{"v":1}`)})
	url, stop := nginx(t, dir)
	defer stop()
	c := client(t, origin.ClientOptions{}, url)
	check(t, c, data, pieces(len(data), 50_000, 0))
	check(t, c, data, pieces(len(data), 10_000, 100_000))
	for range 3 {
		if b, err := c.Get(t.Context(), meta, 100); err != nil || string(b) != `{"v":1}` {
			t.Fatalf("Get: %q, %v", b, err)
		}
	}
	if _, err := c.Get(t.Context(), "metadata/2.root.json", 100); !errors.Is(err, origin.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	err := c.Ranges(t.Context(), pack, int64(len(data))+1, []origin.Range{{0, 10}}, func(int, []byte) error { return nil })
	if !errors.Is(err, origin.ErrChanged) {
		t.Errorf("wrong size: %v", err)
	}
	stop()
	c = client(t, origin.ClientOptions{Retries: 1}, url)
	if _, err := c.Get(t.Context(), meta, 100); !errors.Is(err, origin.ErrUnreachable) {
		t.Errorf("stopped: %v", err)
	}
}
