package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"updraft/delta/release"
	"updraft/node/install"
)

// holdPoll is how often a hold file is looked at.
const holdPoll = 2 * time.Second

// installer returns what the configuration asks for.
func (n *Node) installer() (install.Installer, error) {
	h := n.cfg.Hooks
	if h.Stage == "" && h.Commit == "" && h.Health == "" && h.Rollback == "" {
		return install.Plain{}, nil
	}
	return install.NewHooks(install.HooksConfig{Stage: h.Stage, Commit: h.Commit, Health: h.Health, Rollback: h.Rollback,
		User: h.User, Timeout: h.Timeout, Data: n.cfg.Data, Log: n.log})
}

// install puts the complete release into service. Until the last step succeeds
// the old release is in service, or comes back.
func (u *update) install(ctx context.Context) error {
	n := u.n
	n.setState(stateInstalling)
	if err := u.makeTwins(ctx); err != nil {
		return err
	}
	for _, a := range u.arts {
		if err := a.st.finish(); err != nil {
			return fmt.Errorf("node: finish %s: %w", a.art.Name, err)
		}
		if err := a.index.Sync(); err != nil {
			return fmt.Errorf("node: sync chunk index: %w", err)
		}
	}
	if err := u.lend(ctx); err != nil {
		return err
	}
	if err := n.awaitHold(ctx); err != nil {
		return err
	}
	rel := install.Release{Version: u.m.Version, Dir: u.staging, Manifest: u.m}
	if err := n.inst.Stage(ctx, rel); err != nil {
		return n.refuse(u.m.Version, u.digest, fmt.Errorf("node: stage: %w", err))
	}
	final, err := n.dir.Publish(u.m.Version)
	if err != nil {
		return err
	}
	// What is complete is held, whether or not it works: it serves others, and a new
	// try needs nothing more.
	u.kept = true
	arts := make([]*assembly, len(u.m.Artifacts))
	for i := range arts {
		arts[i] = u.assembly(i)
	}
	if err := errors.Join(n.lib.add(u.m, arts, final), n.activate(ctx, u.m.Version, u.m, u.digest)); err != nil {
		return err
	}
	return n.prune()
}

// activate puts a complete release into service on trial; one that fails is
// refused and the release before it is back. m is nil if it is lost.
func (n *Node) activate(ctx context.Context, version string, m *release.Manifest, digest [32]byte) error {
	n.setState(stateInstalling)
	err := n.dir.Activate(ctx, n.inst, install.Release{Version: version, Manifest: m})
	var failed *install.FailedError
	if errors.As(err, &failed) {
		return n.refuse(version, digest, err)
	}
	if err == nil {
		n.log.Info("release in service", "version", version)
	}
	return err
}

// resumeTrial brings to its end what a crash interrupted while a release was on
// trial, whatever has become of its files: what cannot serve others can still be bad.
func (n *Node) resumeTrial(ctx context.Context) {
	t, ok := n.dir.Pending()
	if !ok {
		return
	}
	m, digest := n.lib.kept(t.Version)
	n.mu.Lock()
	if to := n.target; m == nil && to != nil && to.m.Version == t.Version {
		m, digest = to.m, to.digest
	}
	n.mu.Unlock()
	if err := n.activate(ctx, t.Version, m, digest); err != nil {
		n.problem(problemInstall, t.Version, err)
	}
}

// awaitHold waits while the device asks that nothing be installed.
func (n *Node) awaitHold(ctx context.Context) error {
	told := false
	for n.dir.Held() {
		if !told {
			n.problem(problemHold, "install", errHold)
			told = true
		}
		if !sleep(ctx, holdPoll) {
			return ctx.Err()
		}
	}
	n.problem(problemHold, "install", nil)
	return nil
}

var errHold = errors.New("node: the install waits for the hold file to be removed")

// prune removes releases beyond those to keep, and what was kept for them.
func (n *Node) prune() error {
	gone, err := n.dir.Prune(n.cfg.Keep)
	for _, v := range gone {
		err = errors.Join(err, n.lib.drop(v, n.dir.Path))
	}
	n.problem(problemDisk, "old releases", errors.Join(err, n.sweep(nil)))
	return nil
}

// diskUse returns the bytes a file occupies.
func diskUse(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return fi.Size()
}
