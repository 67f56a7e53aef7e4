package node_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"updraft/delta/release"
	"updraft/node"
	"updraft/node/fleet"
	"updraft/node/identity"
	"updraft/node/report"
	"updraft/swarm/origin"
)

// originFile returns the only file of the origin that matches.
func (s *site) originFile(pattern string) string {
	s.t.Helper()
	list, err := filepath.Glob(filepath.Join(s.fleet.Origin(), pattern))
	if err != nil || len(list) != 1 {
		s.t.Fatalf("%s: %v, %v", pattern, list, err)
	}
	return list[0]
}

// newest returns the file of the origin that matches and has the highest version.
func (s *site) newest(pattern string) string {
	s.t.Helper()
	list, err := filepath.Glob(filepath.Join(s.fleet.Origin(), pattern))
	if err != nil || len(list) == 0 {
		s.t.Fatalf("%s: %v, %v", pattern, list, err)
	}
	return slices.MaxFunc(list, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
}

// foreign returns the timestamp of another fleet that has published more.
func foreign(t *testing.T) []byte {
	t.Helper()
	s := newSite(t, 0)
	for _, version := range []string{"1.0.0", "1.1.0", "1.2.0", "1.3.0"} {
		s.publish(version, s.write("v"+version+"/app.bin", []byte(version)))
	}
	b, err := os.ReadFile(filepath.Join(s.fleet.Origin(), "metadata/timestamp.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tamper replaces a file of the origin and returns what puts it right again.
func (s *site) tamper(path string, change func(b []byte) []byte) (mend func()) {
	s.t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.replace(path, change(bytes.Clone(good)))
	return func() { s.replace(path, good) }
}

func (s *site) replace(path string, b []byte) {
	s.t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", b, 0o644), os.Rename(path+".new", path)); err != nil {
		s.t.Fatal(err)
	}
}

// flip changes one bit in the middle.
func flip(b []byte) []byte {
	b[len(b)/2] ^= 1
	return b
}

// problem waits until status names the problem, and returns it.
func (a *agent) problem(code string) report.Problem {
	a.t.Helper()
	var found report.Problem
	a.await("in trouble with "+code, func(s report.Status) bool {
		for _, p := range s.Problems {
			if p.Code == code {
				found = p
				return true
			}
		}
		return false
	})
	return found
}

func check(a *agent) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := a.node.Check(ctx)
	return err
}

// lookUntil looks for a release until version is the target.
func lookUntil(a *agent, version string) func(report.Status) bool {
	return func(st report.Status) bool {
		if st.Target != version {
			_ = check(a)
		}
		return st.Target == version
	}
}

// TestMetadataTampered changes what is signed in each way an origin can.
func TestMetadataTampered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		file   string                          // of the origin, after the third release; it is changed
		change func(now, before []byte) []byte // before: what it, or the newest that matches, was after the first release
		want   error
	}{
		{"signature", "metadata/timestamp.json", func(now, _ []byte) []byte {
			i := bytes.Index(now, []byte(`"sig":"`)) + len(`"sig":"`)
			now[i] = "10"[min(now[i]-'0', 1)] // another hexadecimal digit
			return now
		}, release.ErrSignature},
		{"older than before", "metadata/timestamp.json", func(_, before []byte) []byte { return before }, release.ErrRollback},
		{"older than the rest", "metadata/*.snapshot.json", func(_, before []byte) []byte { return before }, release.ErrMixAndMatch},
		{"channel older than the rest", "metadata/*.stable.json", func(_, before []byte) []byte { return before }, release.ErrMixAndMatch},
		{"of another fleet", "metadata/timestamp.json", func(_, _ []byte) []byte { return foreign(t) }, release.ErrSignature},
		{"no JSON", "metadata/timestamp.json", func(_, _ []byte) []byte { return []byte("<html>login</html>") }, release.ErrCorrupt},
		{"empty", "metadata/timestamp.json", func(_, _ []byte) []byte { return nil }, release.ErrCorrupt},
		{"endless", "metadata/timestamp.json", func(_, _ []byte) []byte { return bytes.Repeat([]byte(" "), 20<<20) }, release.ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0)
			v1 := noise(1, 300<<10)
			s.publish("1.0.0", s.write("v1/app.bin", v1))
			before, err := os.ReadFile(s.newest(c.file))
			if err != nil {
				t.Fatal(err)
			}
			s.publish("1.1.0", s.write("v2/app.bin", edited(v1)))
			a := s.start(s.enroll(nil))
			if err := check(a); err != nil {
				t.Fatal(err)
			}
			a.awaitVersion("1.1.0")
			v3 := edited(edited(v1))
			s.publish("1.2.0", s.write("v3/app.bin", v3))
			mend := s.tamper(s.newest(c.file), func(now []byte) []byte { return c.change(now, before) })
			time.Sleep(1100 * time.Millisecond) // a look of a second ago would answer for this one
			if err := check(a); !errors.Is(err, c.want) {
				t.Errorf("check: %v, want %v", err, c.want)
			}
			if p := a.problem("origin"); p.Hint == "" || !strings.Contains(p.Text, c.want.Error()) {
				t.Errorf("status says %+v, want %v", p, c.want)
			}
			if st := a.node.Status(); st.Target != "1.1.0" || st.Current != "1.1.0" {
				t.Errorf("target %s, current %s", st.Target, st.Current)
			}
			a.sees(edited(v1))
			mend()
			a.look("1.2.0")
			a.awaitVersion("1.2.0")
			a.sees(v3)
			if st := a.node.Status(); len(st.Problems) > 0 {
				t.Errorf("problems that are over: %+v", st.Problems)
			}
		})
	}
}

