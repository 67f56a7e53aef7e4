// Package netns builds a site of network namespaces for the real program: real
// multicast, shaped links, and byte counters as a wire would have them.
//
//	origin --(uplink)-- router [bridge] --(LAN links)-- gw, dev1 … devN
//
// The uplink is a veth pair with a token bucket (tc tbf) at both ends; its devices
// are told to send one segment per packet, so that their counters are the bytes of
// Ethernet frames (without preamble and checksum). Each device hangs on the bridge
// by a veth pair that is shaped in both directions. It speaks IPv4, or IPv6, and nothing
// else. A site of several segments has a bridge for each of them; between them the router
// passes on what has an address, and no multicast.
//
// All namespaces of a machine share one table of neighbours, which holds no more than
// net.ipv4.neigh.default.gc_thresh3 says (of IPv6: net.ipv6…), 1,024 by default. Each
// device may speak with each other one, so that this is enough for 30 devices; beyond,
// links would fail without a word. New refuses a site that does not fit.
//
// Needs root and iproute2 (ip, tc). All namespaces of a Lab carry a prefix of its
// own, processes that are still in them are killed and they are deleted by Close;
// nothing outside them is changed.
package netns

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Names of the nodes besides the devices, which Device names.
const (
	Origin  = "origin"
	Router  = "router"
	Gateway = "gw"
)

// MaxDevices is how many devices fit into the LAN's address range, and MaxSegments how
// many such ranges there are.
const (
	MaxDevices  = 200
	MaxSegments = 8
)

const (
	lanNet   = "10.%d.0." // with the number of the segment, from firstLAN
	originIP = "10.99.0.1"
	wanIP    = "10.99.0.2"
	firstLAN = 77

	lanNet6   = "fd%d::"
	originIP6 = "fd99::1"
	wanIP6    = "fd99::2"
)

// ErrUnsupported reports that this machine or user cannot make namespaces.
var ErrUnsupported = errors.New("netns: network namespaces need root and the programs ip and tc")

// Config describes a site. Rates are in bytes per second, 0 is unlimited.
type Config struct {
	Devices  int   // 1 to MaxDevices
	Down, Up int64 // uplink, towards the site and away from it
	LAN      int64 // each device's link, both directions
	IPv6     bool  // instead of IPv4
	Segments int   // up to MaxSegments, to which the devices are dealt in turn; 0: one
}

// Lab is a site that exists. Its methods may be called concurrently.
type Lab struct {
	cfg    Config
	prefix string
	made   []string
	pin    *exec.Cmd // keeps the router's namespace readable as /proc/PID/net/dev
}

// Device names the i-th device, from 1.
func Device(i int) string { return "dev" + strconv.Itoa(i) }

// Supported returns nil if a Lab can be built here, else an ErrUnsupported that
// says what is missing.
func Supported() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: not root", ErrUnsupported)
	}
	for _, p := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	return nil
}

