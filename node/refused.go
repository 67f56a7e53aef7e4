package node

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"updraft/node/report"
)

// maxRefused is how many refused releases are remembered.
const maxRefused = 16

// refusedRelease is one that did not work here. It is not tried again before somebody
// asks for it (Retry), also not after a restart; a newer release is another one.
type refusedRelease struct {
	Manifest string    `json:"manifest"` // its digest, in hexadecimal
	Version  string    `json:"version"`
	Reason   string    `json:"reason"`
	Time     time.Time `json:"time"`

	err error // nil: from an earlier run
}

func (r *refusedRelease) Error() string {
	return fmt.Sprintf("node: release %s was refused at %s: %s", r.Version, r.Time.Format(time.DateTime), r.Reason)
}

func (r *refusedRelease) Unwrap() error { return r.err }

// refuse notes that a release does not work here.
func (n *Node) refuse(version string, digest [32]byte, err error) error {
	n.mu.Lock()
	name := hex.EncodeToString(digest[:])
	n.refused = slices.DeleteFunc(n.refused, func(r *refusedRelease) bool { return r.Manifest == name })
	n.refused = append(n.refused, &refusedRelease{Manifest: name, Version: version, Reason: err.Error(), Time: time.Now().UTC(), err: err})
	n.refused = n.refused[max(0, len(n.refused)-maxRefused):]
	e := n.saveRefusedLocked()
	n.mu.Unlock()
	n.problem(problemInstall, version, err)
	n.problem(problemDisk, "refused releases", e)
	return err
}

// refusal returns why the release with that manifest is not tried again, or nil.
func (n *Node) refusal(digest [32]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := hex.EncodeToString(digest[:])
	for _, r := range n.refused {
		if r.Manifest == name {
			return r
		}
	}
	return nil
}

// Retry implements report.Backend: it forgets which releases were refused.
func (n *Node) Retry() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = nil
	n.status.problems.ClearCode(problemInstall)
	n.wakeLocked()
	return n.saveRefusedLocked()
}

func (n *Node) refusedPath() string { return filepath.Join(n.cfg.Data, "state", "refused.json") }

func (n *Node) saveRefusedLocked() error {
	if len(n.refused) == 0 {
		if err := os.Remove(n.refusedPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("node: forget refused releases: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(n.refused)
	if err == nil {
		err = renameio.WriteFile(n.refusedPath(), b, 0o600, renameio.WithTempDir(filepath.Dir(n.refusedPath())))
	}
	if err != nil {
		return fmt.Errorf("node: keep refused releases: %w", err)
	}
	return nil
}

// loadRefused takes up what an earlier run refused. A file that cannot be read costs
// one more try of a bad release.
func (n *Node) loadRefused() error {
	b, err := os.ReadFile(n.refusedPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var list []*refusedRelease
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil || slices.Contains(list, nil) {
		return errors.Join(fmt.Errorf("node: read refused releases: %w", errors.Join(err, errRefusedFile)), os.Remove(n.refusedPath()))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = list[max(0, len(list)-maxRefused):]
	for _, r := range n.refused {
		n.problem(problemInstall, r.Version, r)
	}
	return nil
}

var errRefusedFile = errors.New("node: the list of refused releases is damaged")

// refusals returns them for status, the oldest first.
func (n *Node) refusals() []report.RefusedRelease {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []report.RefusedRelease
	for _, r := range n.refused {
		out = append(out, report.RefusedRelease{Version: r.Version, Reason: r.Reason, Time: r.Time})
	}
	return out
}
