package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta"
	"updraft/delta/patch"
	"updraft/delta/release"
	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/report"
	"updraft/swarm"
	"updraft/swarm/limit"
	"updraft/swarm/origin"
)

// site is a fleet with an origin on loopback and agents in this process.
type site struct {
	t     *testing.T
	fleet *fleet.Fleet
	dir   string
	url   string
	link  limit.Counters
	peers []string
	n     int
	spoil func(m *release.Manifest) // what goes wrong when a release is published; nil: nothing

	deltas int // for how many earlier releases patches are made
}

func newSite(t *testing.T, rate int64) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), deltas: 3}
	f, err := fleet.Init(filepath.Join(s.dir, "fleet"), fleet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.fleet = f
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := origin.Serve(ctx, limit.Listener(l, rate, &s.link), f.Origin(), origin.ServerOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

// installed returns a site, and its only device, which has release 1.0.0 in service.
func installed(t *testing.T) (*site, *agent) {
	t.Helper()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	a := s.start(s.enroll(nil))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	return s, a
}

// publish makes a release of the inputs and returns its manifest.
func (s *site) publish(version string, in ...delta.Input) *release.Manifest {
	s.t.Helper()
	return s.publishAs(patch.Plain, version, in...)
}

func (s *site) publishAs(profile patch.Profile, version string, in ...delta.Input) *release.Manifest {
	s.t.Helper()
	return s.publishOn("stable", profile, version, in...)
}

func (s *site) publishOn(channel string, profile patch.Profile, version string, in ...delta.Input) *release.Manifest {
	s.t.Helper()
	m, err := s.fleet.Publish(context.Background(), fleet.PublishOptions{Channel: channel, Version: version}, func(ctx context.Context, j fleet.Job) (*release.Manifest, error) {
		m, _, err := delta.Build(ctx, in, delta.BuildOptions{Out: j.Staging, Origin: j.Origin, Channel: j.Channel, Version: j.Version,
			Types: j.Types, Sequence: j.Sequence, Created: j.Created, Previous: j.Previous, Deltas: s.deltas, Scratch: j.Scratch,
			Patch: patch.Options{Profile: profile}})
		if err == nil && s.spoil != nil {
			s.spoil(m)
		}
		return m, err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// write makes an input file.
func (s *site) write(name string, b []byte) delta.Input {
	s.t.Helper()
	p := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o755); err != nil {
		s.t.Fatal(err)
	}
	return delta.Input{Path: p, Name: "app.bin"}
}

// agent is a running node.
type agent struct {
	t    *testing.T
	cfg  node.Config
	data string
	stop context.CancelFunc
	done chan error
	node *node.Node
}

func (s *site) enroll(change func(*node.Config)) node.Config {
	s.t.Helper()
	return s.enrollBy(s.fleet, fleet.EnrollOptions{Origins: []string{s.url}}, change)
}

// enrollBy is enroll, by f and with options of which it fills in who the device is.
func (s *site) enrollBy(f *fleet.Fleet, o fleet.EnrollOptions, change func(*node.Config)) node.Config {
	s.t.Helper()
	s.n++
	name := fmt.Sprintf("dev%d", s.n)
	o.Name, o.Type, o.Site = name, "lab", "lab"
	e, err := f.Enroll(o)
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.dir, name+".updraft")
	if err := e.Write(path); err != nil {
		s.t.Fatal(err)
	}
	cfg := node.DefaultConfig()
	cfg.Enrollment, cfg.Data = path, filepath.Join(s.dir, name)
	cfg.MDNS, cfg.Poll = false, 0
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("dev", name)
	}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

// start runs an agent that knows those started before; change is called before it runs.
func (s *site) start(cfg node.Config, change ...func(*node.Node)) *agent {
	s.t.Helper()
	cfg.Peers = append([]string(nil), s.peers...)
	n, err := node.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range change {
		f(n)
	}
	ctx, stop := context.WithCancel(context.Background())
	a := &agent{t: s.t, cfg: cfg, data: cfg.Data, stop: stop, done: make(chan error, 1), node: n}
	go func() { a.done <- n.Run(ctx) }()
	s.t.Cleanup(a.end)
	s.peers = append(s.peers, n.Addrs()...)
	return a
}

func (a *agent) end() {
	a.stop()
	if a.done == nil {
		return
	}
	if err := <-a.done; err != nil && !errors.Is(err, context.Canceled) {
		a.t.Error(err)
	}
	a.done = nil
}

func (a *agent) await(what string, ok func(report.Status) bool) report.Status {
	a.t.Helper()
	deadline := time.Now().Add(2 * time.Minute) // a hang, however slow the machine is
	for {
		st := a.node.Status()
		if ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("%s: not %s: %+v", st.Name, what, st)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (a *agent) awaitVersion(v string) report.Status {
	a.t.Helper()
	return a.await("on "+v, func(s report.Status) bool { return s.Current == v })
}

func (a *agent) awaitPeers(n int) {
	a.t.Helper()
	a.await(fmt.Sprint(n, " peers"), func(s report.Status) bool { return s.Peers >= n })
}

func (a *agent) sees(want []byte) {
	a.t.Helper()
	got, err := os.ReadFile(filepath.Join(a.data, "current", "app.bin"))
	if err != nil {
		a.t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		a.t.Fatalf("%s: installed file differs", a.data)
	}
}

// skipPublishing skips, with -short, a test that spends its time publishing, which the race detector
// slows down: what runs at once in it does so in others, too.
func skipPublishing(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("publishes much")
	}
}

// noise is incompressible and reproducible.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	if _, err := r.Read(b); err != nil {
		panic(err)
	}
	return b
}

// edited is b with a few regions changed and one inserted.
func edited(b []byte) []byte {
	out := append([]byte(nil), b...)
	for i := range 20 {
		copy(out[i*len(out)/20:], noise(uint64(i+100), 200))
	}
	mid := len(out) / 2
	return append(append(append([]byte(nil), out[:mid]...), noise(9, 777)...), out[mid:]...)
}

func TestSiteDownloadsOnce(t *testing.T) {
	s := newSite(t, 10<<20)
	size := 24 << 20
	if testing.Short() {
		size = 6 << 20
	}
	v1 := noise(1, size)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	var as []*agent
	for range 4 {
		as = append(as, s.start(s.enroll(nil)))
	}
	for _, a := range as {
		a.awaitPeers(3)
	}
	for _, a := range as {
		go func() { _, _ = a.node.Check(context.Background()) }()
	}
	for _, a := range as {
		a.awaitVersion("1.0.0")
		a.sees(v1)
	}
	if out := s.link.Out.Load(); out > int64(size+size/24+64<<10) {
		t.Errorf("uplink carried %d bytes for %d", out, len(v1))
	}

	v2 := edited(v1)
	m := s.publish("1.1.0", s.write("v2/app.bin", v2))
	before := s.link.Out.Load()
	for _, a := range as {
		go func() { _, _ = a.node.Check(context.Background()) }()
	}
	for _, a := range as {
		a.awaitVersion("1.1.0")
		a.sees(v2)
	}
	if len(m.Artifacts[0].Patches) != 1 {
		t.Fatalf("%d patches", len(m.Artifacts[0].Patches))
	}
	p := m.Artifacts[0].Patches[0].Size
	if out := s.link.Out.Load() - before; out > p+p/20+8<<10 {
		t.Errorf("uplink carried %d bytes for a patch of %d", out, p)
	}
}

// TestOneLooksForAll: what the looks of an idle site cost does not grow with its devices.
func TestOneLooksForAll(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for looks")
	}
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 1<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	var as []*agent
	// cost returns what comes from the origin while each device looks some times.
	cost := func() int64 {
		before := s.link.Out.Load()
		var wg sync.WaitGroup
		for _, a := range as {
			wg.Go(func() {
				last := a.node.Status().LastCheck
				for range 5 {
					st := a.await("looking again", func(st report.Status) bool { return st.LastCheck.After(last) })
					last = st.LastCheck
				}
			})
		}
		wg.Wait()
		return s.link.Out.Load() - before
	}
	enter := func() {
		a := s.start(s.enroll(func(c *node.Config) { c.Poll = 2 * time.Second }))
		a.awaitPeers(len(as))
		a.awaitVersion("1.0.0")
		if err := check(a); err != nil { // by itself, once: that is what a first look costs
			t.Fatal(err)
		}
		as = append(as, a)
	}
	enter()
	one := cost()
	for range 4 {
		enter()
	}
	// Who looks for all may be asked shortly before its own turn, and be busy when it is asked.
	all := cost()
	t.Logf("%d bytes for %d devices, %d for one", all, len(as), one)
	if one == 0 || all > 3*one {
		t.Error("each looks for itself")
	}

	// Nobody is asked for the lease meanwhile.
	sw := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "other", Site: "lab"}), as[0])
	for _, a := range as[1:] {
		to, err := peer.AddrInfoFromString(a.node.Addrs()[0])
		if err != nil {
			t.Fatal(err)
		}
		sw.Connect(*to)
	}
	for _, a := range as {
		a.awaitPeers(len(as))
	}
	epoch := func() uint64 {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		lease, err := sw.Acquire(ctx, swarm.AcquireOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer lease.Release()
		return lease.Epoch()
	}
	before := epoch()
	cost()
	if after := epoch(); after != before+1 {
		t.Errorf("the lease was claimed %d times", after-before-1)
	}
}

