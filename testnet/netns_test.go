//go:build netns

package testnet_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"updraft/testnet"
	"updraft/testnet/fixture"
	"updraft/testnet/netns"
)

// The scenarios of this file run the real program in network namespaces: an uplink
// of 20 Mbit/s, a LAN of 100 Mbit/s, real multicast, real faults. They need root and
// are skipped without. UPDRAFT_OLD and UPDRAFT_NEW name a pair of releases to use
// instead of made-up ones, UPDRAFT_OLDER one before them.
//
//	go test -tags netns -run Netns -v ./testnet

const (
	uplink = 2_500_000
	lan    = 12_500_000
)

// inputs are the files that the scenarios roll out.
type inputs struct {
	program           []string
	older, old, fresh string // an application
	far               string // the same, as much changed as makes its patch 7 % of it
	large             string // 64 MiB that nothing makes smaller
}

func prepare(t *testing.T) inputs {
	t.Helper()
	if err := netns.Supported(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "updraft")
	build := exec.Command("go", "build", "-o", bin, "updraft/cmd/updraft")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	in := inputs{program: []string{bin}, old: os.Getenv("UPDRAFT_OLD"), fresh: os.Getenv("UPDRAFT_NEW"), older: os.Getenv("UPDRAFT_OLDER")}
	p := fixture.New(11, 16<<20)
	for path, q := range map[*string]*fixture.Program{&in.older: p.Edit(1, "0.9.0", 0.05), &in.old: p, &in.fresh: p.Edit(2, "2.0.0", 0.01),
		&in.far: p.Edit(3, "2.0.0", 0.12)} {
		if *path != "" {
			continue
		}
		f, err := os.CreateTemp(dir, "app-")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(q.Bytes()); err != nil {
			t.Fatal(err)
		}
		f.Close()
		*path = f.Name()
	}
	in.large = filepath.Join(dir, "large")
	f, err := os.Create(in.large)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fixture.Noise(f, 3, 64<<20); err != nil {
		t.Fatal(err)
	}
	return in
}

// base is a release that devices hold before the rollout.
type base struct {
	version string
	path    string
	devices []string
}

// scenario is a rollout and what it may cost.
type scenario struct {
	name    string
	devices int
	gateway bool
	bases   []base
	fresh   string
	options testnet.RolloutOptions
	ratio   float64 // uplink bytes / needed bytes, as frames
	spare   int64   // bytes on top
	written float64 // bytes written by each device / release; 0: not looked at
}

// TestNetnsRollouts measures rollouts on the link.
func TestNetnsRollouts(t *testing.T) {
	t.Parallel()
	in := prepare(t)
	everyone := []string{"dev1", "dev2", "dev3", "dev4", "dev5", "dev6", "dev7", "dev8"}
	const frames = 1.06 // TCP over Ethernet alone is 1.046
	const small = 16 << 10
	const flash = 1.01 // the release, its manifest and its indexes, once
	for _, c := range []scenario{
		{name: "patch for all", devices: 8, gateway: true, bases: []base{{"1.0.0", in.old, everyone}}, fresh: in.fresh, ratio: frames, spare: small},
		{name: "patch without gateway", devices: 8, bases: []base{{"1.0.0", in.old, everyone}}, fresh: in.fresh, ratio: frames, spare: small},
		{name: "one of ten has the base", devices: 10, bases: []base{{"1.0.0", in.old, everyone[:1]}}, fresh: in.far, ratio: frames, spare: small},
		{name: "two older versions", devices: 8, bases: []base{{"0.9.0", in.older, everyone[:1]}, {"1.0.0", in.old, everyone[1:2]}},
			fresh: in.fresh, ratio: frames, spare: small},
		{name: "large file", devices: 8, gateway: true, fresh: in.large, ratio: frames, written: flash},
		{name: "large file without gateway", devices: 8, fresh: in.large, ratio: frames, written: flash},
		{name: "holder killed", devices: 8, fresh: in.large, options: testnet.RolloutOptions{KillAt: 0.5}, ratio: frames, spare: 1 << 20},
		{name: "gateway killed", devices: 8, gateway: true, fresh: in.large, options: testnet.RolloutOptions{KillAt: 0.5}, ratio: frames, spare: 1 << 20},
		{name: "device killed", devices: 8, gateway: true, fresh: in.large,
			options: testnet.RolloutOptions{KillAt: 0.5, Kill: testnet.KillOther}, ratio: frames, spare: 1 << 20},
		{name: "all killed", devices: 8, gateway: true, fresh: in.large,
			options: testnet.RolloutOptions{KillAt: 0.5, Kill: testnet.KillAll}, ratio: frames, spare: 2 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, in)
		})
	}
}