func TestPackTampered(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 4<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	mend := s.tamper(s.originFile("packs/*"), flip)
	as := []*agent{s.start(s.enroll(nil)), s.start(s.enroll(nil))}
	as[0].awaitPeers(1)
	if err := check(as[0]); err != nil {
		t.Fatal(err)
	}
	var who *agent
	as[0].await("told of the bad pack by either", func(report.Status) bool {
		for _, a := range as {
			for _, p := range a.node.Status().Problems {
				if p.Code == "fetch" && p.Hint != "" {
					who = a
				}
			}
		}
		return who != nil
	})
	for _, a := range as {
		if st := a.node.Status(); st.Current != "" {
			t.Errorf("%s is in service", st.Current)
		}
	}
	mend()
	for _, a := range as {
		a.awaitVersion("1.0.0")
		a.sees(v1)
	}
}

// copyTo makes dir a copy of the origin as it is now, and returns it.
func (s *site) copyTo(dir string) string {
	s.t.Helper()
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(s.fleet.Origin()))); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// TestOneBadMirror: of two origins the one that is asked first turns bad. What it does not
// have as it was published comes from the other.
func TestOneBadMirror(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files  string                // of the mirror; empty: all are those of the first release
		change func(b []byte) []byte // nil: they are lost
	}{
		"changed packs":     {"packs/*", flip},
		"changed pack maps": {"maps/*", flip},
		"swollen pack maps": {"maps/*", func(b []byte) []byte { return append(b, 0) }},
		"changed timestamp": {"metadata/timestamp.json", flip},
		"endless timestamp": {"metadata/timestamp.json", func([]byte) []byte { return make([]byte, 1<<20) }},
		"lost timestamp":    {"metadata/timestamp.json", nil},
		"lost metadata":     {"metadata/*", nil},
		"old metadata":      {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0)
			s.deltas = 0
			s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
			old := s.copyTo(filepath.Join(s.dir, "old"))
			s.publish("1.1.0", s.write("v2/app.bin", noise(2, 100<<10)))
			mirror := s.copyTo(filepath.Join(s.dir, "mirror"))
			a := s.start(s.enrollBy(s.fleet, fleet.EnrollOptions{Origins: []string{mirror, s.url}}, nil))
			a.look("1.1.0")
			a.awaitVersion("1.1.0")
			if n := s.link.Conns.Load(); n != 0 {
				t.Errorf("%d connections to the second origin", n)
			}
			v3 := noise(3, 200<<10)
			s.publish("1.2.0", s.write("v3/app.bin", v3))
			s.copyTo(mirror)
			if c.files == "" {
				if err := errors.Join(os.RemoveAll(mirror), os.Rename(old, mirror)); err != nil {
					t.Fatal(err)
				}
			} else {
				list, err := filepath.Glob(filepath.Join(mirror, c.files))
				if err != nil || len(list) == 0 {
					t.Fatal(list, err)
				}
				for _, f := range list {
					if c.change != nil {
						s.tamper(f, c.change)
					} else if err := os.Remove(f); err != nil {
						t.Fatal(err)
					}
				}
			}
			a.look("1.2.0")
			a.awaitVersion("1.2.0")
			a.sees(v3)
			a.await("out of trouble", func(st report.Status) bool { return len(st.Problems) == 0 })
		})
	}
}

