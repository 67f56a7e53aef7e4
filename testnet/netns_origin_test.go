//go:build netns

package testnet_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/testnet"
)

// nginxConf is all that nginx needs to be an origin.
const nginxConf = `
daemon off; worker_processes 1; error_log stderr;
pid %[1]s/nginx.pid;
events { worker_connections 64; }
http {
	access_log off; sendfile on;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	server { listen {addr}; root {dir}; }
}
`

// TestNetnsNginx rolls a patch and a large file out from nginx instead of the
// program's own server.
func TestNetnsNginx(t *testing.T) {
	t.Parallel()
	in := prepare(t)
	bin, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "nginx.conf")
	// The address is known only when the site is made: a shell fills it in.
	script := fmt.Sprintf("cat >%s <<'END'\nuser root;%s\nEND\nexec %s -c %s", conf, fmt.Sprintf(nginxConf, dir), bin, conf)
	s := site(t, in, testnet.Config{Devices: 4, Gateway: true, Server: []string{"sh", "-c", script}})
	publish(t, s, "1.0.0", in.old)
	if err := s.Settle(t.Context(), "dev1", "dev2"); err != nil {
		t.Fatal(err)
	}
	boot(t, s)
	for i, path := range []string{in.fresh, in.large} {
		version := fmt.Sprintf("%d.0.0", i+2)
		r := publish(t, s, version, path)
		out, err := s.Rollout(t.Context(), r, testnet.RolloutOptions{Timeout: 3 * time.Minute})
		if err != nil || out.Converged != out.Devices {
			t.Fatalf("%s: %v, %+v", version, err, out)
		}
		t.Logf("%s: uplink %d, needed %d, %.2f s", version, out.UplinkBytes, out.NeededBytes, out.LastS)
		if limit := out.NeededBytes*106/100 + 16<<10; out.UplinkBytes > limit {
			t.Errorf("%s: the uplink carried %d bytes, at most %d are allowed", version, out.UplinkBytes, limit)
		}
	}
}

// TestNetnsNoMulticast takes multicast away from one device: it says so, and gets
// the release nevertheless.
func TestNetnsNoMulticast(t *testing.T) {
	t.Parallel()
	in := prepare(t)
	s := site(t, in, testnet.Config{Devices: 3})
	r := publish(t, s, "1.0.0", in.old)
	cmd := s.Lab().Command(context.Background(), "dev3", "sh", "-c", "for i in /sys/class/net/*; do ip link set ${i##*/} multicast off; done")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	boot(t, s)
	out, err := s.Rollout(t.Context(), r, testnet.RolloutOptions{Timeout: 2 * time.Minute})
	if err != nil || out.Converged != 3 {
		t.Fatalf("%v, %+v", err, out)
	}
	for _, d := range out.List {
		named := strings.Contains(strings.Join(d.Problems, "\n"), "multicast")
		if t.Logf("%s: %d bytes over the uplink, problems %v", d.Name, d.Uplink, d.Problems); named != (d.Name == "dev3") {
			t.Errorf("%s: problems %v", d.Name, d.Problems)
		}
	}
}
