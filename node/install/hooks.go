package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"updraft/delta/release"
)

// Release is what an Installer is told about.
type Release struct {
	Version  string
	Dir      string // of its artifacts, under their names; the staging directory in Stage
	Manifest *release.Manifest
	Previous string // directory of the release in service before; empty: none, or not known yet
	Attempt  int    // counts from 1; above it, a crash or a reboot cut the step short before; 0 in Stage
}

// Installer takes part in the steps of an install. An error of Stage leaves the
// old release in service; an error of Commit or Healthy brings it back, and then
// Rollback is called. Calls do not overlap and end with their context. A step that
// a crash cut short is called again: each must cope with that.
type Installer interface {
	Stage(ctx context.Context, r Release) error
	Commit(ctx context.Context, r Release) error
	Healthy(ctx context.Context, r Release) error
	Rollback(ctx context.Context, r Release) error
}

// Plain is the Installer that adds nothing to the switch of the link.
type Plain struct{}

// Stage implements Installer.
func (Plain) Stage(context.Context, Release) error { return nil }

// Commit implements Installer.
func (Plain) Commit(context.Context, Release) error { return nil }

// Healthy implements Installer.
func (Plain) Healthy(context.Context, Release) error { return nil }

// Rollback implements Installer.
func (Plain) Rollback(context.Context, Release) error { return nil }

// HooksConfig names the programs; empty ones are skipped.
type HooksConfig struct {
	Stage, Commit, Health, Rollback string
	User                            string        // run as this user, by name or number; empty: as the agent
	Timeout                         time.Duration // of each program; 0: 5 minutes
	Data                            string        // the data directory
	Log                             *slog.Logger  // told of each program: step, duration, output; nil is silent
}

// maxOutput is how much of a program's output goes into an error or the log, in
// bytes; the last bytes are kept.
const maxOutput = 4 << 10

// Hooks is an Installer that runs programs. They get no standard input and only
// this environment:
//
//	PATH                  /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
//	UPDRAFT_STEP          stage, commit, health or rollback
//	UPDRAFT_ATTEMPT       1; higher if a crash or a reboot cut the step short before
//	UPDRAFT_VERSION       version of the new release
//	UPDRAFT_CHANNEL       its channel
//	UPDRAFT_RELEASE_DIR   directory of the new release's artifacts, also the working directory
//	UPDRAFT_PREVIOUS_DIR  directory of the release in service before; empty: none
//	UPDRAFT_DATA          the data directory
//
// A program that fails its step exits with another status than 0. One that
// outlives its timeout, or the agent's wish to stop, is killed with its whole
// process group. What a program leaves running in the background goes on; it should
// redirect its output, which is closed 2 s after the program has ended.
//
// A commit may reboot the device: the trial goes on after that, and the second
// commit, told by UPDRAFT_ATTEMPT, only has to say whether the reboot served.
type Hooks struct {
	cfg      HooksConfig
	cred     *syscall.Credential
	previous string // directory in service at Stage; for callers that do not fill in Release.Previous
}

// afterExit is how long output is awaited after a program has ended.
const afterExit = 2 * time.Second