// TestPatchTampered: a patch that is not what was published is given up.
func TestPatchTampered(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 2<<20)
	v2 := edited(v1)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(nil))
	if err := check(a); err != nil {
		t.Fatal(err)
	}
	a.awaitVersion("1.0.0")
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	s.tamper(s.originFile("patches/*"), flip)
	a.look("1.1.0")
	a.awaitVersion("1.1.0")
	a.sees(v2)
}

// deadOrigin is an address at which nobody answers.
func deadOrigin(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// TestOriginMissing has one device that reaches the origin and one that does not,
// which then is alone.
func TestOriginMissing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 2<<20)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	dead := deadOrigin(t)
	cut := s.start(s.enroll(func(c *node.Config) { c.Origins = []string{dead} }))
	if err := check(cut); !errors.Is(err, origin.ErrUnreachable) {
		t.Errorf("check without an origin: %v", err)
	}
	if p := cut.problem("origin"); p.Hint == "" || !strings.Contains(p.Text, "refused") {
		t.Errorf("problem %+v", p)
	}
	good := s.start(s.enroll(nil))
	cut.awaitPeers(1)
	if err := check(good); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*agent{good, cut} {
		a.awaitVersion("1.0.0")
		a.sees(v1)
	}
	if n := cut.node.Status().Bytes.Uplink; n != 0 {
		t.Errorf("%d bytes from an origin that is not there", n)
	}
	// Its looks go by way of the neighbour from now on.
	v2 := edited(v1)
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	cut.look("1.1.0")
	cut.awaitVersion("1.1.0")
	cut.sees(v2)
}

// TestSlowOrigin: an origin that sends a byte now and then is out of reach, and the next
// look asks another one.
func TestSlowOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte(" "))
			w.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	}))
	defer slow.Close()
	a := s.start(s.enrollBy(s.fleet, fleet.EnrollOptions{Origins: []string{slow.URL, s.url}}, nil),
		func(n *node.Node) { n.SetLookLimit(4 * time.Second) })
	err := check(a)
	if f := new(report.Failure); !errors.As(err, &f) || f.Kind != report.KindUnreachable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("check: %v", err)
	}
	if p := a.problem("origin"); p.Hint == "" {
		t.Errorf("problem %+v", p)
	}
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
}

