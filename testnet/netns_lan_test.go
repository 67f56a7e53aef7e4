//go:build netns

package testnet_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"updraft/node/report"
	"updraft/testnet"
	"updraft/testnet/fixture"
	"updraft/testnet/netns"
)

// noise makes a file that nothing makes smaller.
func noise(t *testing.T, size int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "noise"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fixture.Noise(f, 5, size); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// once rolls r out: every device gets it, and the uplink carries it once.
func once(t *testing.T, s *testnet.Site, r *testnet.Release) *testnet.Rollout {
	t.Helper()
	out, err := s.Rollout(t.Context(), r, testnet.RolloutOptions{Timeout: 2 * time.Minute})
	if err != nil || out.Converged != out.Devices {
		t.Fatalf("%v: %+v", err, out)
	}
	t.Logf("uplink %.4f of what was needed, last %.2f s, %.3f of the bound", out.UplinkRatio, out.LastS, out.TimeRatio)
	if limit := out.NeededBytes*107/100 + 16<<10; out.UplinkBytes > limit {
		t.Errorf("the uplink carried %d bytes, at most %d are allowed", out.UplinkBytes, limit)
	}
	return out
}

// TestNetnsIPv6 plays a LAN and an uplink without IPv4. Frames of 1,514 bytes carry 1,428 of a file there, so that TCP
// alone takes 1.0602 of it.
func TestNetnsIPv6(t *testing.T) {
	in := prepare(t)
	s := site(t, in, testnet.Config{Devices: 8, IPv6: true})
	r := publish(t, s, "1.0.0", in.large)
	boot(t, s)
	if out := once(t, s, r); out.UplinkRatio > 1.065 {
		t.Errorf("the uplink carried %.4f of what was needed", out.UplinkRatio)
	}
}

// TestNetnsStaticPeers plays a LAN that carries no multicast: each device is told of
// those that were started before it.
func TestNetnsStaticPeers(t *testing.T) {
	in := prepare(t)
	s := site(t, in, testnet.Config{Devices: 8})
	r := publish(t, s, "1.0.0", in.large)
	var peers []string
	for _, name := range s.Nodes() {
		flags := []string{"--no-mdns", "--listen", "/ip4/0.0.0.0/tcp/4001"}
		for _, p := range peers {
			flags = append(flags, "--peer", p)
		}
		if err := s.Join(t.Context(), name, flags...); err != nil {
			t.Fatal(err)
		}
		st, err := s.Status(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if st.Peers != len(peers) {
			t.Errorf("%s is connected with %d of %d", name, st.Peers, len(peers))
		}
		peers = append(peers, fmt.Sprintf("/ip4/%s/tcp/4001/p2p/%s", s.Lab().Addr(name), st.PeerID))
	}
	if out := once(t, s, r); out.UplinkRatio > 1.05 {
		t.Errorf("the uplink carried %.4f of what was needed", out.UplinkRatio)
	}
}

// TestNetnsSegments plays a site of two networks with a router between them, which passes no multicast: the devices of
// each find each other by multicast, and those of the other through the first device, which all know as a node of the DHT.
func TestNetnsSegments(t *testing.T) {
	t.Parallel()
	in := prepare(t)
	s := site(t, in, testnet.Config{Devices: 6, Segments: 2})
	r := publish(t, s, "1.0.0", noise(t, 8<<20))
	config := filepath.Join(t.TempDir(), "config.yaml")
	write := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names := s.Nodes()
	write("dht: true\n")
	if err := s.Join(t.Context(), names[0], "--config", config, "--listen", "/ip4/0.0.0.0/tcp/4001"); err != nil {
		t.Fatal(err)
	}
	st, err := s.Status(t.Context(), names[0])
	if err != nil {
		t.Fatal(err)
	}
	write(fmt.Sprintf("dht: true\nbootstrap: [/ip4/%s/tcp/4001/p2p/%s]\n", s.Lab().Addr(names[0]), st.PeerID))
	begun := time.Now()
	if err := s.Start(names[1:], "--poll", "0", "--config", config); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		peers := -1
		for peers != len(names)-1 && time.Since(begun) < time.Minute {
			time.Sleep(100 * time.Millisecond)
			if st, err := s.Status(t.Context(), name); err == nil {
				peers = st.Peers
			}
		}
		if peers != len(names)-1 {
			t.Errorf("%s is connected with %d of %d", name, peers, len(names)-1)
		}
	}
	t.Logf("all have met after %v", time.Since(begun))
	once(t, s, r)
}

// TestNetnsStrangers puts a device of another fleet, and one of another site of the same fleet, on the LAN: nobody
// connects with them, and they get nothing from the site.
func TestNetnsStrangers(t *testing.T) {
	in := prepare(t)
	for _, c := range []struct {
		name  string
		fleet bool // of its own
		site  string
	}{{"fleet", true, "testnet"}, {"site", false, "elsewhere"}} {
		t.Run(c.name, func(t *testing.T) {
			s := site(t, in, testnet.Config{Devices: 3})
			r := publish(t, s, "1.0.0", noise(t, 8<<20))
			dir := t.TempDir()
			fleet, from := filepath.Join(s.Dir(), "fleet"), "http://"+s.Lab().Addr(netns.Origin)+":8080"
			if c.fleet {
				fleet = filepath.Join(dir, "fleet")
				from = filepath.Join(fleet, "origin")
				updraft(t, in, "init", fleet, "--name", "other")
				updraft(t, in, "publish", "--fleet", fleet, "--channel", "stable", "--version", "7.0.0", in.old)
			}
			updraft(t, in, "enroll", "--fleet", fleet, "--name", "stranger", "--type", "testnet", "--site", c.site, "--channel", "stable",
				"--origin", from, "-o", filepath.Join(dir, "enrollment"))
			data := filepath.Join(dir, "data")
			ctx, cancel := context.WithCancel(t.Context())
			stranger := s.Lab().Command(ctx, netns.Gateway, append(in.program, "agent", "--enrollment", filepath.Join(dir, "enrollment"), "--data", data)...)
			if err := stranger.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = stranger.Wait() }() // killed: that is an error by itself
			defer cancel()
			boot(t, s)
			// The other site downloads for itself before this one begins.
			client := report.Dial(data)
			var st report.Status
			var err error
			for range 200 {
				if st, err = client.Status(ctx); err == nil && st.Current != "" {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			if st.Current == "" || st.Bytes.LANIn > 0 {
				t.Fatalf("the stranger has %q in service, %d bytes from the LAN: %v", st.Current, st.Bytes.LANIn, err)
			}
			out := once(t, s, r)
			if out.Devices != 3 {
				t.Errorf("%d devices", out.Devices)
			}
			if st, err = client.Status(ctx); err != nil || st.Peers != 0 || st.Bytes.LANIn+st.Bytes.LANOut > 0 {
				t.Errorf("the stranger has %d peers and exchanged %d bytes: %v", st.Peers, st.Bytes.LANIn+st.Bytes.LANOut, err)
			}
			for _, name := range s.Nodes() {
				if st, err := s.Status(ctx, name); err != nil || st.Peers != 2 {
					t.Errorf("%s has %d peers: %v", name, st.Peers, err)
				}
			}
		})
	}
}

func updraft(t *testing.T, in inputs, args ...string) {
	t.Helper()
	if out, err := exec.Command(in.program[0], append(append([]string(nil), in.program[1:]...), args...)...).CombinedOutput(); err != nil {
		t.Fatalf("updraft %s: %v\n%s", args[0], err, out)
	}
}

// fault takes a device out at a share of the download, and lets it back after a time.
type fault struct {
	share  float64
	device string
	pause  bool // SIGSTOP; else off the LAN and the uplink
	long   time.Duration
	begun  time.Time
	ended  bool
}

// TestNetnsFaults plays schedules drawn from a seed: a device is killed and started again, another is paused, a third
// is cut off. UPDRAFT_NETNS_FAULTS says how many.
func TestNetnsFaults(t *testing.T) {
	runs := 3
	if n, err := strconv.Atoi(os.Getenv("UPDRAFT_NETNS_FAULTS")); err == nil {
		runs = n
	}
	in := prepare(t)
	file := noise(t, 24<<20)
	for seed := range runs {
		t.Run(strconv.Itoa(seed+1), func(t *testing.T) { faults(t, in, file, uint64(seed+1)) })
	}
}

func faults(t *testing.T, in inputs, file string, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 9))
	s := site(t, in, testnet.Config{Devices: 5})
	r := publish(t, s, "1.0.0", file)
	boot(t, s)
	list := []*fault{
		{share: rnd.Float64(), device: netns.Device(1 + rnd.IntN(5)), pause: true, long: time.Duration(1+rnd.IntN(30)) * time.Second},
		{share: rnd.Float64(), device: netns.Device(1 + rnd.IntN(5)), long: time.Duration(1+rnd.IntN(15)) * time.Second},
	}
	kill := testnet.Victims(rnd.IntN(2))
	out, err := s.Rollout(t.Context(), r, testnet.RolloutOptions{Timeout: 4 * time.Minute, KillAt: 0.05 + 0.9*rnd.Float64(), Kill: kill,
		Progress: func(p testnet.Snapshot) {
			for _, f := range list {
				f.play(t, s, p)
			}
		}})
	for _, f := range list { // what has not ended yet
		f.end(t, s)
	}
	for _, f := range list {
		t.Logf("%s paused %v: at %.2f for %v", f.device, f.pause, f.share, f.long)
	}
	if err != nil || out.Converged != out.Devices {
		t.Fatalf("%v: %+v", err, out)
	}
	t.Logf("uplink %.4f of what was needed, last %.2f s, killed %v", out.UplinkRatio, out.LastS, out.Killed)
	// One device is killed, one is paused and one is cut off, from the uplink as well: what crosses it in vain is what was on
	// its way, to a paused device up to what its kernel takes, which is 6 MiB (tcp_rmem).
	if limit := out.NeededBytes*106/100 + (4+6)<<20; out.UplinkBytes > limit {
		t.Errorf("the uplink carried %d bytes, at most %d are allowed", out.UplinkBytes, limit)
	}
}

// play begins or ends the fault when it is time.
func (f *fault) play(t *testing.T, s *testnet.Site, p testnet.Snapshot) {
	switch {
	case f.begun.IsZero() && float64(p.Uplink) >= f.share*float64(p.Needed):
		f.begun = time.Now()
		var err error
		if f.pause {
			err = s.Signal(f.device, syscall.SIGSTOP)
		} else {
			err = s.Lab().Isolate(t.Context(), f.device, true)
		}
		if err != nil {
			t.Error(err)
		}
	case !f.begun.IsZero() && time.Since(f.begun) > f.long:
		f.end(t, s)
	}
}

func (f *fault) end(t *testing.T, s *testnet.Site) {
	if f.ended || f.begun.IsZero() {
		return
	}
	f.ended = true
	var err error
	if f.pause {
		err = s.Signal(f.device, syscall.SIGCONT)
	} else {
		err = s.Lab().Isolate(context.WithoutCancel(t.Context()), f.device, false)
	}
	if err != nil {
		t.Error(err)
	}
}
