package install_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"updraft/node/install"
)

// script is an Installer that notes its calls and answers as it is told.
type script struct {
	calls                             []string
	seen                              []install.Release
	commit, healthy, rollback, before error
	onCall                            func(step string)
}

func (s *script) call(step string, r install.Release, err error) error {
	s.calls, s.seen = append(s.calls, step), append(s.seen, r)
	if s.onCall != nil {
		s.onCall(step)
	}
	return err
}

func (s *script) Stage(_ context.Context, r install.Release) error {
	return s.call("stage", r, s.before)
}
func (s *script) Commit(_ context.Context, r install.Release) error {
	return s.call("commit", r, s.commit)
}
func (s *script) Healthy(_ context.Context, r install.Release) error {
	return s.call("health", r, s.healthy)
}
func (s *script) Rollback(_ context.Context, r install.Release) error {
	return s.call("rollback", r, s.rollback)
}

// device has 1.0.0 in service and 2.0.0 complete beside it.
func device(t *testing.T) (data string, d *install.Dir) {
	t.Helper()
	data = t.TempDir()
	d = open(t, data)
	put(t, d, "1.0.0")
	if err := d.Activate(t.Context(), install.Plain{}, install.Release{Version: "1.0.0"}); err != nil {
		t.Fatal(err)
	}
	put(t, d, "2.0.0")
	return data, d
}

var two = install.Release{Version: "2.0.0"}

func noTrial(t *testing.T, d *install.Dir) {
	t.Helper()
	if tr, ok := d.Pending(); ok {
		t.Errorf("a trial is left: %+v", tr)
	}
}

func TestActivate(t *testing.T) {
	data, d := device(t)
	s := &script{}
	if err := d.Activate(t.Context(), s, two); err != nil {
		t.Fatal(err)
	}
	inService(t, data, "2.0.0")
	noTrial(t, d)
	if !slices.Equal(s.calls, []string{"commit", "health"}) {
		t.Errorf("calls: %v", s.calls)
	}
	r := s.seen[0]
	if r.Dir != d.Path("2.0.0") || r.Previous != d.Path("1.0.0") || r.Attempt != 1 {
		t.Errorf("told of %+v", r)
	}
	// What is in service needs no second trial.
	if err := d.Activate(t.Context(), s, two); err != nil || len(s.calls) != 2 {
		t.Errorf("Activate again: %v, calls %v", err, s.calls)
	}
}

func TestFailureBringsTheOldReleaseBack(t *testing.T) {
	bad := errors.New("it does not answer")
	for name, s := range map[string]*script{
		"commit":   {commit: bad},
		"health":   {healthy: bad},
		"rollback": {healthy: bad, rollback: errors.New("stuck")},
	} {
		t.Run(name, func(t *testing.T) {
			data, d := device(t)
			err := d.Activate(t.Context(), s, two)
			var f *install.FailedError
			if !errors.As(err, &f) || !errors.Is(err, bad) || f.Version != "2.0.0" || f.Previous != "1.0.0" {
				t.Fatalf("Activate: %v", err)
			}
			if (f.Rollback != nil) != (s.rollback != nil) || s.rollback != nil && !errors.Is(err, s.rollback) {
				t.Errorf("Rollback: %v", f.Rollback)
			}
			inService(t, data, "1.0.0")
			noTrial(t, d)
			if s.calls[len(s.calls)-1] != "rollback" {
				t.Errorf("calls: %v", s.calls)
			}
			if _, err := os.Stat(d.Path("2.0.0")); err != nil {
				t.Errorf("the failed release is gone: %v", err)
			}
		})
	}
}

func TestFirstReleaseFails(t *testing.T) {
	data := t.TempDir()
	d := open(t, data)
	put(t, d, "2.0.0")
	err := d.Activate(t.Context(), &script{healthy: errors.New("no")}, two)
	if err == nil || !strings.Contains(err.Error(), "none is in service") {
		t.Errorf("Activate: %v", err)
	}
	inService(t, data, "")
	noTrial(t, d)
}

func TestPreviousReleaseIsGone(t *testing.T) {
	_, d := device(t)
	s := &script{healthy: errors.New("no"), onCall: func(string) {
		if err := os.RemoveAll(d.Path("1.0.0")); err != nil {
			t.Error(err)
		}
	}}
	var f *install.FailedError
	if err := d.Activate(t.Context(), s, two); !errors.As(err, &f) || f.Rollback == nil {
		t.Errorf("Activate: %v", err)
	}
	noTrial(t, d)
}