// TestClock: metadata that is out of date blames the publisher or the clock.
func TestClock(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		behind time.Duration // of the publisher, to the device
		want   error
		hint   string
	}{
		{"nobody has signed", 100 * 24 * time.Hour, release.ErrExpired, "updraft refresh"},
		{"clock years late", 20 * 365 * 24 * time.Hour, release.ErrClock, "clock"},
	} {
		s := newSite(t, 0)
		f, err := fleet.Init(filepath.Join(s.dir, "late"), fleet.Options{Now: func() time.Time { return time.Now().Add(-c.behind) }})
		if err != nil {
			t.Fatal(err)
		}
		s.fleet = f
		s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
		a := s.start(s.enroll(func(cfg *node.Config) { cfg.Origins = []string{f.Origin()} }))
		if err := check(a); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if p := a.problem("origin"); !strings.Contains(p.Hint, c.hint) {
			t.Errorf("%s: %+v", c.name, p)
		}
		if st := a.node.Status(); st.Target != "" || st.Current != "" {
			t.Errorf("%s: target %q, current %q", c.name, st.Target, st.Current)
		}
	}
}

// TestEnrolledInANewFleet: the root keys of a fleet are lost, it is made anew, and a device is
// enrolled in it. It keeps its data, and follows the new root, whose version is lower.
func TestEnrolledInANewFleet(t *testing.T) {
	t.Parallel()
	s, next := newSite(t, 0), newSite(t, 0)
	s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10)))
	cfg := s.enroll(nil)
	a := s.start(cfg)
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	if _, err := s.fleet.Revoke("stolen", "dev1"); err != nil { // known by that name to the next one, too
		t.Fatal(err)
	}
	if err := s.fleet.Rotate("root"); err != nil {
		t.Fatal(err)
	}
	checkAnew(a)
	a.problem("certificate")
	a.end()
	next.publish("2.0.0", next.write("v2/app.bin", noise(2, 100<<10)))
	anew := next.enroll(nil)
	if err := os.Rename(anew.Enrollment, cfg.Enrollment); err != nil {
		t.Fatal(err)
	}
	s.peers = nil
	a = s.start(cfg)
	if err := check(a); err != nil {
		t.Fatal("it does not follow its new fleet:", err)
	}
	a.awaitVersion("2.0.0")
	a.await("without problems", func(st report.Status) bool { return len(st.Problems) == 0 })
}