// NewHooks checks the configuration: paths are absolute, the user exists and this
// process may become it. A program may be missing as yet, since a release can bring
// its own, and the log says so; a step whose program is missing fails.
func NewHooks(c HooksConfig) (*Hooks, error) {
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Minute
	}
	for _, p := range []string{c.Stage, c.Commit, c.Health, c.Rollback} {
		if p != "" && !filepath.IsAbs(p) {
			return nil, fmt.Errorf("install: hook %q is not an absolute path", p)
		}
		if p != "" && c.Log != nil {
			if _, err := exec.LookPath(p); err != nil {
				c.Log.Warn("hook cannot be run as yet: its step fails unless a release brings it", "path", p, "err", err)
			}
		}
	}
	h := &Hooks{cfg: c}
	if c.User != "" {
		cred, err := credential(c.User)
		if err != nil {
			return nil, err
		}
		if me := os.Geteuid(); me == 0 {
			h.cred = cred
		} else if uint32(me) != cred.Uid {
			return nil, fmt.Errorf("install: hooks cannot run as %s: the agent is not root", c.User)
		}
	}
	return h, nil
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("install: user of hooks: %w", err)
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("install: user of hooks: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// Stage implements Installer.
func (h *Hooks) Stage(ctx context.Context, r Release) error {
	h.previous = ""
	if to, err := filepath.EvalSymlinks(filepath.Join(h.cfg.Data, currentLink)); err == nil {
		h.previous = to
	}
	return h.run(ctx, "stage", h.cfg.Stage, r)
}

// Commit implements Installer.
func (h *Hooks) Commit(ctx context.Context, r Release) error {
	return h.run(ctx, "commit", h.cfg.Commit, r)
}

// Healthy implements Installer.
func (h *Hooks) Healthy(ctx context.Context, r Release) error {
	return h.run(ctx, "health", h.cfg.Health, r)
}

// Rollback implements Installer.
func (h *Hooks) Rollback(ctx context.Context, r Release) error {
	return h.run(ctx, "rollback", h.cfg.Rollback, r)
}

// HookError is a program that failed.
type HookError struct {
	Step, Path string
	Output     string // the last of what it printed
	Err        error
}

func (e *HookError) Error() string {
	s := fmt.Sprintf("install: %s hook %s: %v", e.Step, e.Path, e.Err)
	if out := strings.TrimSpace(e.Output); out != "" {
		s += ": " + out
	}
	return s
}

func (e *HookError) Unwrap() error { return e.Err }

func (h *Hooks) run(ctx context.Context, step, path string, r Release) error {
	if path == "" {
		return nil
	}
	parent, start := ctx, time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, h.cfg.Timeout, fmt.Errorf("still running after %v", h.cfg.Timeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Dir, cmd.Env = r.Dir, h.env(step, r)
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	// A group of its own, so that what it started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: h.cred}
	cmd.Cancel = func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return os.ErrProcessDone
	}
	cmd.WaitDelay = afterExit
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it succeeded; something in the background holds its output
	}
	if cmd.Process == nil && ctx.Err() == nil { // the error names the program alone, be it the directory that is shut
		who := h.cfg.User
		if who == "" {
			who = "the agent's user"
		}
		err = fmt.Errorf("could not be started in %s as %s: %w", r.Dir, who, err)
	}
	if h.cfg.Log != nil {
		h.cfg.Log.Info("hook", "step", step, "version", r.Version, "took", time.Since(start), "output", out.String(), "err", err)
	}
	if err == nil {
		return nil
	}
	if parent.Err() != nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = errors.Join(context.Cause(ctx), err)
	}
	return &HookError{Step: step, Path: path, Output: out.String(), Err: err}
}

func (h *Hooks) env(step string, r Release) []string {
	if r.Previous == "" {
		r.Previous = h.previous
	}
	channel := ""
	if r.Manifest != nil {
		channel = r.Manifest.Channel
	}
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"UPDRAFT_STEP=" + step, "UPDRAFT_ATTEMPT=" + strconv.Itoa(max(r.Attempt, 1)),
		"UPDRAFT_VERSION=" + r.Version, "UPDRAFT_CHANNEL=" + channel,
		"UPDRAFT_RELEASE_DIR=" + r.Dir, "UPDRAFT_PREVIOUS_DIR=" + r.Previous, "UPDRAFT_DATA=" + h.cfg.Data,
	}
}

// tail keeps the last maxOutput bytes written to it.
type tail struct{ buf bytes.Buffer }

func (t *tail) Write(b []byte) (int, error) {
	t.buf.Write(b)
	if over := t.buf.Len() - maxOutput; over > 0 {
		t.buf.Next(over)
	}
	return len(b), nil
}

func (t *tail) String() string { return strings.ToValidUTF8(t.buf.String(), "?") }
