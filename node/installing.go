package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

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
		User: h.User, Timeout: h.Timeout, Data: n.cfg.Data})
}

// install puts the complete release into service. Until the last step succeeds
// the old release is in service, or comes back.
func (u *update) install(ctx context.Context) error {
	n := u.n
	n.setState(stateInstalling)
	for _, a := range u.arts {
		if err := a.st.finish(); err != nil {
			return fmt.Errorf("node: finish %s: %w", a.art.Name, err)
		}
		if err := a.index.Sync(); err != nil {
			return fmt.Errorf("node: sync chunk index: %w", err)
		}
		n.status.add(a)
	}
	if err := n.awaitHold(ctx); err != nil {
		return err
	}
	rel := install.Release{Version: u.m.Version, Dir: u.staging, Manifest: u.m}
	previous, had := n.dir.Current()
	if err := n.inst.Stage(ctx, rel); err != nil {
		return n.refuse(u.m.Version, fmt.Errorf("node: stage: %w", err))
	}
	final, err := n.dir.Publish(u.m.Version)
	if err != nil {
		return err
	}
	rel.Dir = final
	if err := n.lib.add(u.m, u.arts, final); err != nil {
		return err
	}
	if err := n.dir.Switch(u.m.Version); err != nil {
		return err
	}
	err = n.inst.Commit(ctx, rel)
	if err == nil {
		err = n.inst.Healthy(ctx, rel)
	}
	if err != nil {
		return n.rollBack(ctx, rel, previous, had, err)
	}
	n.log.Info("release in service", "version", u.m.Version)
	return n.prune()
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

// rollBack brings the previous release back and refuses the new one.
func (n *Node) rollBack(ctx context.Context, rel install.Release, previous string, had bool, cause error) error {
	// An install that fails because the agent is stopped is still rolled back.
	ctx = context.WithoutCancel(ctx)
	err := fmt.Errorf("node: release %s failed: %w", rel.Version, cause)
	if had {
		if e := n.dir.Switch(previous); e != nil {
			return errors.Join(err, e)
		}
	} else if e := n.dir.Unlink(); e != nil {
		err = errors.Join(err, e)
	}
	if e := n.inst.Rollback(ctx, rel); e != nil {
		err = errors.Join(err, fmt.Errorf("node: roll back: %w", e))
	}
	return n.refuse(rel.Version, err)
}

// refuse notes that a version does not work here, so that it is not tried again
// before the agent is started anew or another release comes.
func (n *Node) refuse(version string, err error) error {
	n.mu.Lock()
	n.refused[version] = err
	n.mu.Unlock()
	n.problem(problemInstall, version, err)
	return err
}

// prune removes releases beyond those to keep, and what was kept for them.
func (n *Node) prune() error {
	gone, err := n.dir.Prune(n.cfg.Keep)
	for _, v := range gone {
		err = errors.Join(err, n.lib.drop(v, n.dir.Path))
	}
	err = errors.Join(err, n.paths.cleanPatches())
	if err != nil {
		n.problem(problemDisk, "old releases", err)
	}
	return nil
}

// diskUse returns the bytes a file occupies.
func diskUse(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return fi.Size()
}