// TestFailingHooks: a release that does not pass a step is not tried again; the
// next one is.
func TestFailingHooks(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"stage", "commit", "health"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0)
			calls := filepath.Join(s.dir, "calls")
			hook := filepath.Join(s.dir, "hook")
			text := "#!/bin/sh\necho \"$UPDRAFT_STEP $UPDRAFT_VERSION\" >>" + calls + "\n" +
				"[ \"$UPDRAFT_STEP $UPDRAFT_VERSION\" = \"" + step + " 1.1.0\" ] && { echo no room for it; exit 3; }\nexit 0\n"
			if err := os.WriteFile(hook, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
			a := s.start(s.enroll(func(c *node.Config) {
				c.Hooks.Stage, c.Hooks.Commit, c.Hooks.Health, c.Hooks.Rollback = hook, hook, hook, hook
			}))
			v1 := noise(1, 200<<10)
			s.publish("1.0.0", s.write("v1/app.bin", v1))
			a.look("1.0.0")
			a.awaitVersion("1.0.0")
			s.publish("1.1.0", s.write("v2/app.bin", edited(v1)))
			a.look("1.1.0")
			a.installProblem("no room for it")
			a.sees(v1)
			for range 3 {
				_ = check(a)
			}
			v3 := edited(edited(v1))
			s.publish("1.2.0", s.write("v3/app.bin", v3))
			a.look("1.2.0")
			a.awaitVersion("1.2.0")
			a.sees(v3)
			a.await("without problems", func(st report.Status) bool { return len(st.Problems) == 0 })
			b, err := os.ReadFile(calls)
			if err != nil {
				t.Fatal(err)
			}
			log := string(b)
			if n := strings.Count(log, step+" 1.1.0\n"); n != 1 {
				t.Errorf("the failing step ran %d times:\n%s", n, log)
			}
			want := 1
			if step == "stage" { // nothing was in service yet
				want = 0
			}
			if n := strings.Count(log, "rollback"); n != want || strings.Count(log, "rollback 1.1.0\n") != want {
				t.Errorf("rollback ran %d times:\n%s", n, log)
			}
		})
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 200<<10)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(nil))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	hold := filepath.Join(a.data, "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v2 := edited(v1)
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	a.look("1.1.0")
	a.problem("hold")
	a.sees(v1)
	// It holds over a restart too.
	a.end()
	a = s.start(a.cfg)
	a.problem("hold")
	a.sees(v1)
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	a.awaitVersion("1.1.0")
	a.sees(v2)
	a.await("without problems", func(st report.Status) bool { return len(st.Problems) == 0 })
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	cfg := s.enroll(func(c *node.Config) { c.Listen = []string{"/ip4/127.0.0.1/tcp/" + port} })
	n, err := node.New(cfg)
	if err == nil {
		n.Close()
		t.Fatal("two listeners on one port")
	}
	if !strings.Contains(err.Error(), port) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the error says too little: %v", err)
	}
	l.Close()
	if n, err = node.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestDirectoryInUse(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	v1 := noise(1, 100<<10)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	a := s.start(s.enroll(nil))
	a.look("1.0.0")
	a.awaitVersion("1.0.0")
	_, err := node.New(a.cfg)
	if !errors.Is(err, node.ErrInUse) {
		t.Errorf("a second agent on the directory: %v", err)
	}
	// The first does not suffer.
	st, err := report.Dial(a.data).Status(t.Context())
	if err != nil || st.Current != "1.0.0" {
		t.Errorf("the first agent: %+v, %v", st, err)
	}
	s.publish("1.1.0", s.write("v2/app.bin", edited(v1)))
	a.look("1.1.0")
	a.awaitVersion("1.1.0")
	a.end()
	a = s.start(a.cfg)
	a.await("idle", func(st report.Status) bool { return st.State == "idle" && st.Current == "1.1.0" })
}