// New builds a site. Close it after use. On an error nothing is left.
func New(ctx context.Context, cfg Config) (*Lab, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	if cfg.Devices < 1 || cfg.Devices > MaxDevices {
		return nil, fmt.Errorf("netns: %d devices, want 1 to %d", cfg.Devices, MaxDevices)
	}
	if cfg.Segments < 0 || cfg.Segments > MaxSegments {
		return nil, fmt.Errorf("netns: %d segments, want 1 to %d", cfg.Segments, MaxSegments)
	}
	cfg.Segments = max(cfg.Segments, 1)
	if err := fitsTable(cfg, "/proc"); err != nil {
		return nil, err
	}
	var r [2]byte
	if _, err := rand.Read(r[:]); err != nil {
		return nil, fmt.Errorf("netns: %w", err)
	}
	l := &Lab{cfg: cfg, prefix: fmt.Sprintf("ud%x%x", os.Getpid(), r)}
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Addr returns a node's address; the router's is that on the first segment.
func (l *Lab) Addr(node string) string {
	switch node {
	case Origin:
		origin, _ := l.wan()
		return origin
	case Router:
		return l.routed(0)
	case Gateway:
		return l.lan(0) + "250"
	}
	return l.lan(l.segment(node)) + strings.TrimPrefix(node, "dev")
}

// segment returns the number of the segment that a device is on.
func (l *Lab) segment(node string) int {
	i, err := strconv.Atoi(strings.TrimPrefix(node, "dev"))
	if err != nil {
		return 0 // the gateway
	}
	return (i - 1) % l.cfg.Segments
}

// lan returns the beginning of the addresses of a segment.
func (l *Lab) lan(segment int) string {
	if l.cfg.IPv6 {
		return fmt.Sprintf(lanNet6, firstLAN+segment)
	}
	return fmt.Sprintf(lanNet, firstLAN+segment)
}

// routed returns the router's address on a segment.
func (l *Lab) routed(segment int) string { return l.lan(segment) + "254" }

// wan returns the addresses of the two ends of the uplink.
func (l *Lab) wan() (origin, router string) {
	if l.cfg.IPv6 {
		return originIP6, wanIP6
	}
	return originIP, wanIP
}

// prefixed returns an address with the length of its network's prefix, and what makes
// it usable at once.
func (l *Lab) prefixed(addr string) []string {
	if l.cfg.IPv6 {
		return []string{addr + "/64", "nodad"}
	}
	return []string{addr + "/24", "brd", "+"}
}

// lanPrefix returns the network of a segment.
func (l *Lab) lanPrefix(segment int) string {
	if l.cfg.IPv6 {
		return l.lan(segment) + "/64"
	}
	return l.lan(segment) + "0/24"
}

// Nodes returns the devices' names, the gateway's first.
func (l *Lab) Nodes() []string {
	out := []string{Gateway}
	for i := range l.cfg.Devices {
		out = append(out, Device(i+1))
	}
	return out
}

// Command returns a command to be run on a node; it is killed when ctx ends or the
// thread that starts it goes away with its process.
func (l *Lab) Command(ctx context.Context, node string, argv ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", l.ns(node)}, argv...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return c
}

func (l *Lab) ns(node string) string { return l.prefix + "-" + node }

func (l *Lab) build(ctx context.Context) error {
	for _, node := range append([]string{Origin, Router}, l.Nodes()...) {
		if err := l.add(ctx, node); err != nil {
			return err
		}
	}
	if err := l.buildUplink(ctx); err != nil {
		return err
	}
	r := l.ns(Router)
	for i := range l.cfg.Segments {
		err := batch(ctx, [][]string{
			{"ip", "-n", r, "link", "add", bridge(i), "type", "bridge", "mcast_snooping", "0", "forward_delay", "0"},
			append([]string{"ip", "-n", r, "addr", "add", "dev", bridge(i)}, l.prefixed(l.routed(i))...),
			{"ip", "-n", r, "link", "set", bridge(i), "up"},
		})
		if err != nil {
			return err
		}
	}
	for _, node := range l.Nodes() {
		if err := l.attach(ctx, node); err != nil {
			return err
		}
	}
	l.pin = l.Command(context.WithoutCancel(ctx), Router, "sleep", "infinity")
	if err := l.pin.Start(); err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	return l.pinned(ctx)
}

// add makes a node's namespace.
func (l *Lab) add(ctx context.Context, node string) error {
	if err := run(ctx, "ip", "netns", "add", l.ns(node)); err != nil {
		return err
	}
	l.made = append(l.made, node)
	script := "ip link set lo up; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
	forward := "; echo 1 > /proc/sys/net/ipv4/ip_forward"
	if l.cfg.IPv6 {
		script = "for d in all default; do echo 0 > /proc/sys/net/ipv6/conf/$d/disable_ipv6; echo 0 > /proc/sys/net/ipv6/conf/$d/accept_dad; done; ip link set lo up"
		forward = "; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
	}
	if node == Router {
		script += forward
	}
	return run(ctx, "ip", "netns", "exec", l.ns(node), "sh", "-c", script)
}

func (l *Lab) buildUplink(ctx context.Context) error {
	o, r := l.ns(Origin), l.ns(Router)
	origin, wan := l.wan()
	cmds := [][]string{{"ip", "link", "add", "up0", "netns", o, "type", "veth", "peer", "name", "wan0", "netns", r}}
	for _, e := range [][3]string{{o, "up0", origin}, {r, "wan0", wan}} {
		cmds = append(cmds,
			[]string{"ip", "-n", e[0], "link", "set", "dev", e[1], "gso_max_segs", "1"},
			append([]string{"ip", "-n", e[0], "addr", "add", "dev", e[1]}, l.prefixed(e[2])...),
			[]string{"ip", "-n", e[0], "link", "set", e[1], "up"})
	}
	// Congestion control is set by route: the sysctl of a namespace takes only what
	// the host allows to everyone, and the host's default may be another one.
	for i := range l.cfg.Segments {
		cmds = append(cmds, []string{"ip", "-n", o, "route", "add", l.lanPrefix(i), "via", wan, "congctl", "cubic"})
	}
	cmds = append(cmds, shape(o, "up0", l.cfg.Down, "16kb", "100ms")...)
	cmds = append(cmds, shape(r, "wan0", l.cfg.Up, "16kb", "100ms")...)
	return batch(ctx, cmds)
}

// attach connects a device to the bridge of its segment.
func (l *Lab) attach(ctx context.Context, node string) error {
	d, r, port, seg := l.ns(node), l.ns(Router), port(node), l.segment(node)
	burst, latency := "64kb", "20ms"
	if l.cfg.LAN > 25_000_000 {
		burst, latency = "256kb", "5ms"
	}
	cmds := [][]string{
		{"ip", "link", "add", "eth0", "netns", d, "type", "veth", "peer", "name", port, "netns", r},
		append([]string{"ip", "-n", d, "addr", "add", "dev", "eth0"}, l.prefixed(l.Addr(node))...),
		{"ip", "-n", d, "link", "set", "eth0", "up"},
		{"ip", "-n", d, "route", "replace", l.lanPrefix(seg), "dev", "eth0", "src", l.Addr(node), "congctl", "cubic"},
		{"ip", "-n", d, "route", "add", "default", "via", l.routed(seg), "congctl", "cubic"},
		{"ip", "-n", r, "link", "set", port, "master", bridge(seg), "up"},
	}
	cmds = append(cmds, shape(d, "eth0", l.cfg.LAN, burst, latency)...)
	cmds = append(cmds, shape(r, port, l.cfg.LAN, burst, latency)...)
	return batch(ctx, cmds)
}

func port(node string) string { return "p-" + node }

func bridge(segment int) string { return "br" + strconv.Itoa(segment) }

func shape(ns, dev string, rate int64, burst, latency string) [][]string {
	if rate <= 0 {
		return nil
	}
	return [][]string{{"tc", "-n", ns, "qdisc", "add", "dev", dev, "root", "tbf",
		"rate", strconv.FormatInt(rate*8, 10) + "bit", "burst", burst, "latency", latency}}
}

// pinned waits until the pin has entered the router's namespace.
func (l *Lab) pinned(ctx context.Context) error {
	for range 100 {
		if _, _, err := l.counters("wan0"); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return errors.New("netns: cannot read the router's counters")
}

// Uplink returns the bytes that crossed the uplink towards the site and away from
// it, as frames.
func (l *Lab) Uplink() (down, up int64, err error) { return l.counters("wan0") }

// LAN returns the bytes a device received and sent, as frames at its bridge port.
// Multicast counts at each receiver.
func (l *Lab) LAN(node string) (in, out int64, err error) {
	rx, tx, err := l.counters(port(node))
	return tx, rx, err // the port receives what the device sends
}

// counters reads an interface of the router: received and transmitted bytes.
func (l *Lab) counters(dev string) (rx, tx int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", l.pin.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("netns: %w", err)
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		name, rest, ok := strings.Cut(s.Text(), ":")
		f := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) != dev || len(f) < 9 {
			continue
		}
		rx, err = strconv.ParseInt(f[0], 10, 64)
		if err == nil {
			tx, err = strconv.ParseInt(f[8], 10, 64)
		}
		return rx, tx, err
	}
	return 0, 0, fmt.Errorf("netns: no interface %s", dev)
}

