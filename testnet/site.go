package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"updraft/node/report"
	"updraft/testnet/netns"
)

// What all sites call their things.
const (
	channel  = "stable"
	siteName = "testnet"
	artifact = "app"
)

// meetTime is how long Boot waits for the devices to find each other.
const meetTime = 15 * time.Second

// Config describes a site.
type Config struct {
	Program []string // the updraft program: its path, and arguments before a command's own
	Env     []string // added to the environment of every process
	Devices int      // besides the gateway; at least 1
	Gateway bool
	Uplink  int64 // bytes per second from the origin; 0: unlimited
	LAN     int64 // bytes per second of each device; 0: unlimited. On loopback only sending is limited
	Netns   bool  // in network namespaces (root) instead of on loopback
	IPv6    bool  // in namespaces: IPv6 and no IPv4
	// Segments, in namespaces, is how many networks with a router between them the
	// devices are dealt to in turn, the gateway to the first; 0: one.
	Segments int
	Dir      string // where the site's temporary directory is made; empty: the system's
	Keep     bool   // Close leaves the directory
	// Whole publishes releases without patches: every one comes by chunks.
	Whole bool
	// Server is another web server to serve the origin in namespaces: its command,
	// run in the foreground, with {dir} for the directory and {addr} for IP and port.
	// Empty: the program's own.
	Server []string
}

// Site is a site that exists. Its methods must not be called concurrently, but for
// Close, which may be called at any time and any number of times.
type Site struct {
	cfg    Config
	dir    string
	ground ground
	url    string
	nodes  []*node

	closing sync.Once
	closed  error
}

// node is one device of the site, running or not.
type node struct {
	name, role string
	dir        string
	client     *report.Client
	proc       *process // nil before the first start
}

func (n *node) data() string { return filepath.Join(n.dir, "data") }

