package swarm_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	mrand "math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/swarm"
	"updraft/swarm/lease"
)

var errFull = errors.New("disk is full")

// memory is an object held in memory.
type memory struct {
	mu   sync.Mutex // guards what follows
	data [][]byte
	puts []int
	lost map[int]bool
}

func (b *memory) Has(i int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data[i] != nil
}

func (b *memory) Get(i int, buf []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.data[i] == nil || b.lost[i] {
		return nil, fs.ErrNotExist
	}
	return append(buf, b.data[i]...), nil
}

func (b *memory) Put(i int, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data[i] = bytes.Clone(data)
	b.puts[i]++
	return nil
}

// content is an object and its bytes.
type content struct {
	swarm.Object
	data [][]byte
}

// makeContent draws n blobs of about size bytes from a seed.
func makeContent(seed uint64, n, size int) content {
	r := mrand.New(mrand.NewPCG(seed, 1))
	var c content
	h := sha256.New()
	for i := range n {
		b := make([]byte, size/2+r.IntN(size))
		for j := 0; j+8 <= len(b); j += 8 {
			x := r.Uint64()
			for k := range 8 {
				b[j+k] = byte(x >> (8 * k))
			}
		}
		b[0] = byte(i)
		c.data = append(c.data, b)
		s := sha256.Sum256(b)
		h.Write(s[:])
		c.Sums = append(c.Sums, s)
		c.Sizes = append(c.Sizes, uint32(len(b)))
	}
	h.Sum(c.ID[:0])
	return c
}

func (c content) bytes() (n int64) {
	for _, b := range c.data {
		n += int64(len(b))
	}
	return n
}

// holding returns a store that has the blobs for which has is true.
func (c content) holding(has func(i int) bool) *memory {
	b := &memory{data: make([][]byte, len(c.data)), puts: make([]int, len(c.data)), lost: map[int]bool{}}
	for i, d := range c.data {
		if has(i) {
			b.data[i] = d
		}
	}
	return b
}

func (c content) full() *memory  { return c.holding(func(int) bool { return true }) }
func (c content) empty() *memory { return c.holding(func(int) bool { return false }) }

// device is a running swarm.
type device struct {
	*swarm.Swarm
	host host.Host
	stop context.CancelFunc
	done chan struct{}
}

func (d *device) info() peer.AddrInfo { return peer.AddrInfo{ID: d.host.ID(), Addrs: d.host.Addrs()} }

func (d *device) close() {
	d.stop()
	<-d.done
	d.host.Close()
}

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := crypto.UnmarshalEd25519PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// start runs a swarm on a real host on loopback; change may edit its configuration.
func start(t testing.TB, change func(*swarm.Config)) *device {
	t.Helper()
	gate := new(swarm.Gate)
	h, err := swarm.NewHost(swarm.HostConfig{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Gate: gate})
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, h, gate, change)
}

func startOn(t testing.TB, h host.Host, gate *swarm.Gate, change func(*swarm.Config)) *device {
	t.Helper()
	cfg := swarm.Config{
		Host: h, Gate: gate, Credential: []byte("fleet"), Settle: -1,
		Admit: func(id peer.ID, cred []byte) (swarm.Identity, error) {
			if string(cred) != "fleet" {
				return swarm.Identity{}, errors.New("another fleet")
			}
			return swarm.Identity{Name: id.ShortString(), Type: "test", Gateway: true}, nil
		},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := swarm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &device{Swarm: s, host: h, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(d.close)
	return d
}

// mesh connects everybody with everybody, both ways, as discovery would.
func mesh(ds ...*device) {
	for _, a := range ds {
		for _, b := range ds {
			if a != b {
				a.Connect(b.info())
			}
		}
	}
}

// eventually waits until cond holds for d.
func eventually(t testing.TB, d *device, what string, cond func() bool) {
	t.Helper()
	end := time.After(20 * time.Second)
	for {
		ch := d.Changed()
		if cond() {
			return
		}
		select {
		case <-ch:
		case <-time.After(20 * time.Millisecond):
		case <-end:
			t.Fatalf("%s: did not happen", what)
		}
	}
}

func startMesh(t testing.TB, n int, change func(*swarm.Config)) []*device {
	t.Helper()
	ds := make([]*device, n)
	for i := range ds {
		ds[i] = start(t, change)
	}
	mesh(ds...)
	for _, d := range ds {
		eventually(t, d, "full mesh", func() bool { return len(d.Members()) == n-1 })
	}
	return ds
}

func wait(t testing.TB, d *device, c content) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := d.Wait(ctx, c.ID); err != nil {
		have, total := d.Progress(c.ID)
		t.Fatalf("wait: %v (%d of %d)", err, have, total)
	}
}

func check(t testing.TB, c content, b *memory) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range c.data {
		if !bytes.Equal(c.data[i], b.data[i]) {
			t.Fatalf("blob %d differs", i)
		}
		if b.puts[i] > 1 {
			t.Errorf("blob %d was put %d times", i, b.puts[i])
		}
	}
}

