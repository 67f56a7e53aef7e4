package mdns_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"updraft/discovery"
	"updraft/discovery/mdns"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sys/unix"
)

// The test program is also the device of the tests with namespaces: with
// UPDRAFT_TEST_DEVICE=SEED:PORT it runs one Source that listens on every address
// of its namespace, and prints a line for each event and report.
func TestMain(m *testing.M) {
	if what := os.Getenv("UPDRAFT_TEST_DEVICE"); what != "" {
		os.Exit(deviceMain(what))
	}
	os.Exit(m.Run())
}

// line is what a device process prints.
type line struct {
	Peer    string         `json:",omitempty"`
	Addrs   []string       `json:",omitempty"`
	Gone    bool           `json:",omitempty"`
	Report  string         `json:",omitempty"`
	Healthy bool           `json:",omitempty"`
	Count   *mdns.Counters `json:",omitempty"`
}

func seeded(seed string) peer.ID {
	priv, _, err := crypto.GenerateEd25519Key(bytes.NewReader([]byte(fmt.Sprintf("%-64s", seed))))
	if err != nil {
		panic(err)
	}
	id, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		panic(err)
	}
	return id
}

func deviceMain(what string) int {
	seed, port, _ := strings.Cut(what, ":")
	id := seeded(seed)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	out := json.NewEncoder(os.Stdout)
	var mu sync.Mutex // guards out
	say := func(l line) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(l) // the reader is gone when the test is over
	}
	cfg := mdns.Config{SiteKey: siteKey(7), Elsewhere: true, Report: func(err error) {
		if err == nil {
			say(line{Healthy: true})
			return
		}
		say(line{Report: err.Error()})
	}}
	if s := os.Getenv("UPDRAFT_TEST_INTERVAL"); s != "" {
		cfg.Interval, _ = time.ParseDuration(s)
	}
	src := mdns.New(cfg)
	events := make(chan discovery.Event)
	go func() {
		for ev := range events {
			l := line{Peer: ev.Peer.ID.String(), Gone: ev.Gone}
			for _, a := range ev.Peer.Addrs {
				l.Addrs = append(l.Addrs, a.String())
			}
			say(l)
		}
	}()
	err := src.Run(ctx, func() peer.AddrInfo { return peer.AddrInfo{ID: id, Addrs: everywhere(port)} }, events)
	c := src.Counters()
	say(line{Count: &c})
	if err != nil {
		return 1
	}
	return 0
}

// everywhere lists the addresses of a host that listens on all of its interfaces,
// as libp2p does: without link-local ones.
func everywhere(port string) (out []ma.Multiaddr) {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			continue
		}
		family := "/ip4/"
		if p.Addr().Is6() {
			family = "/ip6/"
		}
		m, err := ma.NewMultiaddr(family + p.Addr().String() + "/tcp/" + port)
		if err == nil {
			out = append(out, m)
		}
	}
	return out
}

// site is a bridge with a namespace for each device.
type site struct{ t testing.TB }

func newSite(t *testing.T) *site {
	t.Helper()
	// Names of namespaces are files in /run/netns: have a directory of our own.
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", "/run/netns", "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	ip(t, "link", "set", "lo", "up")
	s := &site{t}
	s.bridge("br0")
	return s
}

func (s *site) bridge(name string) {
	t := s.t.(*testing.T)
	ip(t, "link", "add", name, "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
	ip(t, "link", "set", name, "up")
}

// space makes a namespace with loopback only.
func (s *site) space(name string) {
	t := s.t.(*testing.T)
	ip(t, "netns", "add", name)
	ip(t, "-n", name, "link", "set", "lo", "up")
}

// plug gives a namespace an interface on a bridge, with addresses.
func (s *site) plug(name, dev, bridge string, addrs ...string) {
	t := s.t.(*testing.T)
	host := "v" + dev + name
	ip(t, "link", "add", host, "type", "veth", "peer", "name", dev, "netns", name)
	ip(t, "link", "set", host, "master", bridge, "up")
	for _, a := range addrs {
		args := []string{"-n", name, "addr", "add", a, "dev", dev}
		if strings.Contains(a, ":") {
			args = append(args, "nodad")
		}
		ip(t, args...)
	}
	ip(t, "-n", name, "link", "set", dev, "up")
}

// bytes returns what a device got and sent on its interface.
func (s *site) bytes(name, dev string) (got, sent int64) {
	// Not from /sys, which shows the namespace that it was mounted in.
	out, err := exec.Command("ip", "-j", "-s", "link", "show", "dev", "v"+dev+name).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	var links []struct {
		Stats64 struct{ Rx, Tx struct{ Bytes int64 } }
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		s.t.Fatalf("%v: %s", err, out)
	}
	return links[0].Stats64.Tx.Bytes, links[0].Stats64.Rx.Bytes
}

// process is a device process.
type process struct {
	t     testing.TB
	id    peer.ID
	cmd   *exec.Cmd
	ended chan struct{}

	mu      sync.Mutex // guards all below
	found   map[string][]string
	gone    int
	reports []string // "" for healthy
	count   *mdns.Counters
	seen    map[string]time.Time
}

// spawn runs a device in a namespace.
func (s *site) spawn(name, seed string, port int, env ...string) *process {
	s.t.Helper()
	p := &process{t: s.t, id: seeded(seed), ended: make(chan struct{}), found: make(map[string][]string), seen: make(map[string]time.Time)}
	p.cmd = exec.Command("ip", "netns", "exec", name, os.Args[0])
	p.cmd.Env = append(append(os.Environ(), fmt.Sprintf("UPDRAFT_TEST_DEVICE=%s:%d", seed, port)), env...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	var log bytes.Buffer
	p.cmd.Stderr = &log
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.read(out)
		err := p.cmd.Wait()
		if strings.Contains(log.String(), "DATA RACE") || strings.Contains(log.String(), "panic") {
			s.t.Errorf("%s: %v: %s", name, err, log.String())
		}
	}()
	s.t.Cleanup(p.kill)
	return p
}

func (p *process) read(out io.Reader) {
	sc := bufio.NewScanner(out)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var l line
		if json.Unmarshal(sc.Bytes(), &l) != nil {
			continue
		}
		p.mu.Lock()
		switch {
		case l.Count != nil:
			p.count = l.Count
		case l.Peer != "" && l.Gone:
			delete(p.found, l.Peer)
			p.gone++
		case l.Peer != "":
			if _, ok := p.seen[l.Peer]; !ok {
				p.seen[l.Peer] = time.Now()
			}
			p.found[l.Peer] = l.Addrs
		default:
			p.reports = append(p.reports, l.Report)
		}
		p.mu.Unlock()
	}
}

func (p *process) kill() { p.cmd.Process.Kill(); <-p.ended }

func (p *process) term() {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
	<-p.ended
}

func (p *process) at(id peer.ID) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.found[id.String()])
}

func (p *process) known() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.found)
}

func (p *process) report() (last string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.reports) == 0 {
		return "", false
	}
	return p.reports[len(p.reports)-1], true
}

func (p *process) reaches(o *process, addr string) func() bool {
	return func() bool { return slices.Contains(p.at(o.id), addr) }
}
