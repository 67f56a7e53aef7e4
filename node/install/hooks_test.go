package install_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"updraft/delta/release"
	"updraft/node/install"
)

// hook writes a shell script and returns its path.
func hook(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func hooks(t *testing.T, c install.HooksConfig) *install.Hooks {
	t.Helper()
	h, err := install.NewHooks(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHookEnvironment(t *testing.T) {
	t.Setenv("SECRET", "not for hooks")
	data, d := device(t)
	out := filepath.Join(t.TempDir(), "out")
	p := hook(t, `{ env | grep -v '^\(PWD\|SHLVL\|_\)='; pwd; } >>`+out+`; echo >>`+out)
	h := hooks(t, install.HooksConfig{Stage: p, Commit: p, Health: p, Rollback: p, Data: data})
	dir, err := d.Staging("3.0.0")
	if err != nil {
		t.Fatal(err)
	}
	r := install.Release{Version: "3.0.0", Dir: dir, Manifest: &release.Manifest{Channel: "kiosk/stable"}}
	if err := h.Stage(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Publish("3.0.0"); err != nil {
		t.Fatal(err)
	}
	if err := d.Activate(t.Context(), h, r); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	steps := strings.Split(strings.TrimSpace(string(b)), "\n\n")
	if len(steps) != 3 {
		t.Fatalf("%d programs ran:\n%s", len(steps), b)
	}
	for i, step := range []string{"stage", "commit", "health"} {
		in := d.Path("3.0.0")
		if step == "stage" {
			in = dir
		}
		want := []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "UPDRAFT_STEP=" + step, "UPDRAFT_ATTEMPT=1",
			"UPDRAFT_VERSION=3.0.0", "UPDRAFT_CHANNEL=kiosk/stable", "UPDRAFT_RELEASE_DIR=" + in,
			"UPDRAFT_PREVIOUS_DIR=" + d.Path("1.0.0"), "UPDRAFT_DATA=" + data, in,
		}
		got := strings.Split(steps[i], "\n")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", step, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestFailingHooks(t *testing.T) {
	bad := "echo reason on stdout; echo reason on stderr >&2; exit 3"
	for _, step := range []string{"commit", "health"} {
		data, d := device(t)
		rolled := filepath.Join(t.TempDir(), "rolled")
		c := install.HooksConfig{Data: data, Rollback: hook(t, "readlink $UPDRAFT_DATA/current >"+rolled)}
		if step == "commit" {
			c.Commit = hook(t, bad)
		} else {
			c.Health = hook(t, bad)
		}
		err := d.Activate(t.Context(), hooks(t, c), two)
		var e *install.HookError
		if !errors.As(err, &e) || e.Step != step {
			t.Fatalf("%s: %v", step, err)
		}
		for _, part := range []string{"exit status 3", "reason on stdout", "reason on stderr", "1.0.0 is in service again"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q is missing in %v", step, part, err)
			}
		}
		inService(t, data, "1.0.0")
		if b, err := os.ReadFile(rolled); err != nil || string(b) != "releases/1.0.0\n" {
			t.Errorf("%s: rollback saw %q, %v", step, b, err)
		}
	}
}

func TestMissingHookFails(t *testing.T) {
	data, d := device(t)
	h := hooks(t, install.HooksConfig{Data: data, Health: filepath.Join(data, "none")})
	if err := d.Activate(t.Context(), h, two); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "in "+d.Path("2.0.0")+" as the agent's user") {
		t.Errorf("Activate: %v", err)
	}
	inService(t, data, "1.0.0")
}

// TestMissingHookIsSaid: who has mistyped a path learns it when the agent starts.
func TestMissingHookIsSaid(t *testing.T) {
	var buf bytes.Buffer
	there, missing := hook(t, "true"), filepath.Join(t.TempDir(), "none")
	hooks(t, install.HooksConfig{Stage: there, Health: missing, Log: slog.New(slog.NewTextHandler(&buf, nil)), Data: t.TempDir()})
	if s := buf.String(); !strings.Contains(s, missing) || strings.Contains(s, there) {
		t.Errorf("the log says %q", s)
	}
}

func TestNewHooksRefuses(t *testing.T) {
	if _, err := install.NewHooks(install.HooksConfig{Commit: "relative/path"}); err == nil {
		t.Error("a relative path")
	}
	if _, err := install.NewHooks(install.HooksConfig{User: "no-such-user-here"}); err == nil {
		t.Error("an unknown user")
	}
}

func TestOutputIsBounded(t *testing.T) {
	p := hook(t, `i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done; printf '\377the end'; exit 1`)
	err := hooks(t, install.HooksConfig{Stage: p, Data: t.TempDir()}).Stage(t.Context(), install.Release{Version: "1"})
	var e *install.HookError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if len(e.Output) > 4<<10 || !strings.HasSuffix(e.Output, "?the end") || strings.Contains(e.Output, "line 0\n") {
		t.Errorf("%d bytes of output, end %q", len(e.Output), e.Output[max(0, len(e.Output)-20):])
	}
}

func TestOutputIsLogged(t *testing.T) {
	var buf bytes.Buffer
	h := hooks(t, install.HooksConfig{Stage: hook(t, "echo all is well"), Log: slog.New(slog.NewTextHandler(&buf, nil)), Data: t.TempDir()})
	if err := h.Stage(t.Context(), install.Release{Version: "1"}); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"step=stage", "version=1", "all is well"} {
		if !strings.Contains(buf.String(), part) {
			t.Errorf("%q is missing in %s", part, buf.String())
		}
	}
}

// TestTimeoutKillsTheGroup checks that what a hook has started ends with it.
func TestTimeoutKillsTheGroup(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	p := hook(t, "sleep 600 & echo $! >"+pid+"; wait")
	h := hooks(t, install.HooksConfig{Health: p, Timeout: 300 * time.Millisecond, Data: t.TempDir()})
	err := h.Healthy(t.Context(), install.Release{Version: "1"})
	if err == nil || !strings.Contains(err.Error(), "still running after 300ms") {
		t.Fatalf("Healthy: %v", err)
	}
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if gone(child) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d lives on", child)
}

// gone reports whether a process has ended, reaped or not.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

func TestStopKillsTheHook(t *testing.T) {
	data, d := device(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready := filepath.Join(t.TempDir(), "ready")
	h := hooks(t, install.HooksConfig{Commit: hook(t, "echo >"+ready+"; exec sleep 600"), Data: data})
	go func() {
		for {
			if _, err := os.Stat(ready); err == nil {
				cancel()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	if err := d.Activate(ctx, h, two); !errors.Is(err, context.Canceled) {
		t.Errorf("Activate: %v", err)
	}
	if tr, ok := d.Pending(); !ok || tr.Committed {
		t.Errorf("trial %+v, %v", tr, ok)
	}
}

// A commit that starts the application in the background has succeeded.
func TestHookMayLeaveSomethingRunning(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	h := hooks(t, install.HooksConfig{Commit: hook(t, "sleep 600 & echo $! >"+pid), Data: t.TempDir()})
	if err := h.Commit(t.Context(), install.Release{Version: "1"}); err != nil {
		t.Errorf("Commit: %v", err)
	}
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if gone(child) {
		t.Error("what the hook left running is gone")
	}
	if err := unix.Kill(child, unix.SIGKILL); err != nil {
		t.Error(err)
	}
}

// A commit that reboots runs once more after that, and is told so.
func TestCommitThatReboots(t *testing.T) {
	data, d := device(t)
	h := hooks(t, install.HooksConfig{Data: data, Commit: hook(t, `[ "$UPDRAFT_ATTEMPT" = 2 ]`)})
	if !killedAt(d, "switched", func() { _ = d.Activate(t.Context(), h, two) }) {
		t.Fatal("not killed")
	}
	if err := open(t, data).Activate(t.Context(), h, two); err != nil {
		t.Error(err)
	}
	inService(t, data, "2.0.0")
}

func TestHookUser(t *testing.T) {
	if os.Geteuid() != 0 {
		if _, err := install.NewHooks(install.HooksConfig{User: "0"}); err == nil {
			t.Error("hooks as root, by an agent that is not")
		}
		t.Skip("only root can run hooks as another user")
	}
	h := hooks(t, install.HooksConfig{User: "nobody", Data: "/", Stage: "/usr/bin/id"})
	err := h.Stage(t.Context(), install.Release{Version: "1", Dir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "hooks")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(dir, "who")
	if err := os.WriteFile(p, []byte("#!/bin/sh\nid -un; id -G; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h = hooks(t, install.HooksConfig{User: "nobody", Data: "/", Stage: p})
	var e *install.HookError
	if err := h.Stage(t.Context(), install.Release{Version: "1", Dir: "/"}); !errors.As(err, &e) {
		t.Fatal(err)
	}
	if f := strings.Fields(e.Output); len(f) != 2 || f[0] != "nobody" || f[1] == "0" {
		t.Errorf("ran as %q", e.Output)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := h.Stage(t.Context(), install.Release{Version: "1", Dir: dir}); err == nil || !strings.Contains(err.Error(), "could not be started in "+dir+" as nobody") {
		t.Errorf("in a directory of root: %v", err)
	}
}
