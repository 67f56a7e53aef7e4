package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"updraft/delta/release"
)

// sweep removes from the state directory what neither a release held here nor next,
// the one under way, has use for: what was kept for releases that the channel left
// behind, or that a crash left. next may be nil. Nothing is being rebuilt.
func (n *Node) sweep(next *release.Manifest) error {
	keep := make(map[string]bool)
	all := n.lib.manifests()
	if next != nil {
		all = append(all, next)
		for i := range next.Steps {
			keep[n.paths.patch(next.Steps[i].Sum)] = true
		}
		for i := range next.Artifacts {
			for _, q := range next.Artifacts[i].Patches {
				keep[n.paths.patch(q.Sum)] = true
			}
		}
	}
	for _, m := range all {
		keep[n.paths.manifest(m.Version)] = true
		for i := range m.Artifacts {
			keep[n.paths.index(m.Artifacts[i].Sum)] = true
			keep[n.paths.listing(m.Artifacts[i].Sum)] = true
		}
	}
	var err error
	for _, dir := range stateDirs {
		es, e := os.ReadDir(n.paths.state(dir))
		if e != nil {
			return errors.Join(err, fmt.Errorf("node: read state directory: %w", e))
		}
		for _, e := range es {
			p := filepath.Join(n.paths.state(dir), e.Name())
			if keep[p] || dir == manifestsDir && n.installed(e.Name()) {
				continue
			}
			err = errors.Join(err, os.RemoveAll(p))
		}
	}
	return err
}

// sweepStart is sweep before anything is under way: target is what the channel named
// when the agent stopped.
func (n *Node) sweepStart(target *release.Manifest) {
	next, staged := target, target.Version
	if n.inService(target) {
		next, staged = nil, ""
	}
	n.problem(problemDisk, "state", errors.Join(n.dir.CleanStaging(staged), n.sweep(next)))
}

// installed reports whether a release lies here, whether or not its manifest can be
// read: a program of another version may have written it.
func (n *Node) installed(version string) bool {
	if release.CheckVersion(version) != nil {
		return false
	}
	_, err := os.Stat(n.dir.Path(version))
	return !errors.Is(err, fs.ErrNotExist)
}

// manifests returns those of the releases held here.
func (l *library) manifests() []*release.Manifest {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*release.Manifest
	for _, h := range l.rel {
		out = append(out, h.manifest)
	}
	return out
}