func TestOneBaseServesTheSite(t *testing.T) {
	t.Parallel()
	s := newSite(t, 10<<20)
	v1 := noise(1, 8<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	first := s.start(s.enroll(nil))
	if _, err := first.node.Check(context.Background()); err != nil {
		t.Fatal(err)
	}
	first.awaitVersion("1.0.0")
	v2 := edited(v1)
	m := s.publish("1.1.0", s.write("v2/app.bin", v2))
	as := []*agent{first}
	for range 3 {
		as = append(as, s.start(s.enroll(nil)))
	}
	for _, a := range as {
		a.awaitPeers(3)
	}
	before := s.link.Out.Load()
	for _, a := range as {
		go func() { _, _ = a.node.Check(context.Background()) }()
	}
	for _, a := range as {
		a.awaitVersion("1.1.0")
		a.sees(v2)
	}
	p := m.Artifacts[0].Patches[0].Size
	if out := s.link.Out.Load() - before; out > p+p/20+8<<10 {
		t.Errorf("uplink carried %d bytes for a patch of %d", out, p)
	}
}

func TestTreeAndLateJoiner(t *testing.T) {
	t.Parallel()
	s := newSite(t, 10<<20)
	root := filepath.Join(s.dir, "app")
	for i := range 40 {
		s.write(fmt.Sprintf("app/d%d/f%d", i%4, i), noise(uint64(i), 1000+i*9000))
	}
	if err := os.Symlink("d1/f1", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	s.publish("1.0.0", delta.Input{Path: root, Name: "app"})
	a, b := s.start(s.enroll(nil)), s.start(s.enroll(nil))
	a.awaitPeers(1)
	for _, x := range []*agent{a, b} {
		go func() { _, _ = x.node.Check(context.Background()) }()
	}
	for _, x := range []*agent{a, b} {
		x.awaitVersion("1.0.0")
		sameTree(t, root, filepath.Join(x.data, "current", "app"))
	}
	s.write("app/d1/f1", noise(77, 5000))
	if err := os.Remove(filepath.Join(root, "d2", "f2")); err != nil {
		t.Fatal(err)
	}
	s.publish("2.0.0", delta.Input{Path: root, Name: "app"})
	for _, x := range []*agent{a, b} {
		go func() { _, _ = x.node.Check(context.Background()) }()
	}
	for _, x := range []*agent{a, b} {
		x.awaitVersion("2.0.0")
		sameTree(t, root, filepath.Join(x.data, "current", "app"))
	}
	before := s.link.Out.Load()
	c := s.start(s.enroll(nil))
	c.awaitVersion("2.0.0")
	sameTree(t, root, filepath.Join(c.data, "current", "app"))
	if out := s.link.Out.Load() - before; out > 0 {
		t.Errorf("late joiner: uplink carried %d bytes", out)
	}
}

// TestLateJoinerOfASlowNeighbour: the only device that has the release may send so little that a chunk takes seconds. What
// it has is not fetched over the uplink meanwhile.
func TestLateJoinerOfASlowNeighbour(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 48<<10)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(func(c *node.Config) { c.LANRate = 8 << 10 }))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	before := s.link.Out.Load()
	late := s.start(s.enroll(nil))
	counted := false
	late.await("on 1.0.0", func(st report.Status) bool {
		has := len(st.Why) > 0 && strings.Contains(st.Why[0], "has it complete")
		if counted = counted || has; counted && !has {
			t.Fatalf("the neighbour is no longer counted on: %v", st.Why)
		}
		return st.Current == "1.0.0"
	})
	late.sees(v1)
	if n := s.link.Out.Load() - before; n > 0 {
		t.Errorf("%d bytes came over the uplink", n)
	}
}