func (c *scenario) run(t *testing.T, in inputs) {
	s := site(t, in, testnet.Config{Devices: c.devices, Gateway: c.gateway})
	for _, b := range c.bases {
		publish(t, s, b.version, b.path)
		if err := s.Settle(t.Context(), b.devices...); err != nil {
			t.Fatal(err)
		}
	}
	r := publish(t, s, "2.0.0", c.fresh)
	boot(t, s)
	o := c.options
	o.Timeout = 3 * time.Minute
	out, err := s.Rollout(t.Context(), r, o)
	if out != nil {
		t.Logf("uplink %d, needed %d: %.4f; last %.2f s, bound %.2f s: %.3f; killed %v", out.UplinkBytes, out.NeededBytes,
			out.UplinkRatio, out.LastS, out.BoundS, out.TimeRatio, out.Killed)
		for _, d := range out.List {
			t.Logf("  %-5s %6.2f s  uplink %9d  lan %9d  reused %9d  written %9d  cpu %.2f s  rss %d MB  %v", d.Name, d.Seconds, d.Uplink,
				d.LAN, d.Reused, d.Written, d.CPU, d.PeakRSS>>20, d.Problems)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if out.Converged != out.Devices {
		t.Errorf("%d of %d devices converged", out.Converged, out.Devices)
	}
	if limit := int64(c.ratio*float64(out.NeededBytes)) + c.spare; out.UplinkBytes > limit {
		t.Errorf("the uplink carried %d bytes, at most %d are allowed (%d needed)", out.UplinkBytes, limit, out.NeededBytes)
	}
	if c.written > 0 {
		wrote(t, s, out, c.written)
	}
	if c.options.KillAt > 0 && len(out.Killed) == 0 {
		t.Error("nobody was killed")
	}
}

// wrote checks what devices wrote that had nothing before, against ratio times the release: each by its own count, and
// half of them by the kernel's, which counts a page again that is written to after it went to the disk.
func wrote(t *testing.T, s *testnet.Site, out *testnet.Rollout, ratio float64) {
	t.Helper()
	limit := int64(ratio * float64(out.ReleaseBytes))
	var disk []int64
	for _, d := range out.List {
		st, err := s.Status(t.Context(), d.Name)
		t.Logf("  %-5s wrote %d, in pages %d", d.Name, st.Bytes.Written, d.Written)
		if err != nil || st.Bytes.Written > limit {
			t.Errorf("%s wrote %d bytes, at most %d are allowed: %v", d.Name, st.Bytes.Written, limit, err)
		}
		disk = append(disk, d.Written)
	}
	slices.Sort(disk)
	if half := disk[len(disk)/2]; half > limit {
		t.Errorf("half of the devices dirtied %d bytes of pages, at most %d are allowed", half, limit)
	}
}

func site(t *testing.T, in inputs, cfg testnet.Config) *testnet.Site {
	t.Helper()
	cfg.Program, cfg.Uplink, cfg.LAN, cfg.Netns = in.program, uplink, lan, true
	s, err := testnet.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range s.Nodes() {
				if b, err := os.ReadFile(filepath.Join(s.Dir(), name, "log")); err == nil {
					t.Logf("log of %s, its end:\n%s", name, b[max(0, len(b)-3000):])
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func publish(t *testing.T, s *testnet.Site, version, path string) *testnet.Release {
	t.Helper()
	r, err := s.Publish(t.Context(), version, path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func boot(t *testing.T, s *testnet.Site) {
	t.Helper()
	if err := s.Boot(t.Context(), s.Nodes()...); err != nil {
		t.Fatal(err)
	}
}

// refused rolls out what cannot be installed: the old release must stay, and the
// site must say within a time what is wrong.
func refused(t *testing.T, s *testnet.Site, r *testnet.Release, stays string, within time.Duration) {
	t.Helper()
	out, err := s.Rollout(t.Context(), r, testnet.RolloutOptions{Timeout: within})
	if !errors.Is(err, testnet.ErrTimeout) {
		t.Fatalf("got %v, want a rollout that does not end", err)
	}
	problems := 0
	for _, d := range out.List {
		t.Logf("%s: %s in service, problems: %s", d.Name, d.Version, strings.Join(d.Problems, "; "))
		problems += len(d.Problems)
		if d.Version != stays {
			t.Errorf("%s has %q in service, want %q", d.Name, d.Version, stays)
		}
	}
	if problems == 0 {
		t.Error("no device says what is wrong")
	}
}

// recovers checks that a rollout that was refused comes through.
func recovers(t *testing.T, s *testnet.Site, r *testnet.Release) {
	t.Helper()
	out, err := s.Rollout(t.Context(), r, testnet.RolloutOptions{Timeout: 2 * time.Minute})
	if err != nil || out.Converged != out.Devices {
		t.Fatalf("did not recover: %v, %+v", err, out)
	}
}

// flip changes a byte in the middle of a file and returns how to change it back.
func flip(t *testing.T, path string) (undo func()) {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte(nil), good...)
	bad[len(bad)/2] ^= 0x10
	write := func(b []byte) {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(bad)
	return func() { write(good) }
}

// one returns the only file, or the newest of those, that match.
func one(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	newest, when := "", time.Time{}
	for _, n := range names {
		if st, err := os.Stat(n); err == nil && st.ModTime().After(when) {
			newest, when = n, st.ModTime()
		}
	}
	return newest
}

// TestNetnsWrongBytes changes a byte at the origin, and in an installed base.
func TestNetnsWrongBytes(t *testing.T) {
	t.Parallel()
	in := prepare(t)
	for _, c := range []struct{ name, file, fresh string }{
		{"patch", "patches/*", in.fresh}, {"metadata", "metadata/timestamp.json", in.fresh}, {"pack", "packs/*", in.large},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := site(t, in, testnet.Config{Devices: 3})
			publish(t, s, "1.0.0", in.old)
			if err := s.Settle(t.Context(), s.Nodes()...); err != nil {
				t.Fatal(err)
			}
			r := publish(t, s, "2.0.0", c.fresh)
			boot(t, s)
			undo := flip(t, one(t, filepath.Join(s.Dir(), "fleet", "origin", c.file)))
			refused(t, s, r, "1.0.0", 20*time.Second)
			undo()
			recovers(t, s, r)
		})
	}
	t.Run("installed base", func(t *testing.T) {
		t.Parallel()
		s := site(t, in, testnet.Config{Devices: 3})
		publish(t, s, "1.0.0", in.old)
		if err := s.Settle(t.Context(), s.Nodes()...); err != nil {
			t.Fatal(err)
		}
		r := publish(t, s, "2.0.0", in.fresh)
		flip(t, filepath.Join(s.Data("dev1"), "current", "app"))
		boot(t, s)
		recovers(t, s, r)
	})
}

// TestNetnsLostUplink cuts the uplink before and during a rollout.
func TestNetnsLostUplink(t *testing.T) {
	in := prepare(t)
	s := site(t, in, testnet.Config{Devices: 3})
	publish(t, s, "1.0.0", in.old)
	if err := s.Settle(t.Context(), s.Nodes()...); err != nil {
		t.Fatal(err)
	}
	r := publish(t, s, "2.0.0", in.large)
	boot(t, s)
	cut(t, s, true)
	refused(t, s, r, "1.0.0", time.Minute) // packets vanish: it takes time to know
	cut(t, s, false)
	down := false
	out, err := s.Rollout(t.Context(), r, testnet.RolloutOptions{Timeout: 3 * time.Minute, Progress: func(p testnet.Snapshot) {
		if !down && p.Uplink > p.Needed/2 {
			down = true
			cut(t, s, true)
			time.AfterFunc(4*time.Second, func() { _ = s.Lab().Cut(context.Background(), false) })
		}
	}})
	if err != nil || out.Converged != out.Devices || !down {
		t.Fatalf("did not recover: %v, cut %v", err, down)
	}
	if limit := out.NeededBytes*106/100 + 1<<20; out.UplinkBytes > limit {
		t.Errorf("the uplink carried %d bytes, at most %d are allowed", out.UplinkBytes, limit)
	}
}

func cut(t *testing.T, s *testnet.Site, off bool) {
	t.Helper()
	if err := s.Lab().Cut(t.Context(), off); err != nil {
		t.Fatal(err)
	}
}

// TestNetnsFullDisk gives one device too little space: it says so, and the others
// go on.
func TestNetnsFullDisk(t *testing.T) {
	in := prepare(t)
	s := site(t, in, testnet.Config{Devices: 3})
	r := publish(t, s, "1.0.0", in.large)
	data := s.Data("dev2")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", data).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %v %s", err, out)
	}
	t.Cleanup(func() {
		s.Kill("dev2")
		if out, err := exec.Command("umount", data).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	boot(t, s)
	out, err := s.Rollout(t.Context(), r, testnet.RolloutOptions{Timeout: time.Minute})
	if !errors.Is(err, testnet.ErrTimeout) {
		t.Fatalf("got %v", err)
	}
	if out.Converged != 2 {
		t.Errorf("%d devices converged, want the two that have space", out.Converged)
	}
	for _, d := range out.List {
		if d.Name == "dev2" && (len(d.Problems) == 0 || d.Version != "") {
			t.Errorf("dev2: %q in service, problems %v", d.Version, d.Problems)
		}
	}
}