// Cut takes the uplink down, or brings it back.
func (l *Lab) Cut(ctx context.Context, cut bool) error {
	if cut {
		return run(ctx, "ip", "-n", l.ns(Router), "link", "set", "wan0", "down")
	}
	return run(ctx, "ip", "-n", l.ns(Router), "link", "set", "wan0", "up")
}

// Isolate takes a device off the LAN, or puts it back.
func (l *Lab) Isolate(ctx context.Context, node string, off bool) error {
	state := "up"
	if off {
		state = "down"
	}
	return run(ctx, "ip", "-n", l.ns(Router), "link", "set", port(node), state)
}

// Close kills what still runs in the namespaces and deletes them.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if l.pin != nil && l.pin.Process != nil {
		_ = l.pin.Process.Kill() // it may have ended
		_ = l.pin.Wait()         // killed: that is an error by itself
	}
	var errs []error
	for _, node := range l.made {
		out, err := exec.CommandContext(ctx, "ip", "netns", "pids", l.ns(node)).Output()
		if err != nil {
			errs = append(errs, fmt.Errorf("netns: list processes: %w", err))
		}
		for _, f := range strings.Fields(string(out)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
			}
		}
	}
	for _, node := range l.made {
		errs = append(errs, run(ctx, "ip", "netns", "del", l.ns(node)))
	}
	l.made = nil
	return errors.Join(errs...)
}

func batch(ctx context.Context, cmds [][]string) error {
	for _, c := range cmds {
		if err := run(ctx, c[0], c[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("netns: %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