// version returns what is in service, or nothing.
func (n *node) version() string {
	to, err := os.Readlink(filepath.Join(n.data(), "current"))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// New makes a site: network, fleet, origin and enrolled devices, none of them
// running yet. On an error nothing is left.
func New(ctx context.Context, cfg Config) (*Site, error) {
	if cfg.Devices < 1 || len(cfg.Program) == 0 {
		return nil, fmt.Errorf("testnet: %d devices of program %q", cfg.Devices, cfg.Program)
	}
	dir, err := os.MkdirTemp(cfg.Dir, "updraft-testnet-")
	if err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	s := &Site{cfg: cfg, dir: dir}
	if err := s.build(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Site) build(ctx context.Context) (err error) {
	if s.ground, err = stand(ctx, s.cfg, s.dir); err != nil {
		return err
	}
	if _, err := s.run(ctx, "init", s.fleet(), "--name", siteName); err != nil {
		return err
	}
	if s.url, err = s.ground.serve(filepath.Join(s.fleet(), "origin")); err != nil {
		return err
	}
	if s.cfg.Gateway {
		s.nodes = append(s.nodes, &node{name: netns.Gateway, role: "gateway"})
	}
	for i := range s.cfg.Devices {
		s.nodes = append(s.nodes, &node{name: netns.Device(i + 1), role: "device"})
	}
	for _, n := range s.nodes {
		if err := s.enroll(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (s *Site) enroll(ctx context.Context, n *node) error {
	n.dir = filepath.Join(s.dir, n.name)
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	n.client = report.Dial(n.data())
	args := []string{"enroll", "--fleet", s.fleet(), "--name", n.name, "--type", "testnet", "--site", siteName,
		"--channel", channel, "--origin", s.url, "-o", filepath.Join(n.dir, "enrollment")}
	if n.role == "gateway" {
		args = append(args, "--gateway")
	}
	_, err := s.run(ctx, args...)
	return err
}

func (s *Site) fleet() string { return filepath.Join(s.dir, "fleet") }

// Dir is the site's directory: the fleet is in fleet, each device in its name.
func (s *Site) Dir() string { return s.dir }

// Data is the data directory of a node.
func (s *Site) Data(name string) string { return filepath.Join(s.dir, name, "data") }

// Nodes returns the names of all devices, the gateway's first.
func (s *Site) Nodes() []string {
	var out []string
	for _, n := range s.nodes {
		out = append(out, n.name)
	}
	return out
}

// Uplink returns the bytes that the uplink has carried towards the site.
func (s *Site) Uplink() int64 {
	down, _, err := s.ground.uplink()
	if err != nil {
		return 0
	}
	return down
}

// Ground names what the site stands on.
func (s *Site) Ground() string {
	if s.cfg.Netns {
		return GroundNetns
	}
	return GroundLoopback
}

// Lab returns the network of a site in namespaces, or nil.
func (s *Site) Lab() *netns.Lab {
	if g, ok := s.ground.(*namespaces); ok {
		return g.lab
	}
	return nil
}

// run runs a command of the program to its end and returns what it printed.
func (s *Site) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.cfg.Program[0], append(append([]string(nil), s.cfg.Program[1:]...), args...)...)
	cmd.Env = append(os.Environ(), s.cfg.Env...)
	// The command ends by itself and leaves nothing half done when it is asked to.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopGrace
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("testnet: updraft %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// find returns the nodes of the names.
func (s *Site) find(names []string) ([]*node, error) {
	var out []*node
	for _, name := range names {
		i := 0
		for i < len(s.nodes) && s.nodes[i].name != name {
			i++
		}
		if i == len(s.nodes) {
			return nil, fmt.Errorf("testnet: no device %q", name)
		}
		out = append(out, s.nodes[i])
	}
	return out, nil
}

// agent starts a node's agent.
func (s *Site) agent(n *node, extra ...string) (err error) {
	argv := append(append([]string(nil), s.cfg.Program...), "agent", "--enrollment", filepath.Join(n.dir, "enrollment"), "--data", n.data())
	if n.role == "gateway" {
		argv = append(argv, "--gateway")
	}
	argv = append(append(argv, s.ground.flags()...), extra...)
	cmd := s.ground.command(n.name, argv...)
	cmd.Env = append(os.Environ(), s.cfg.Env...)
	n.proc, err = start(cmd, filepath.Join(n.dir, "log"))
	return err
}

// Boot starts agents that look for releases only when told to, and waits until
// they have found each other, or for 15 seconds.
func (s *Site) Boot(ctx context.Context, names ...string) error {
	if err := s.Start(names, "--poll", "0"); err != nil {
		return err
	}
	return s.meet(ctx)
}

// Join starts one agent as Boot does, with further flags, and waits like it.
func (s *Site) Join(ctx context.Context, name string, flags ...string) error {
	if err := s.Start([]string{name}, append([]string{"--poll", "0"}, flags...)...); err != nil {
		return err
	}
	return s.meet(ctx)
}

// Start starts agents with flags, one right after the other, and waits for nothing.
func (s *Site) Start(names []string, flags ...string) error {
	nodes, err := s.find(names)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err := s.agent(n, flags...); err != nil {
			return err
		}
	}
	return nil
}

// Signal sends a signal to a node's agent, if it is running.
func (s *Site) Signal(name string, sig syscall.Signal) error {
	nodes, err := s.find([]string{name})
	if err != nil {
		return err
	}
	p := nodes[0].proc
	if p == nil || p.ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("testnet: %w", err)
	}
	return nil
}

// meet waits until all agents that run know all others.
func (s *Site) meet(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, meetTime)
	defer cancel()
	for {
		running, met := 0, 0
		for _, n := range s.nodes {
			if n.proc == nil {
				continue
			}
			if n.proc.ended() {
				return fmt.Errorf("testnet: %s ended: %w", n.name, errors.Join(errEnded, n.proc.result()))
			}
			running++
		}
		for _, n := range s.nodes {
			if n.proc == nil {
				continue
			}
			if st, err := n.client.Status(limit); err == nil && st.Peers >= running-1 {
				met++
			}
		}
		if met == running {
			return nil
		}
		select {
		case <-limit.Done():
			return ctx.Err() // that not all have met is for the rollout to show
		case <-time.After(100 * time.Millisecond):
		}
	}
}

var errEnded = errors.New("the agent is gone")

// Settle installs the newest release on devices, before anything is measured: each
// reads the origin's directory, not the uplink.
func (s *Site) Settle(ctx context.Context, names ...string) error {
	nodes, err := s.find(names)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, n := range nodes {
		g.Go(func() error {
			if err := s.agent(n, "--once", "--no-mdns", "--origin", filepath.Join(s.fleet(), "origin")); err != nil {
				return err
			}
			p := n.proc
			select {
			case <-ctx.Done():
				p.stop()
				return ctx.Err()
			case <-p.done:
				n.proc = nil
				return p.result()
			}
		})
	}
	return g.Wait()
}

// Kill ends agents as a power cut would.
func (s *Site) Kill(names ...string) error {
	nodes, err := s.find(names)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.proc != nil {
			n.proc.kill()
			n.proc = nil
		}
	}
	return nil
}

// Status asks a node's agent.
func (s *Site) Status(ctx context.Context, name string) (report.Status, error) {
	nodes, err := s.find([]string{name})
	if err != nil {
		return report.Status{}, err
	}
	return nodes[0].client.Status(ctx)
}

// Close ends all processes and removes the site.
func (s *Site) Close() error {
	s.closing.Do(func() { s.closed = s.close() })
	return s.closed
}

func (s *Site) close() error {
	var wg sync.WaitGroup
	for _, n := range s.nodes {
		if p := n.proc; p != nil {
			wg.Go(p.stop)
		}
	}
	wg.Wait()
	var errs []error
	if s.ground != nil {
		errs = append(errs, s.ground.close())
	}
	if !s.cfg.Keep {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