// TestKill ends the program after each step that lasts, in a trial that succeeds
// and in one that fails, and starts it again.
func TestKill(t *testing.T) {
	bad := errors.New("no")
	for _, c := range []struct {
		name    string
		healthy error
		steps   []string
		want    string
	}{
		{"good", nil, []string{"noted", "switched", "committed", "healthy"}, "2.0.0"},
		{"bad", bad, []string{"noted", "switched", "committed", "failed", "switched back"}, "1.0.0"},
	} {
		for _, at := range c.steps {
			t.Run(c.name+" "+at, func(t *testing.T) {
				data, d := device(t)
				first := &script{healthy: c.healthy}
				if !killedAt(d, at, func() { _ = d.Activate(t.Context(), first, two) }) {
					t.Fatal("the step was never reached")
				}
				if _, ok := d.Pending(); !ok {
					t.Fatal("no trial to go on with")
				}
				if v, ok := open(t, data).Current(); !ok {
					t.Errorf("nothing in service after the kill: %q", v)
				}
				again, second := open(t, data), &script{healthy: c.healthy}
				err := again.Activate(t.Context(), second, two)
				if (err == nil) != (c.healthy == nil) {
					t.Errorf("Activate: %v", err)
				}
				inService(t, data, c.want)
				noTrial(t, again)
				if n := count(first.calls, "commit") + count(second.calls, "commit"); n != 1 {
					t.Errorf("commit ran %d times", n)
				}
				if c.healthy != nil && count(second.calls, "rollback") != 1 {
					t.Errorf("calls after the kill: %v", second.calls)
				}
				if r := second.seen[0]; r.Attempt != 2 || r.Previous != d.Path("1.0.0") {
					t.Errorf("told of %+v", r)
				}
			})
		}
	}
}

// TestKillPublish ends the program while a release gets its name.
func TestKillPublish(t *testing.T) {
	for _, at := range []string{"synced", "named"} {
		data := t.TempDir()
		d := open(t, data)
		dir, err := d.Staging("1.0.0")
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "app.bin"), "1.0.0")
		if !killedAt(d, at, func() { _, _ = d.Publish("1.0.0") }) {
			t.Fatalf("step %s was never reached", at)
		}
		d = open(t, data)
		if _, err := d.Publish("1.0.0"); err != nil {
			t.Errorf("killed when %s: %v", at, err)
		}
		if err := d.Switch("1.0.0"); err != nil {
			t.Errorf("killed when %s: %v", at, err)
		}
		inService(t, data, "1.0.0")
	}
}

// killedAt runs fn and ends it right after the step, as a kill would: nothing
// that fn had yet to do is done.
func killedAt(d *install.Dir, at string, fn func()) (killed bool) {
	type kill struct{}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(kill); !ok {
				panic(r)
			}
			killed = true
		}
	}()
	d.OnStep(func(name string) {
		if name == at {
			panic(kill{})
		}
	})
	fn()
	return false
}

func count(list []string, s string) (n int) {
	for _, x := range list {
		if x == s {
			n++
		}
	}
	return n
}

// downIn runs Activate as on a device that goes down in the step.
func downIn(t *testing.T, data, step string, s *script) {
	t.Helper()
	defer func() { _ = recover() }()
	s.onCall = func(name string) {
		if name == step {
			panic("down")
		}
	}
	_ = open(t, data).Activate(t.Context(), s, two)
}

// A release that brings the device down in its health check is given up.
func TestCrashLoopEnds(t *testing.T) {
	data, d := device(t)
	for range 3 {
		downIn(t, data, "health", &script{})
		inService(t, data, "2.0.0")
	}
	s := &script{}
	if err := d.Activate(t.Context(), s, two); !errors.Is(err, install.ErrInterrupted) {
		t.Errorf("Activate: %v", err)
	}
	inService(t, data, "1.0.0")
	noTrial(t, d)
	if !slices.Equal(s.calls, []string{"rollback"}) {
		t.Errorf("calls: %v", s.calls)
	}
}

