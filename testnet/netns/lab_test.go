package netns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"updraft/testnet/netns"
)

func lab(t *testing.T, cfg netns.Config) *netns.Lab {
	t.Helper()
	if err := netns.Supported(); err != nil {
		t.Skip(err)
	}
	l, err := netns.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestRefused(t *testing.T) {
	_, err := netns.New(t.Context(), netns.Config{Devices: netns.MaxDevices + 1})
	if err == nil {
		t.Error("more devices than addresses")
	}
	if unsupported := netns.Supported(); unsupported != nil && !errors.Is(err, netns.ErrUnsupported) {
		t.Errorf("got %v, want it to say that namespaces are not possible here", err)
	}
}

// TestBytesAreCounted sends a known number of bytes over the uplink and the LAN.
func TestBytesAreCounted(t *testing.T) {
	l := lab(t, netns.Config{Devices: 2, Down: 12_500_000, Up: 1_250_000, LAN: 12_500_000})
	if _, err := exec.LookPath("nc"); err != nil {
		t.Skip("no nc (netcat) here")
	}
	const n = 1 << 20
	down0, up0, err := l.Uplink()
	if err != nil {
		t.Fatal(err)
	}
	in0, _, err := l.LAN(netns.Device(1))
	if err != nil {
		t.Fatal(err)
	}
	transfer(t, l, netns.Origin, netns.Device(1), n)
	down1, up1, _ := l.Uplink()
	in1, _, _ := l.LAN(netns.Device(1))
	if d := down1 - down0; d < n || d > n*108/100 {
		t.Errorf("%d bytes of payload were counted as %d on the uplink", n, d)
	}
	if d := in1 - in0; d < n || d > n*108/100 {
		t.Errorf("%d bytes of payload were counted as %d at the device", n, d)
	}
	if u := up1 - up0; u <= 0 || u > n/10 {
		t.Errorf("%d bytes of acknowledgements", u)
	}
	transfer(t, l, netns.Device(2), netns.Device(1), n)
	if down2, _, _ := l.Uplink(); down2-down1 > 2000 {
		t.Errorf("traffic of the LAN crossed the uplink: %d bytes", down2-down1)
	}
}

// transfer sends n bytes of zeros from one node to another.
func transfer(t *testing.T, l *netns.Lab, from, to string, n int64) {
	t.Helper()
	recv := l.Command(t.Context(), to, "nc", "-l", "-p", "9000", "-q", "0")
	out, err := recv.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := recv.Start(); err != nil {
		t.Fatal(err)
	}
	defer recv.Wait()
	script := "for i in 1 2 3 4 5 6 7 8 9; do head -c 1048576 /dev/zero | nc -q 0 " + l.Addr(to) + " 9000 && exit 0; sleep 0.2; done; exit 1"
	send := l.Command(t.Context(), from, "sh", "-c", script)
	if err := send.Start(); err != nil {
		t.Fatal(err)
	}
	got, _ := io.Copy(io.Discard, out)
	if err := send.Wait(); err != nil || got != n {
		t.Fatalf("received %d of %d bytes, %v", got, n, err)
	}
}

// TestNothingIsLeft builds a site whose context ends, and one that is closed.
func TestNothingIsLeft(t *testing.T) {
	if err := netns.Supported(); err != nil {
		t.Skip(err)
	}
	before := namespaces(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := netns.New(ctx, netns.Config{Devices: 1}); err == nil {
		t.Error("built with a context that had ended")
	}
	l, err := netns.New(t.Context(), netns.Config{Devices: 1})
	if err != nil {
		t.Fatal(err)
	}
	stuck := l.Command(t.Context(), netns.Device(1), "sleep", "infinity")
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	if err := l.Cut(t.Context(), true); err != nil {
		t.Error(err)
	}
	if err := l.Isolate(t.Context(), netns.Device(1), true); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if stuck.Wait() == nil {
		t.Error("a process outlived its namespace")
	}
	for name := range namespaces(t) {
		if !before[name] && strings.HasPrefix(name, fmt.Sprintf("ud%x", os.Getpid())) {
			t.Errorf("namespace %s is left", name)
		}
	}
}

func namespaces(t *testing.T) map[string]bool {
	t.Helper()
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, f := range strings.Fields(string(out)) {
		set[f] = true
	}
	return set
}
