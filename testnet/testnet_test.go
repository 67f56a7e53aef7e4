package testnet_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updraft/testnet"
	"updraft/testnet/fixture"
)

const printed = `{"version": "2.0.0", "size": 1000, "full_bytes": 620, "metadata_bytes": 30, "artifacts": [
	{"full_bytes": 500, "new_bytes": 400, "patches": [{"base_version": "1.1.0", "bytes": 70}, {"base_version": "1.0.0", "bytes": 90}]},
	{"full_bytes": 120, "new_bytes": 0, "patches": []}]}`

func TestNeeded(t *testing.T) {
	var r testnet.Release
	if err := json.Unmarshal([]byte(printed), &r); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		held []string
		want int64
	}{
		{"nothing", nil, 30 + 500 + 120},
		{"newest base", []string{"1.1.0"}, 30 + 70},
		{"two bases, the smallest patch", []string{"1.0.0", "1.1.0"}, 30 + 70},
		{"older base", []string{"1.0.0"}, 30 + 90},
		{"a base without patch", []string{"0.1.0"}, 30 + 500},
		{"itself", []string{"2.0.0", "1.0.0"}, 0},
	} {
		held := map[string]bool{}
		for _, v := range c.held {
			held[v] = true
		}
		if got := r.Needed(held); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestSum(t *testing.T) {
	a := testnet.Rollout{Devices: 2, Converged: 2, UplinkBytes: 100, NeededBytes: 90, ReleaseBytes: 1000, LastS: 2, BoundS: 1,
		List: []testnet.Device{{Name: "dev1", Uplink: 100, Digest: "a", PeakRSS: 7}, {Name: "dev2", LAN: 100, Digest: "a"}}}
	b := testnet.Rollout{Devices: 2, Converged: 1, UplinkBytes: 10, NeededBytes: 9, ReleaseBytes: 1000, LastS: 1, BoundS: 0.5,
		List: []testnet.Device{{Name: "dev1", LAN: 10, Digest: "b", PeakRSS: 5, Converged: true}, {Name: "dev2", Uplink: 10, Digest: "a"}}}
	r := testnet.Sum(testnet.GroundLoopback, 5, []testnet.Rollout{a, b})
	if r.Devices != 2 || r.Converged != 1 || r.UplinkBytes != 110 || r.NeededBytes != 99 || r.ReleaseBytes != 2000 || r.LastS != 3 || r.BoundS != 1.5 {
		t.Errorf("%+v", r)
	}
	d := r.List[0]
	if len(r.List) != 2 || d.Uplink != 100 || d.LAN != 10 || d.Digest != "b" || !d.Converged || d.PeakRSS != 7 {
		t.Errorf("%+v", r.List)
	}
	b2, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"devices", "converged", "uplink_bytes", "needed_bytes", "release_bytes", "last_s", "bound_s", "list", "rollouts"} {
		if !strings.Contains(string(b2), `"`+field+`":`) {
			t.Errorf("no field %s in %s", field, b2)
		}
	}
}

func TestDigest(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-2, B.1
	if got, err := testnet.Digest(file); err != nil || got != abc {
		t.Errorf("%s, %v", got, err)
	}
	p := fixture.New(1, 50_000)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, d := range []string{a, b} {
		if err := fixture.WriteTree(d, p); err != nil {
			t.Fatal(err)
		}
	}
	want, err := testnet.Digest(a)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(b, link); err != nil {
		t.Fatal(err)
	}
	if got, err := testnet.Digest(link); err != nil || got != want {
		t.Errorf("a copy behind a link: %s, %v, want %s", got, err, want)
	}
	for name, change := range map[string]func() error{
		"mode":    func() error { return os.Chmod(filepath.Join(b, "bin/app"), 0o700) },
		"content": func() error { return os.WriteFile(filepath.Join(b, "etc/app.conf"), []byte("x"), 0o644) },
		"link":    func() error { return os.Remove(filepath.Join(b, "app")) },
	} {
		before, _ := testnet.Digest(b)
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if got, err := testnet.Digest(b); err != nil || got == before {
			t.Errorf("%s: unnoticed, %v", name, err)
		}
	}
	if _, err := testnet.Digest(filepath.Join(dir, "none")); err == nil {
		t.Error("nothing has a digest")
	}
}

// program writes a shell script that stands for the program.
func program(t *testing.T, script string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{path}
}

// TestProgramFails checks that a program's words reach the caller, and that a site
// that cannot be made leaves nothing.
func TestProgramFails(t *testing.T) {
	dir := t.TempDir()
	_, err := testnet.New(t.Context(), testnet.Config{Program: program(t, "echo no fleet today >&2; exit 3"), Devices: 1, Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "no fleet today") {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := testnet.New(t.Context(), testnet.Config{Program: []string{"x"}, Dir: dir}); err == nil {
		t.Error("a site without devices")
	}
}

// TestAgentEnds checks that an agent that does not stay is reported with its log.
func TestAgentEnds(t *testing.T) {
	script := `case $1 in
	init) mkdir -p $2/origin;;
	agent) echo cannot listen here; exit 1;;
	esac`
	s, err := testnet.New(t.Context(), testnet.Config{Program: program(t, script), Devices: 2, Gateway: true, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := strings.Join(s.Nodes(), " "); got != "gw dev1 dev2" {
		t.Errorf("nodes: %s", got)
	}
	if err := s.Boot(t.Context(), "dev1"); err == nil || !strings.Contains(err.Error(), "cannot listen here") {
		t.Errorf("boot: %v", err)
	}
	if err := s.Settle(t.Context(), "dev2"); err == nil || !strings.Contains(err.Error(), "cannot listen here") {
		t.Errorf("settle: %v", err)
	}
	if err := s.Boot(t.Context(), "dev9"); err == nil {
		t.Error("booted a device that is not there")
	}
	if _, err := s.Rollout(t.Context(), &testnet.Release{Version: "1"}, testnet.RolloutOptions{}); err == nil {
		t.Error("a rollout to nobody")
	}
	if s.Ground() != testnet.GroundLoopback || s.Lab() != nil || s.Uplink() != 0 {
		t.Error("not on loopback")
	}
}

// TestClose checks that agents that do not want to end are ended, and that waiting
// for them can be.
func TestClose(t *testing.T) {
	script := `case $1 in
	init) mkdir -p $2/origin;;
	agent) trap '' TERM; echo $$ > $5.pid; while :; do sleep 1; done;;
	esac`
	dir := t.TempDir()
	s, err := testnet.New(t.Context(), testnet.Config{Program: program(t, script), Devices: 1, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Boot(ctx, "dev1"); err == nil {
		t.Error("booted in no time, and nobody answered")
	}
	pid, err := os.ReadFile(s.Data("dev1") + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error("the second time:", err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err == nil {
		t.Error("the agent is still there")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
