package testnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"updraft/swarm/limit"
	"updraft/swarm/origin"
	"updraft/testnet/netns"
)

// Grounds that a site can stand on.
const (
	GroundLoopback = "loopback"
	GroundNetns    = "netns"
)

// ground is the network a site stands on.
type ground interface {
	// command returns a command that runs on a node.
	command(node string, argv ...string) *exec.Cmd
	// serve starts the origin and returns its URL. It is called once.
	serve(dir string) (url string, err error)
	// uplink returns the bytes that the uplink has carried, towards the site and away.
	uplink() (down, up int64, err error)
	// flags are what an agent needs besides enrollment and data.
	flags() []string
	// close ends what serve started and removes the network.
	close() error
}

// loopback is this machine, with an origin in this process.
type loopback struct {
	rate, lan int64
	count     limit.Counters
	stop      context.CancelFunc
	served    chan error
}

func (g *loopback) command(_ string, argv ...string) *exec.Cmd {
	return exec.Command(argv[0], argv[1:]...)
}

func (g *loopback) serve(dir string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("testnet: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	g.stop, g.served = stop, make(chan error, 1)
	go func() {
		g.served <- origin.Serve(ctx, limit.Listener(l, g.rate, &g.count), dir, origin.ServerOptions{})
	}()
	return "http://" + l.Addr().String(), nil
}

func (g *loopback) uplink() (down, up int64, err error) {
	return g.count.Out.Load(), g.count.In.Load(), nil
}

func (g *loopback) flags() []string {
	f := []string{"--listen", "/ip4/127.0.0.1/tcp/0"}
	if g.lan > 0 {
		f = append(f, "--lan-rate", strconv.FormatInt(g.lan, 10))
	}
	return f
}

func (g *loopback) close() error {
	if g.stop == nil {
		return nil
	}
	g.stop()
	return <-g.served
}

// namespaces is a lab; the origin is the program's own server, or another.
type namespaces struct {
	lab     *netns.Lab
	program []string
	other   []string
	env     []string
	log     string
	server  *process
}

func (g *namespaces) command(node string, argv ...string) *exec.Cmd {
	return g.lab.Command(context.Background(), node, argv...)
}

func (g *namespaces) serve(dir string) (string, error) {
	addr := net.JoinHostPort(g.lab.Addr(netns.Origin), "8080")
	argv := append(append([]string(nil), g.program...), "serve", dir, "--listen", addr)
	if len(g.other) > 0 {
		argv = nil
		for _, a := range g.other {
			argv = append(argv, strings.NewReplacer("{dir}", dir, "{addr}", addr).Replace(a))
		}
	}
	cmd := g.command(netns.Origin, argv...)
	cmd.Env = append(os.Environ(), g.env...)
	var err error
	if g.server, err = start(cmd, g.log); err != nil {
		return "", err
	}
	for i := range 200 {
		// Another server says nothing: agents ask again until it answers.
		if strings.Contains(tail(g.log), "msg=serving") || len(g.other) > 0 && i > 20 {
			return "http://" + addr, nil
		}
		select {
		case <-g.server.done:
			return "", errors.Join(errors.New("testnet: the origin's server ended"), g.server.result())
		case <-time.After(25 * time.Millisecond):
		}
	}
	return "", errors.New("testnet: the origin's server does not start")
}

func (g *namespaces) uplink() (down, up int64, err error) { return g.lab.Uplink() }

func (g *namespaces) flags() []string { return nil }

func (g *namespaces) close() error {
	if g.server != nil {
		g.server.stop()
	}
	return g.lab.Close()
}

// stand makes the ground for a site.
func stand(ctx context.Context, cfg Config, dir string) (ground, error) {
	if !cfg.Netns {
		return &loopback{rate: cfg.Uplink, lan: cfg.LAN}, nil
	}
	// What goes up are requests and acknowledgements: a quarter of the rate is ample.
	lab, err := netns.New(ctx, netns.Config{Devices: cfg.Devices, Down: cfg.Uplink, Up: cfg.Uplink / 4, LAN: cfg.LAN, IPv6: cfg.IPv6, Segments: cfg.Segments})
	if err != nil {
		return nil, err
	}
	return &namespaces{lab: lab, program: cfg.Program, other: cfg.Server, env: cfg.Env, log: filepath.Join(dir, "origin.log")}, nil
}