func TestInjectReachesEverybody(t *testing.T) {
	for _, n := range []int{2, 3, 8} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			ds := startMesh(t, n, nil)
			c := makeContent(uint64(n), 100, 32<<10)
			stores := make([]*memory, n)
			for i, d := range ds {
				stores[i] = c.empty()
				if err := d.Open(c.Object, stores[i], swarm.OpenOptions{Receive: true}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range c.data {
				stores[0].Put(i, c.data[i])
				ds[0].Inject(c.ID, i, c.data[i])
			}
			for i, d := range ds {
				wait(t, d, c)
				check(t, c, stores[i])
				cnt := d.Counters()
				t.Logf("device %d: in %.2f out %.2f dup %.3f pulled %d redelegated %d", i, float64(cnt.BytesIn)/float64(c.bytes()), float64(cnt.BytesOut)/float64(c.bytes()), float64(cnt.DupBytes)/float64(c.bytes()), cnt.Pulled, cnt.Redelegated)
			}
		})
	}
}

func TestLateJoinerPulls(t *testing.T) {
	ds := startMesh(t, 3, nil)
	c := makeContent(7, 200, 64<<10)
	for _, d := range ds[:2] {
		if err := d.Open(c.Object, c.full(), swarm.OpenOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	b := c.empty()
	if err := ds[2].Open(c.Object, b, swarm.OpenOptions{Receive: true}); err != nil {
		t.Fatal(err)
	}
	wait(t, ds[2], c)
	check(t, c, b)
	if n := ds[2].Missing(c.ID); len(n) != 0 {
		t.Errorf("missing %v", n)
	}
	if cnt := ds[2].Counters(); cnt.DupBytes > c.bytes()/20 {
		t.Errorf("duplicates: %d of %d bytes", cnt.DupBytes, c.bytes())
	}
}

func TestProfileRequestAndInvoke(t *testing.T) {
	ds := startMesh(t, 2, func(c *swarm.Config) {
		c.Files = func(name string) ([]byte, error) {
			if name == "metadata/1.json" {
				return []byte("content"), nil
			}
			return nil, fs.ErrNotExist
		}
		c.Call = func(_ context.Context, from peer.ID, method string, arg []byte) ([]byte, error) {
			if method == "fail" {
				return nil, errors.New("no such thing")
			}
			return append([]byte(method+":"), arg...), nil
		}
	})
	a, b := ds[0], ds[1]
	p := swarm.Profile{Rank: lease.Rank{Gateway: true, Up: 77}, Node: bytes.Repeat([]byte("x"), 16<<10)}
	if err := a.Announce(p); err != nil {
		t.Fatal(err)
	}
	eventually(t, b, "profile", func() bool { m := b.Members()[0].Profile; return len(m.Node) == 16<<10 && m.Rank.Gateway })
	if err := a.Announce(swarm.Profile{Node: make([]byte, 16<<10+1)}); !errors.Is(err, swarm.ErrTooLarge) {
		t.Errorf("large profile: %v", err)
	}
	ctx := context.Background()
	if got, err := a.Request(ctx, b.host.ID(), "metadata/1.json", 100); err != nil || string(got) != "content" {
		t.Errorf("request: %q, %v", got, err)
	}
	if _, err := a.Request(ctx, b.host.ID(), "other", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unknown file: %v", err)
	}
	if _, err := a.Request(ctx, b.host.ID(), "metadata/1.json", 3); !errors.Is(err, swarm.ErrTooLarge) {
		t.Errorf("limit: %v", err)
	}
	if got, err := b.Invoke(ctx, a.host.ID(), "m", []byte("arg")); err != nil || string(got) != "m:arg" {
		t.Errorf("invoke: %q, %v", got, err)
	}
	var remote *swarm.RemoteError
	if _, err := b.Invoke(ctx, a.host.ID(), "fail", nil); !errors.As(err, &remote) || remote.Text != "no such thing" {
		t.Errorf("failing call: %v", err)
	}
	if _, err := b.Invoke(ctx, "nobody", "m", nil); !errors.Is(err, swarm.ErrNotMember) {
		t.Errorf("stranger: %v", err)
	}
}

func TestLeasePassesOn(t *testing.T) {
	ds := startMesh(t, 3, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	first, err := ds[0].Acquire(ctx, swarm.AcquireOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, ds[1], "holder is known", func() bool { id, ok := ds[1].Holder(); return ok && id == ds[0].host.ID() })
	var held *swarm.HeldError
	if _, err := ds[1].Acquire(ctx, swarm.AcquireOptions{NoWait: true}); !errors.As(err, &held) || held.By != ds[0].host.ID() {
		t.Fatalf("second acquire: %v", err)
	}
	if _, err := ds[0].Acquire(ctx, swarm.AcquireOptions{}); !errors.Is(err, swarm.ErrLeaseInUse) {
		t.Fatalf("acquire while held: %v", err)
	}
	got := make(chan *swarm.Tenure, 1)
	go func() {
		tn, err := ds[1].Acquire(ctx, swarm.AcquireOptions{})
		if err != nil {
			t.Error(err)
		}
		got <- tn
	}()
	first.Release()
	<-first.Lost()
	second := <-got
	if second == nil || second.Epoch() <= first.Epoch() {
		t.Fatalf("second tenure: %+v", second)
	}
	second.Release()
	short, end := context.WithTimeout(ctx, 50*time.Millisecond)
	defer end()
	third, err := ds[2].Acquire(ctx, swarm.AcquireOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ds[0].Acquire(short, swarm.AcquireOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("acquire with a deadline: %v", err)
	}
	third.Release()
}

// TestAddressInUse: a host that cannot listen leaves nothing behind; TestMain sees to that.
func TestAddressInUse(t *testing.T) {
	a := start(t, nil)
	if _, err := swarm.NewHost(swarm.HostConfig{Key: newKey(t), Listen: []string{a.host.Addrs()[0].String()}}); !errors.Is(err, swarm.ErrListen) {
		t.Errorf("a second host at the same address: %v", err)
	}
}

func TestOutsiderIsRefused(t *testing.T) {
	a := start(t, nil)
	b := start(t, func(c *swarm.Config) {
		c.Credential = []byte("other")
		c.Admit = func(peer.ID, []byte) (swarm.Identity, error) { return swarm.Identity{}, nil }
	})
	b.Connect(a.info())
	a.Connect(b.info())
	time.Sleep(300 * time.Millisecond)
	if len(a.Members()) != 0 || len(b.Members()) != 0 {
		t.Errorf("members: %v %v", a.Members(), b.Members())
	}
}

// TestRenewedWhileRefused: a device's credential changes while a peer is about to refuse the one before. It shows the
// new one soon, not when a refusal is forgotten.
func TestRenewedWhileRefused(t *testing.T) {
	var a *device
	b := start(t, func(c *swarm.Config) {
		admit := c.Admit
		c.Admit = func(id peer.ID, cred []byte) (swarm.Identity, error) {
			if string(cred) == "ended" {
				if err := a.SetCredential([]byte("fleet")); err != nil {
					t.Error(err)
				}
			}
			return admit(id, cred)
		}
	})
	a = start(t, func(c *swarm.Config) { c.Credential = []byte("ended") })
	a.Connect(b.info())
	eventually(t, a, "a member", func() bool { return len(a.Members()) == 1 })
}

// leavers notes why members left.
type leavers struct {
	slog.Handler

	mu  sync.Mutex
	why []string
}

func (l *leavers) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "member left" {
		l.mu.Lock()
		defer l.mu.Unlock()
		r.Attrs(func(a slog.Attr) bool { l.why = append(l.why, a.String()); return true })
	}
	return nil
}

// TestFullHouse: a device that has as many members as it takes exchanges blobs with all of them.
func TestFullHouse(t *testing.T) {
	if testing.Short() {
		t.Skip("96 hosts")
	}
	const leaves = swarm.DefaultMaxPeers - 1
	l := &leavers{Handler: slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})}
	hub := start(t, func(c *swarm.Config) { c.Log = slog.New(l) })
	ds := []*device{hub}
	for range leaves {
		d := start(t, nil)
		d.Connect(hub.info())
		ds = append(ds, d)
	}
	eventually(t, hub, "a full house", func() bool { return len(hub.Members()) == leaves })
	c := makeContent(1, 2*leaves, 16<<10)
	for k, d := range ds {
		if err := d.Open(c.Object, c.holding(func(i int) bool { return k > 0 && i/2 == k-1 }), swarm.OpenOptions{Receive: true}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for k, d := range ds {
		if err := d.Wait(ctx, c.ID); err != nil {
			t.Errorf("device %d: %v", k, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.why) > 0 {
		t.Errorf("members left: %q", l.why)
	}
}
