package mdns_test

import (
	"context"
	"crypto/rand"
	"flag"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"updraft/discovery"
	"updraft/discovery/mdns"
	"updraft/testnet/leaks"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// inside makes sure that the test runs in a network namespace of its own, where
// it may make interfaces and where nobody else talks. It runs the test again in a
// child process that has one; the parent returns true when that is done.
func inside(t *testing.T) (done bool) {
	t.Helper()
	if os.Getenv("UPDRAFT_TEST_NETNS") == t.Name() {
		return false
	}
	if testing.Short() {
		t.Skip("real multicast is left out by -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("needs unshare(1)")
	}
	if err := exec.Command(unshare, "--net", "true").Run(); err != nil {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	t.Parallel()
	c := exec.Command(unshare, "--net", "--mount", os.Args[0], "-test.v", "-test.timeout="+limit(), "-test.run=^"+t.Name()+"$")
	c.Env = append(os.Environ(), "UPDRAFT_TEST_NETNS="+t.Name())
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// limit is the time that a child process may take.
func limit() string {
	if f := flag.Lookup("test.timeout"); f != nil && f.Value.String() != "0s" {
		return f.Value.String()
	}
	return "10m"
}

// ip runs ip(8).
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// device is one Source and what it has found.
type device struct {
	id  peer.ID
	src *mdns.Source

	mu    sync.Mutex // guards all below
	addrs []ma.Multiaddr
	found map[peer.ID]peer.AddrInfo
	errs  []error // as reported
}

func newID(t testing.TB) peer.ID {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func addrsOf(t testing.TB, texts ...string) []ma.Multiaddr {
	t.Helper()
	var out []ma.Multiaddr
	for _, s := range texts {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

func newDevice(t testing.TB, cfg mdns.Config, addrs ...string) *device {
	t.Helper()
	d := &device{id: newID(t), found: make(map[peer.ID]peer.AddrInfo), addrs: addrsOf(t, addrs...)}
	cfg.Report = func(err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.errs = append(d.errs, err)
	}
	d.src = mdns.New(cfg)
	return d
}

func (d *device) self() peer.AddrInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	return peer.AddrInfo{ID: d.id, Addrs: d.addrs}
}

func (d *device) move(addrs []ma.Multiaddr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs = addrs
}

// start runs the device until the returned function is called, or the test ends.
func (d *device) start(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events, ended := make(chan discovery.Event), make(chan struct{})
	go func() {
		defer close(ended)
		if err := d.src.Run(ctx, d.self, events); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	go func() {
		for {
			select {
			case ev := <-events:
				d.note(ev)
			case <-ended:
				return
			}
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	return stop
}

func (d *device) note(ev discovery.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ev.Gone {
		delete(d.found, ev.Peer.ID)
		return
	}
	d.found[ev.Peer.ID] = ev.Peer
}

func (d *device) knows(id peer.ID) []ma.Multiaddr {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.found[id].Addrs
}

func (d *device) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.found)
}

// state is the last thing the device reported.
func (d *device) state() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.errs) == 0 {
		return nil
	}
	return d.errs[len(d.errs)-1]
}

// eventually waits for a condition; the limit only bounds a failing test.
func eventually(t testing.TB, what string, limit time.Duration, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// settled makes sure that no goroutine of the package is left.
func settled(t *testing.T) {
	t.Helper()
	if left := leaks.Left("discovery/mdns."); left != "" {
		t.Errorf("goroutines left:\n%s", left)
	}
}

func siteKey(n byte) (k [32]byte) {
	k[0], k[31] = n, 0x5a
	return k
}