// A Rollback that never returns does not hold the device for ever.
func TestRollbackLoopEnds(t *testing.T) {
	data, d := device(t)
	s := &script{healthy: errors.New("no")}
	for range 20 {
		downIn(t, data, "rollback", s)
		if _, ok := d.Pending(); !ok {
			break
		}
	}
	noTrial(t, d)
	inService(t, data, "1.0.0")
	if n := count(s.calls, "rollback"); n < 2 || n > 6 {
		t.Errorf("Rollback ran %d times", n)
	}
}

// A stop of the agent is no failure of the release.
func TestStopDuringTrial(t *testing.T) {
	for _, at := range []string{"commit", "health"} {
		data, d := device(t)
		ctx, cancel := context.WithCancel(t.Context())
		s := &script{onCall: func(step string) {
			if step == at {
				cancel()
			}
		}}
		err := d.Activate(ctx, stopping{s}, two)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("stopped in %s: %v", at, err)
		}
		if count(s.calls, "rollback") != 0 {
			t.Errorf("stopped in %s: rolled back", at)
		}
		tr, ok := d.Pending()
		if !ok || tr.Committed != (at == "health") {
			t.Errorf("stopped in %s: trial %+v, %v", at, tr, ok)
		}
		if err := d.Activate(t.Context(), install.Plain{}, two); err != nil {
			t.Errorf("going on: %v", err)
		}
		inService(t, data, "2.0.0")
	}
}

// stopping is an Installer whose steps end with their context.
type stopping struct{ *script }

func (s stopping) Commit(ctx context.Context, r install.Release) error {
	return errors.Join(s.script.Commit(ctx, r), ctx.Err())
}

func (s stopping) Healthy(ctx context.Context, r install.Release) error {
	return errors.Join(s.script.Healthy(ctx, r), ctx.Err())
}

// A newer release on top of a trial goes back to what had proved itself.
func TestTrialOnTrial(t *testing.T) {
	data, d := device(t)
	killedAt(d, "switched", func() { _ = d.Activate(t.Context(), &script{}, two) })
	d = open(t, data)
	put(t, d, "3.0.0")
	if gone, err := d.Prune(0); err != nil || slices.Contains(gone, "1.0.0") {
		t.Errorf("Prune during a trial removed %v, %v", gone, err)
	}
	put(t, d, "3.0.0")
	err := d.Activate(t.Context(), &script{healthy: errors.New("no")}, install.Release{Version: "3.0.0"})
	var f *install.FailedError
	if !errors.As(err, &f) || f.Previous != "1.0.0" {
		t.Errorf("Activate: %v", err)
	}
	inService(t, data, "1.0.0")
}

func TestDamagedTrialIsNone(t *testing.T) {
	data, d := device(t)
	for _, text := range []string{"", "{", "null", `{"version":"../x","attempt":1}`, `{"version":"2.0.0","attempt":0}`,
		`{"version":"2.0.0","previous":"2.0.0","attempt":1}`, `{"version":"2.0.0","previous":"a/b","attempt":1}`} {
		write(t, filepath.Join(data, "trial"), text)
		if tr, ok := d.Pending(); ok {
			t.Errorf("%q is a trial: %+v", text, tr)
		}
	}
	if err := d.Activate(t.Context(), &script{}, two); err != nil {
		t.Error(err)
	}
	inService(t, data, "2.0.0")
}

// A cause of any length and content is noted so that it can be read again.
func TestLongCause(t *testing.T) {
	_, d := device(t)
	s := &script{healthy: errors.New(strings.Repeat("\x00\xffé", 1<<16))}
	if !killedAt(d, "failed", func() { _ = d.Activate(t.Context(), s, two) }) {
		t.Fatal("not killed")
	}
	if tr, ok := d.Pending(); !ok || tr.Failed == "" || len(tr.Failed) > 4<<10 {
		t.Errorf("trial: %v, %d bytes", ok, len(tr.Failed))
	}
}

func FuzzTrial(f *testing.F) {
	f.Add([]byte(`{"version":"2.0.0","previous":"1.0.0","attempt":1,"committed":true}`))
	f.Add([]byte(`{"version":"2.0.0","attempt":1,"failed":"no"}`))
	f.Add([]byte(`{"version":"..","attempt":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, ok := install.ParseTrial(b)
		if ok && (tr.Attempt < 1 || strings.ContainsAny(tr.Version+tr.Previous, "/\x00") || tr.Version == "" || tr.Version == tr.Previous) {
			t.Errorf("%q is a trial: %+v", b, tr)
		}
	})
}
