package node_test

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
	"updraft/node/fleet"
	"updraft/node/report"
	"updraft/swarm"
	"updraft/swarm/origin"
)

// messenger is a device between one that reaches the origin and one that does not: it passes on what they ask and
// answer, and what the first says of itself when they meet.
type messenger struct {
	near *swarm.Swarm // a member of who reaches the origin
	to   peer.ID

	mu     sync.Mutex               // guards what follows
	asked  []string                 // files
	answer func(real []byte) []byte // what it makes of the answer to a look; nil: nothing
}

func newMessenger(t *testing.T, s *site, a, b *agent) *messenger {
	t.Helper()
	m := &messenger{near: join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "near", Site: "lab"}), a), to: a.node.ID()}
	far := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "far", Site: "lab"}), b, func(c *swarm.Config) { c.Files, c.Call = m.file, m.call })
	if err := far.Announce(m.near.Members()[0].Profile); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *messenger) file(name string) ([]byte, error) {
	m.mu.Lock()
	m.asked = append(m.asked, name)
	m.mu.Unlock()
	return m.near.Request(context.Background(), m.to, name, 1<<20)
}

func (m *messenger) call(ctx context.Context, _ peer.ID, method string, arg []byte) ([]byte, error) {
	b, err := m.near.Invoke(ctx, m.to, method, arg)
	m.mu.Lock()
	defer m.mu.Unlock()
	if method == "check" && m.answer != nil {
		b = m.answer(b)
	}
	return b, err
}

// becomes sets what the messenger makes of answers from now on.
func (m *messenger) becomes(answer func(real []byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = answer
}

// files returns what was asked for since the last call.
func (m *messenger) files() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.asked
	m.asked = nil
	return out
}

// TestAskForNothingNew: who has another device look fetches from it what it does not hold, whatever that is, and
// nothing when that is nothing.
func TestAskForNothingNew(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 200<<10)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	cfg := s.enroll(nil) // of a device without an origin
	if err := enrollment(t, s.fleet, fleet.EnrollOptions{Name: "dev1", Site: "lab", Replace: true}).Write(cfg.Enrollment); err != nil {
		t.Fatal(err)
	}
	a, b := s.start(s.enroll(nil)), s.start(cfg)
	for _, x := range []*agent{a, b} {
		x.look("1.0.0")
		x.awaitVersion("1.0.0")
	}
	b.end()
	s.peers = nil // from now on they know the messenger only
	b = s.start(cfg)
	m := newMessenger(t, s, a, b)
	b.await("asking the messenger", func(report.Status) bool { return check(b) == nil })
	m.files()
	// looks has b look, and returns what it fetched for that.
	looks := func() []string {
		t.Helper()
		before := b.node.Status().LastCheck
		checkAnew(b)
		if !b.node.Status().LastCheck.After(before) {
			t.Error("the look is not noted")
		}
		return m.files()
	}
	held := func(x *agent) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(x.data, "trust", release.TimestampName))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	fetchesTimestamp := func(when string) {
		t.Helper()
		if got := looks(); !slices.Contains(got, release.TimestampName) {
			t.Errorf("%s: fetched %q", when, got)
		}
		if held(a) != held(b) {
			t.Errorf("%s: another timestamp than the one at the origin", when)
		}
	}

	if got := looks(); len(got) > 0 {
		t.Errorf("nothing is new: fetched %q", got)
	}
	lost := filepath.Join(b.data, "trust", "targets")
	if err := os.RemoveAll(lost); err != nil {
		t.Fatal(err)
	}
	if got := looks(); len(got) != 1 || !strings.HasPrefix(got[0], "targets/stable/") {
		t.Errorf("the manifest is lost: fetched %q", got)
	}
	if _, err := s.fleet.Refresh(); err != nil { // signs anew what says nothing new
		t.Fatal(err)
	}
	fetchesTimestamp("signed anew")
	join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "thief", Site: "lab"}), b)
	if _, err := s.fleet.Revoke("stolen", "thief"); err != nil {
		t.Fatal(err)
	}
	fetchesTimestamp("a device is revoked")
	b.refuses("thief")

	// What a member says to hold is believed only if it is what is held here.
	for when, answer := range map[string]func(real []byte) []byte{
		"by an earlier program": func([]byte) []byte { return nil },
		"a part of a digest":    func(real []byte) []byte { return real[:5] },
		"another digest":        func([]byte) []byte { return make([]byte, 32) },
	} {
		m.becomes(answer)
		fetchesTimestamp(when)
	}
	sum := sha256.Sum256([]byte(held(b)))
	m.becomes(func([]byte) []byte { return sum[:] })
	v2 := edited(v1)
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	if got := looks(); len(got) > 0 || b.node.Status().Target != "1.0.0" {
		t.Errorf("kept from what is new: fetched %q", got)
	}
	m.becomes(nil)
	fetchesTimestamp("a release")
	if st := b.node.Status(); st.Target != "1.1.0" {
		t.Errorf("target %s", st.Target)
	}
}

// TestMembersAreNotToldTheOrigin: who has another device look, and it fails, hears why; the address of the origin is for
// the log and the status of that device.
func TestMembersAreNotToldTheOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	o := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(o.Close)
	a := s.start(s.enrollBy(s.fleet, fleet.EnrollOptions{Origins: []string{o.URL + "/private"}}, nil))
	near := join(t, enrollment(t, s.fleet, fleet.EnrollOptions{Name: "near", Site: "lab"}), a)
	_, err := near.Invoke(t.Context(), a.node.ID(), "check", []byte("person"))
	if err == nil || !strings.Contains(err.Error(), origin.ErrNotFound.Error()) || strings.Contains(err.Error(), "private") || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("a member is told: %v", err)
	}
	if p := a.problem("origin"); !strings.Contains(p.Text, o.URL+"/private") {
		t.Errorf("the device itself says %+v", p)
	}
}