func TestDamagedEnrollment(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	cfg := s.enroll(nil)
	good, err := os.ReadFile(cfg.Enrollment)
	if err != nil {
		t.Fatal(err)
	}
	try := func(b []byte) error {
		if err := os.WriteFile(cfg.Enrollment, b, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := node.New(cfg)
		if err == nil {
			n.Close()
		}
		return err
	}
	for n := 0; n < len(good); n += 1 + len(good)/40 {
		if err := try(good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were enough", n, len(good))
		}
	}
	for i := 0; i < len(good); i += 1 + len(good)/40 {
		b := bytes.Clone(good)
		b[i] ^= 1
		if err := try(b); err != nil && !strings.Contains(err.Error(), cfg.Enrollment) {
			t.Errorf("byte %d: the error does not name the file: %v", i, err)
		}
	}
	if err := try(append(bytes.Clone(good), bytes.Repeat([]byte("x"), 8<<20)...)); err == nil {
		t.Error("a file without end was enough")
	}
	if err := try(good); err != nil {
		t.Errorf("the file as it was: %v", err)
	}
	if err := os.Chmod(cfg.Enrollment, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := node.New(cfg); !errors.Is(err, identity.ErrPermissions) {
		t.Errorf("a file that others may read: %v", err)
	}
	if err := os.Remove(cfg.Enrollment); err != nil {
		t.Fatal(err)
	}
	if _, err := node.New(cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestHolderStops ends the device that holds the uplink half way. What counts is what
// the devices have read: on loopback, megabytes wait in the kernel for a device that is
// short of CPU time.
func TestHolderStops(t *testing.T) {
	// Not beside other tests: what a device that is short of CPU time has not passed on is lost with it.
	s := newSite(t, 4<<20)
	const size = 16 << 20
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
	holder := -1
	as[0].await("half way", func(report.Status) bool {
		for i, a := range as {
			if st := a.node.Status(); st.IsHolder && st.Progress != nil && st.Progress.Have > size/2 {
				holder = i
			}
		}
		return holder >= 0
	})
	as[holder].end()
	for i, a := range as {
		if i == holder {
			continue
		}
		a.awaitVersion("1.0.0")
		a.sees(v1)
	}
	read, each := int64(0), []int64(nil)
	for _, a := range as {
		each = append(each, a.node.Status().Bytes.Uplink)
		read += each[len(each)-1]
	}
	if read > size+size/20+1<<20 {
		t.Errorf("uplink carried %d bytes for %d: %d; device %d was lost", read, size, each, holder)
	}
	// It comes back and needs the origin no more.
	before := s.link.Out.Load()
	a := s.start(as[holder].cfg)
	a.awaitVersion("1.0.0")
	a.sees(v1)
	if out := s.link.Out.Load() - before; out > 16<<10 {
		t.Errorf("uplink carried %d bytes for a device that came back", out)
	}
}

// TestGrowingFile has releases that share their first pages, of which only the
// newest is kept; a late joiner gets it from the site.
func TestGrowingFile(t *testing.T) {
	skipPublishing(t)
	t.Parallel()
	s := newSite(t, 0)
	a := s.start(s.enroll(func(c *node.Config) { c.Keep = 1 }))
	var b []byte
	for i, v := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		b = append(bytes.Clone(b), noise(uint64(i+1), 20<<20>>(2*i))...)
		s.publish(v, s.write(v+"/app.bin", b))
		a.look(v)
		a.awaitVersion(v)
		a.sees(b)
	}
	before := s.link.Out.Load()
	late := s.start(s.enroll(nil))
	late.awaitVersion("1.2.0")
	late.sees(b)
	if out := s.link.Out.Load() - before; out > 0 {
		t.Errorf("late joiner: uplink carried %d bytes", out)
	}
}

// TestRepeatingImage brings an image with large equal regions to two devices, by
// chunks and then by a patch.
func TestRepeatingImage(t *testing.T) {
	skipPublishing(t)
	t.Parallel()
	s := newSite(t, 0)
	v1 := append(append(noise(1, 1<<20), bytes.Repeat(noise(2, 64<<10), 30<<4)...), bytes.Repeat([]byte{0xff}, 20<<20)...)
	s.publish("1.0.0", s.write("v1/app.bin", v1))
	as := []*agent{s.start(s.enroll(nil)), s.start(s.enroll(nil))}
	as[0].awaitPeers(1)
	if err := check(as[0]); err != nil {
		t.Fatal(err)
	}
	for _, a := range as {
		a.awaitVersion("1.0.0")
		a.sees(v1)
	}
	if out := s.link.Out.Load(); out > 3<<20 {
		t.Errorf("uplink carried %d bytes", out)
	}
	v2 := bytes.Clone(v1)
	copy(v2[10<<20:], noise(3, 5000))
	s.publish("1.1.0", s.write("v2/app.bin", v2))
	as[1].look("1.1.0")
	for _, a := range as {
		a.awaitVersion("1.1.0")
		a.sees(v2)
	}
}

// TestArtifactThatCannotBeOpened: what is in the way of an artifact on disk is a problem
// to show, and the release comes when it is gone.
func TestArtifactThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	raw, err := s.publish("1.0.0", s.write("v1/app.bin", noise(1, 100<<10))).Encode()
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.enroll(nil)
	inTheWay := filepath.Join(cfg.Data, "releases", ".1.0.0.partial", "app.bin")
	manifests := filepath.Join(cfg.Data, "state", "manifests") // of a release begun before: it is gone on with
	for _, dir := range []string{inTheWay, manifests} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(manifests, "1.0.0"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	a := s.start(cfg)
	a.look("1.0.0")
	if p := a.problem("update"); !strings.Contains(p.Text, "app.bin") {
		t.Errorf("%+v", p)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	a.awaitVersion("1.0.0")
}