func TestRestartKeepsWhatWasVerified(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	v1 := noise(1, 16<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(nil))
	go func() { _, _ = a.node.Check(context.Background()) }()
	a.await("half way", func(st report.Status) bool { return st.Progress != nil && st.Progress.Have > 6<<20 })
	a.end()
	a = s.start(a.cfg)
	go func() { _, _ = a.node.Check(context.Background()) }()
	a.awaitVersion("1.0.0")
	a.sees(v1)
	// Six MiB were here when it ended; what was on its way then comes again, more of it on a busy machine.
	if out := s.link.Out.Load(); out > 20<<20 {
		t.Errorf("uplink carried %d bytes for %d", out, len(v1))
	}
}

func TestChangedBaseIsNotTrusted(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 4<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(nil))
	_, _ = a.node.Check(context.Background())
	a.awaitVersion("1.0.0")
	f, err := os.OpenFile(filepath.Join(a.data, "current", "app.bin"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{^v1[1<<20]}, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	v2 := edited(v1)
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	a.await("aware of 1.1.0", func(st report.Status) bool {
		_, _ = a.node.Check(context.Background())
		return st.Target == "1.1.0"
	})
	st := a.awaitVersion("1.1.0")
	a.sees(v2)
	if len(st.Problems) == 0 || st.Problems[0].Code != "base" {
		t.Errorf("problems %+v", st.Problems)
	}
}

// TestChangedFileIsLeftAlone: what an application has changed of its file a neighbour that asks for it finds out; the device
// does not fetch it again, for it could not be written.
func TestChangedFileIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 1<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(nil))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	v1[1<<19]++
	if err := os.WriteFile(filepath.Join(a.data, "current", "app.bin"), v1, 0o755); err != nil {
		t.Fatal(err)
	}
	b := s.start(s.enroll(nil))
	b.awaitVersion("1.0.0")
	time.Sleep(time.Second) // that it would be asked for in
	if n := a.node.Status().Bytes.LANIn; n > 0 {
		t.Errorf("%d bytes came for a file that is in service", n)
	}
}

func sameTree(t *testing.T, want, got string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(want, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		rel, _ := filepath.Rel(want, p)
		q := filepath.Join(got, rel)
		wi, err1 := os.Lstat(p)
		gi, err2 := os.Lstat(q)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if wi.Mode() != gi.Mode() {
			t.Errorf("%s: mode %v, want %v", rel, gi.Mode(), wi.Mode())
		}
		if wi.Mode().IsRegular() {
			a, err1 := os.ReadFile(p)
			b, err2 := os.ReadFile(q)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			if !bytes.Equal(a, b) {
				t.Errorf("%s differs", rel)
			}
			if !wi.ModTime().Equal(gi.ModTime()) {
				t.Errorf("%s: time %v, want %v", rel, gi.ModTime(), wi.ModTime())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m := 0
	_ = filepath.WalkDir(got, func(string, os.DirEntry, error) error { m++; return nil })
	if n != m {
		t.Errorf("%d entries, want %d", m, n)
	}
}
