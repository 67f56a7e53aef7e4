package node_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/report"
	"updraft/swarm"
)

// muteOrigin is an address at which whatever is asked is never answered.
func muteOrigin(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(io.Discard, c) // ends with the agent
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// TestHolderGetsNowhere: a gateway, which goes before everybody, is granted the uplink
// after another device and never hears from its origin. It gives way to the one that
// does, and goes on giving way.
func TestHolderGetsNowhere(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1<<20)
	const size = 6 << 20
	v1 := noise(1, size)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	first, good := s.start(s.enroll(nil)), s.start(s.enroll(nil))
	mute := muteOrigin(t)
	gw := s.start(s.enroll(func(c *node.Config) { c.Gateway, c.Origins = true, []string{mute} }))
	gw.awaitPeers(2)
	if err := check(first); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*agent{gw, good} { // with the first one the news would be lost
		a.await("told of the release", func(st report.Status) bool { return st.Target == "1.0.0" })
	}
	first.await("a third of the way", func(st report.Status) bool { return st.IsHolder && st.Progress != nil && st.Progress.Have > size/3 })
	first.end()
	if p := gw.problem("fetch"); !strings.Contains(p.Text, "nothing came") {
		t.Errorf("problem %+v", p)
	}
	for _, a := range []*agent{gw, good} {
		a.awaitVersion("1.0.0")
		a.sees(v1)
	}
	v2 := edited(v1)
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	good.look("1.1.0")
	for _, a := range []*agent{gw, good} {
		a.awaitVersion("1.1.0")
		a.sees(v2)
	}
	if p := gw.node.Status().Problems; len(p) > 0 {
		t.Errorf("asked its origin again: %+v", p)
	}
}

// TestOneReachesTheOrigin: of several devices that wait for the uplink the one whose
// look was answered goes first, so that nobody waits for the others to fail.
func TestOneReachesTheOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 2<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	mute := muteOrigin(t)
	var as []*agent
	for range 4 {
		as = append(as, s.start(s.enroll(func(c *node.Config) { c.Origins = []string{mute} })))
	}
	good := s.start(s.enroll(nil))
	as = append(as, good)
	good.awaitPeers(4)
	if err := check(good); err != nil {
		t.Fatal(err)
	}
	for _, a := range as {
		a.awaitVersion("1.0.0")
		a.sees(v1)
		if p := a.node.Status().Problems; len(p) > 0 {
			t.Errorf("%s: problems %+v", a.data, p)
		}
	}
}

// lateOrigin serves a site's origin, and takes wait for the first word of the timestamp.
type lateOrigin struct {
	url   string
	wait  atomic.Int64
	asked chan struct{} // for the timestamp
}

func newLateOrigin(t *testing.T, s *site) *lateOrigin {
	t.Helper()
	o := &lateOrigin{asked: make(chan struct{}, 1)}
	files := http.FileServer(http.Dir(s.fleet.Origin()))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, release.TimestampName) {
			select {
			case o.asked <- struct{}{}:
			default:
			}
			select {
			case <-time.After(time.Duration(o.wait.Load())):
			case <-r.Context().Done():
				return
			}
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	o.url = srv.URL
	return o
}

// await has do, which looks, be under way: the origin is asked. It returns what comes of it.
func (o *lateOrigin) await(t *testing.T, do func() error) <-chan error {
	t.Helper()
	select {
	case <-o.asked: // by a look before
	default:
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case <-o.asked:
	case <-time.After(20 * time.Second):
		t.Fatal("the origin is not asked")
	}
	return done
}

// TestLooksGoOn: a look goes on when who has asked for it waits no more, a member or a person. It
// is not for them to end it: others wait for it, too.
func TestLooksGoOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	o := newLateOrigin(t, s)
	a := s.start(s.enrollBy(s.fleet, fleet.EnrollOptions{Origins: []string{o.url}}, nil))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	o.wait.Store(int64(1500 * time.Millisecond))
	for k, ask := range []func(context.Context) error{
		func(ctx context.Context) error { return a.node.AnswerCheck(ctx, "a member") },
		func(ctx context.Context) error { _, err := a.node.Check(ctx); return err },
	} {
		version := fmt.Sprintf("1.%d.0", k+1)
		s.publish(version, s.write(version+"/app.bin", noise(uint64(k+2), 100<<10)))
		a.node.AgeLooks(time.Minute) // or the last one answers for all
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		waits := o.await(t, func() error { return ask(ctx) })
		if err := a.node.Look(t.Context()); err != nil {
			t.Errorf("who waits with them: %v", err)
		}
		if err := <-waits; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who waits no more: %v", err)
		}
		if st := a.node.Status(); st.Target != version {
			t.Errorf("target %s, not %s", st.Target, version)
		}
	}
}

