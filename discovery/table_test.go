package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"updraft/discovery"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

func info(t testing.TB, id string, addrs ...string) peer.AddrInfo {
	t.Helper()
	ai := peer.AddrInfo{ID: peer.ID(id)}
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		ai.Addrs = append(ai.Addrs, a)
	}
	return ai
}

func me() peer.AddrInfo { return peer.AddrInfo{ID: "me"} }

// script is a source whose words the test speaks.
type script struct {
	name string
	say  chan discovery.Event
	fail chan error
	runs chan time.Time
}

func newScript(name string) *script {
	return &script{name, make(chan discovery.Event), make(chan error), make(chan time.Time, 100)}
}

func (s *script) Name() string { return s.name }

func (s *script) Run(ctx context.Context, self func() peer.AddrInfo, events chan<- discovery.Event) error {
	s.runs <- time.Now()
	for {
		select {
		case ev := <-s.say:
			ev.Source = s.name
			events <- ev
		case err := <-s.fail:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// record collects what a table tells.
type record struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (r *record) notify(ev discovery.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sign := "+"
	if ev.Gone {
		sign = "-"
	}
	var addrs []string
	for _, a := range ev.Peer.Addrs {
		addrs = append(addrs, a.String())
	}
	slices.Sort(addrs)
	r.lines = append(r.lines, fmt.Sprintf("%s%s %s %s", sign, string(ev.Peer.ID), ev.Source, strings.Join(addrs, " ")))
}

func (r *record) take() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.lines
	r.lines = nil
	return out
}

func (r *record) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := r.take(); !slices.Equal(got, want) {
		t.Errorf("told %q\nwant %q", got, want)
	}
}

// run starts a table inside the bubble; it ends with the test.
func run(t *testing.T, cfg discovery.TableConfig, sources ...discovery.Source) *discovery.Table {
	t.Helper()
	table := discovery.NewTable(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- table.Run(ctx, me, sources...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return table
}

func TestTableMerges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		a, b := newScript("mdns"), newScript("dht")
		table := run(t, discovery.TableConfig{Notify: r.notify}, a, b)
		changed := table.Changed()

		a.say <- discovery.Event{Peer: info(t, "p1", "/ip4/10.0.0.1/tcp/1")}
		r.expect(t, "+p1 mdns /ip4/10.0.0.1/tcp/1")
		select {
		case <-changed:
		default:
			t.Error("Changed is still open")
		}
		a.say <- discovery.Event{Peer: info(t, "p1", "/ip4/10.0.0.1/tcp/1")}
		r.expect(t) // nothing new
		b.say <- discovery.Event{Peer: info(t, "p1", "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1")}
		r.expect(t, "+p1 dht,mdns /ip4/10.0.0.1/tcp/1 /ip4/10.0.0.2/tcp/1")
		b.say <- discovery.Event{Peer: info(t, "p1", "/ip4/10.0.0.2/tcp/1", "/ip4/10.0.0.1/tcp/1")}
		r.expect(t) // another order
		b.say <- discovery.Event{Peer: info(t, "p1", "/ip4/10.0.0.2/tcp/1"), Wanted: true}
		r.expect(t, "+p1 dht,mdns /ip4/10.0.0.1/tcp/1 /ip4/10.0.0.2/tcp/1") // nothing new, but wanted
		a.say <- discovery.Event{Peer: info(t, "p1", "/ip4/10.0.0.3/tcp/1"), Wanted: true}
		r.expect(t, "+p1 dht,mdns /ip4/10.0.0.2/tcp/1 /ip4/10.0.0.3/tcp/1")
		if got := table.Peers(); len(got) != 1 || len(got[0].Addrs) != 2 {
			t.Errorf("peers %v", got)
		}
		b.say <- discovery.Event{Peer: info(t, "p1"), Gone: true}
		r.expect(t, "+p1 mdns /ip4/10.0.0.3/tcp/1")
		a.say <- discovery.Event{Peer: info(t, "p1"), Gone: true}
		a.say <- discovery.Event{Peer: info(t, "p1"), Gone: true}
		a.say <- discovery.Event{Peer: info(t, "")}
		a.say <- discovery.Event{Peer: info(t, "me", "/ip4/10.0.0.9/tcp/1")}
		r.expect(t, "-p1 mdns ")
		if got := table.Peers(); len(got) != 0 {
			t.Errorf("peers %v", got)
		}
	})
}

func TestTableExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		a, b := newScript("dht"), newScript("mdns")
		run(t, discovery.TableConfig{Notify: r.notify}, a, b)
		a.say <- discovery.Event{Peer: info(t, "p1", "/ip4/10.0.0.1/tcp/1"), TTL: time.Minute}
		b.say <- discovery.Event{Peer: info(t, "p1", "/ip4/10.0.0.2/tcp/1")}
		a.say <- discovery.Event{Peer: info(t, "p2", "/ip4/10.0.0.3/tcp/1"), TTL: 2 * time.Minute}
		r.take()
		time.Sleep(59 * time.Second)
		r.expect(t)
		time.Sleep(time.Second)
		r.expect(t, "+p1 mdns /ip4/10.0.0.2/tcp/1")
		a.say <- discovery.Event{Peer: info(t, "p2", "/ip4/10.0.0.3/tcp/1"), TTL: 2 * time.Minute} // repeated: lives on
		time.Sleep(119 * time.Second)
		r.expect(t)
		time.Sleep(time.Second)
		r.expect(t, "-p2 dht ")
		time.Sleep(100 * time.Hour)
		r.expect(t) // what has no TTL stays
	})
}

// A source that fails is started again after a growing pause, and what it said
// before is void; the others are not touched.
func TestTableRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		var mu sync.Mutex
		var failed []string
		broken := errors.New("broken")
		a, b := newScript("dht"), newScript("mdns")
		run(t, discovery.TableConfig{Notify: r.notify, Report: func(source string, err error) {
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, fmt.Sprintf("%s %v", source, errors.Is(err, broken)))
		}}, a, b)
		last := <-a.runs
		a.say <- discovery.Event{Peer: info(t, "p1", "/ip4/10.0.0.1/tcp/1")}
		b.say <- discovery.Event{Peer: info(t, "p2", "/ip4/10.0.0.2/tcp/1")}
		r.take()
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			a.fail <- broken
			at := <-a.runs
			if d := at.Sub(last); d != want*time.Second {
				t.Errorf("started again after %v, want %d s", d, want)
			}
			last = at
		}
		r.expect(t, "-p1 dht ")
		time.Sleep(2 * time.Minute)
		last = time.Now()
		a.fail <- nil // to end early is a failure too
		if d := (<-a.runs).Sub(last); d != time.Second {
			t.Errorf("after a long run started again after %v", d)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(failed) != 9 || failed[0] != "dht true" || failed[8] != "dht false" {
			t.Errorf("reported %q", failed)
		}
	})
}

func TestTableLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScript("mdns")
		table := run(t, discovery.TableConfig{MaxPeers: 3}, a)
		var many []string
		for i := range 40 {
			many = append(many, fmt.Sprintf("/ip4/10.0.0.%d/tcp/1", i))
		}
		long := "/dns4/" + strings.Repeat("x", 300) + "/tcp/1"
		for i := range 5 {
			a.say <- discovery.Event{Peer: info(t, fmt.Sprint("p", i), append([]string{long, many[0]}, many...)...)}
		}
		synctest.Wait()
		got := table.Peers()
		if len(got) != 3 || len(got[0].Addrs) != 16 || table.Dropped() != 2 {
			t.Errorf("%d peers, %d addresses, %d dropped", len(got), len(got[0].Addrs), table.Dropped())
		}
		if s := got[0].Addrs[0].String(); s != many[0] {
			t.Errorf("first address %s", s)
		}
	})
}

func TestTableNames(t *testing.T) {
	err := discovery.NewTable(discovery.TableConfig{}).Run(t.Context(), me, newScript("x"), newScript("x"))
	if err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("two sources of one name: %v", err)
	}
}

func TestStatic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		s := discovery.Static([]peer.AddrInfo{
			info(t, "p1", "/ip4/10.0.0.1/tcp/1"),
			info(t, "me", "/ip4/10.0.0.9/tcp/1"),
			info(t, "p2", "/ip4/10.0.0.2/tcp/1"),
			info(t, "p1", "/ip4/10.0.0.3/tcp/1", "/ip4/10.0.0.1/tcp/1"),
		})
		run(t, discovery.TableConfig{Notify: r.notify}, s)
		r.expect(t, "+p1 static /ip4/10.0.0.1/tcp/1 /ip4/10.0.0.3/tcp/1", "+p2 static /ip4/10.0.0.2/tcp/1")
		time.Sleep(100 * time.Hour)
		r.expect(t)
	})
}

// A static source ends even if nobody listens to it.
func TestStaticStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- discovery.Static([]peer.AddrInfo{info(t, "p1")}).Run(ctx, me, make(chan discovery.Event))
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
