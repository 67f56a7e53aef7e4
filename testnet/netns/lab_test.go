package netns_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

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
	if _, err := netns.New(t.Context(), netns.Config{Devices: 1, Segments: netns.MaxSegments + 1}); err == nil {
		t.Error("more segments than networks")
	}
	if unsupported := netns.Supported(); unsupported != nil && !errors.Is(err, netns.ErrUnsupported) {
		t.Errorf("got %v, want it to say that namespaces are not possible here", err)
	}
}

// TestBytesAreCounted sends a known number of bytes over the uplink and the LAN.
func TestBytesAreCounted(t *testing.T) {
	l := lab(t, netns.Config{Devices: 2, Down: 12_500_000, Up: 1_250_000, LAN: 12_500_000})
	const n = sent
	down0, up0, err := l.Uplink()
	if err != nil {
		t.Fatal(err)
	}
	in0, _, err := l.LAN(netns.Device(1))
	if err != nil {
		t.Fatal(err)
	}
	transfer(t, l, netns.Origin, netns.Device(1))
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
	transfer(t, l, netns.Device(2), netns.Device(1))
	if down2, _, _ := l.Uplink(); down2-down1 > 2000 {
		t.Errorf("traffic of the LAN crossed the uplink: %d bytes", down2-down1)
	}
}

// TestSegments sends bytes from one segment to another, to each from the origin, and within one.
func TestSegments(t *testing.T) {
	l := lab(t, netns.Config{Devices: 3, Segments: 2})
	a, b := l.Addr(netns.Device(1)), l.Addr(netns.Device(2))
	if a[:strings.LastIndex(a, ".")] == b[:strings.LastIndex(b, ".")] {
		t.Errorf("%s and %s are of one network", a, b)
	}
	transfer(t, l, netns.Device(1), netns.Device(2))
	transfer(t, l, netns.Origin, netns.Device(2))
	transfer(t, l, netns.Device(3), netns.Device(1))
}

// role in the environment makes the test binary one end of a transfer.
const role = "NETNS_TEST_ROLE"

func TestMain(m *testing.M) {
	end, addr, _ := strings.Cut(os.Getenv(role), " ")
	var err error
	switch end {
	case "receive":
		err = receive(addr)
	case "send":
		err = send(addr)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// receive accepts one connection and writes how many bytes came.
func receive(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, c)
	fmt.Println(n)
	return err
}

// send connects, as soon as somebody listens, and sends what is counted.
func send(addr string) error {
	var c net.Conn
	var err error
	for range 100 {
		if c, err = net.Dial("tcp", addr); err == nil {
			_, err = c.Write(make([]byte, sent))
			return errors.Join(err, c.Close())
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// sent is how many bytes a transfer has.
const sent = 1 << 20

// transfer sends bytes from one node to another.
func transfer(t *testing.T, l *netns.Lab, from, to string) {
	t.Helper()
	addr := l.Addr(to) + ":9000"
	recv, snd := l.Command(t.Context(), to, os.Args[0]), l.Command(t.Context(), from, os.Args[0])
	recv.Env, snd.Env = append(os.Environ(), role+"=receive "+addr), append(os.Environ(), role+"=send "+addr)
	var out, failed bytes.Buffer // each written by one process
	recv.Stdout, recv.Stderr, snd.Stderr = &out, &out, &failed
	if err := recv.Start(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(snd.Run(), recv.Wait()); err != nil || strings.TrimSpace(out.String()) != strconv.Itoa(sent) {
		t.Fatalf("%v: %s%s", err, out.String(), failed.String())
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