// TestAskedByTheHolder: who asks for a look has failed to look itself, with the lease, and may hold it still as far as
// this device knows.
func TestAskedByTheHolder(t *testing.T) {
	t.Parallel()
	s, a := installed(t)
	asker := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "asker", Site: "lab"}), a)
	held, err := asker.Acquire(t.Context(), swarm.AcquireOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	id, _ := asker.Holder()
	a.await("told who holds the lease", func(report.Status) bool { by, ok := a.node.Holder(); return ok && by == id })
	a.node.AgeLooks(time.Minute) // or the last one answers for all
	s.publish("1.1.0", s.write("v2/app.bin", noise(2, 100<<10)))
	if err := a.node.AnswerCheck(t.Context(), "another"); !errors.As(err, new(*swarm.HeldError)) {
		t.Errorf("asked while another holds the lease: %v", err)
	}
	waiting, stop := context.WithCancel(t.Context())
	defer stop()
	waits := make(chan error, 1)
	go func() { waits <- a.node.AcquireLease(waiting, swarm.AcquireOptions{}) }()
	a.await("it waits for the lease itself", func(report.Status) bool {
		return errors.Is(a.node.AcquireLease(t.Context(), swarm.AcquireOptions{NoWait: true}), swarm.ErrLeaseInUse)
	})
	if err := a.node.AnswerCheck(t.Context(), "another"); !errors.As(err, new(*swarm.HeldError)) {
		t.Errorf("asked while another holds the lease for which this device waits: %v", err)
	}
	stop()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := a.node.AnswerCheck(t.Context(), id); err != nil {
		t.Errorf("asked by the holder: %v", err)
	}
	if st := a.node.Status(); st.Target != "1.1.0" {
		t.Errorf("target %s", st.Target)
	}
}

// TestLateOriginAndLiar: an origin answers so late that a look is left to a member, which says
// that it reaches the origin, and that there is nothing new. A person's look, and the one that is
// due once a day, wait for the origin.
func TestLateOriginAndLiar(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	o := newLateOrigin(t, s)
	a := s.start(s.enrollBy(s.fleet, fleet.EnrollOptions{Origins: []string{o.url}}, nil),
		func(n *node.Node) {
			n.SetSilence(100 * time.Millisecond)
			n.SetStart(time.Now().Add(-48 * time.Hour))
		})
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	evil := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "evil", Site: "lab"}), a, func(c *swarm.Config) {
		c.Files = func(string) ([]byte, error) { return nil, fs.ErrNotExist }
		c.Call = func(context.Context, peer.ID, string, []byte) ([]byte, error) {
			b, err := os.ReadFile(filepath.Join(a.data, "trust", release.TimestampName))
			sum := sha256.Sum256(b)
			return sum[:], err
		}
	})
	if err := evil.Announce(swarm.Profile{Node: []byte{0xa3, 1, 1, 8, 0x61, 'x', 0x0b, 1}}); err != nil { // {1: 1, 8: "x", 11: 1}: it reaches the origin
		t.Fatal(err)
	}
	a.await("told so", func(report.Status) bool { ps := a.node.Peers(); return len(ps) == 1 && ps[0].State == "x" })
	a.node.AgeLooks(time.Minute) // or the last one answers for all
	s.publish("1.1.0", s.write("v2/app.bin", noise(2, 100<<10)))
	o.wait.Store(int64(2 * time.Second))
	look := func(what, want string, look func() error) {
		t.Helper()
		if err := look(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if st := a.node.Status(); st.Target != want {
			t.Errorf("%s: target %s, not %s", what, st.Target, want)
		}
	}
	unasked := func() error { return a.node.Look(t.Context()) }
	look("nobody has asked", "1.0.0", unasked)
	look("a person asks", "1.1.0", func() error {
		done := o.await(t, func() error { return check(a) })
		lease, err := evil.Acquire(t.Context(), swarm.AcquireOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer lease.Release()
		if len(done) > 0 {
			t.Error("it kept the lease while it waited for the origin")
		}
		return <-done
	})
	s.publish("1.2.0", s.write("v3/app.bin", noise(3, 100<<10)))
	a.node.AgeLooks(23 * time.Hour)
	if _, err := evil.Invoke(t.Context(), a.node.ID(), "check", nil); err == nil || !strings.Contains(err.Error(), "nothing came") {
		t.Errorf("a look for evil: %v", err)
	}
	a.node.AgeLooks(2 * time.Hour)
	look("after a day", "1.2.0", unasked)
	s.publish("1.3.0", s.write("v4/app.bin", noise(4, 100<<10)))
	a.node.AgeLooks(time.Hour)
	lease, err := evil.Acquire(t.Context(), swarm.AcquireOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	look("nobody has asked while evil has the lease", "1.2.0", unasked)
	look("a person asks while evil has the lease", "1.3.0", func() error { return check(a) })
}
