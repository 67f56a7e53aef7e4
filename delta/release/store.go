package release

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Files of a Trust below its directory. go-tuf reads metadata/<role>.json.
const (
	floorFile   = "floor"
	rootsDir    = "roots" // <version>.json
	maxKnown    = 16      // manifests kept
	maxHeld     = 64      // channel roles kept
	storedMode  = 0o600
	storedRoots = maxRotations * 4
)

// held is the verified metadata of a device: the newest of each role, and the
// chain of roots from the first one trusted.
type held struct {
	first     int64 // version of the root that trust began with
	roots     map[int64][]byte
	root      *rootMeta
	timestamp *timestampMeta
	snapshot  *snapshotMeta
	targets   *targetsMeta
	raw       map[string][]byte // by role: timestamp, snapshot, targets, channels
	versions  map[string]int64  // of raw
	before    map[string][]byte // by name at the origin: the generation before, for peers in the middle of a refresh
}

func (h *held) clone() *held {
	n := *h
	n.roots, n.raw, n.versions = maps.Clone(h.roots), maps.Clone(h.raw), maps.Clone(h.versions)
	n.before = map[string][]byte{}
	for role, b := range h.raw {
		if role != metadata.TIMESTAMP {
			n.before[metaName(role, h.versions[role])] = b
		}
	}
	return &n
}

// load reads what is on disk and keeps of it what verifies: a chain of roots from
// first on, and the metadata those vouch for. Everything else is as if it were not
// there, and will be fetched again.
func load(dir string, first []byte) (*held, error) {
	root, err := parseRoot(first)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	h := &held{first: root.Signed.Version, roots: map[int64][]byte{root.Signed.Version: first}, root: root,
		raw: map[string][]byte{}, versions: map[string]int64{}}
	for range storedRoots {
		b, err := readFile(rootPath(dir, h.root.Signed.Version+1), maxRoot)
		if err != nil || h.climb(b) != nil {
			break
		}
	}
	for v := root.Signed.Version - 1; v > 0; v-- {
		b, err := readFile(rootPath(dir, v), maxRoot)
		if err != nil || h.descend(v, b) != nil {
			break
		}
	}
	h.loadTop(dir)
	return h, nil
}

func rootPath(dir string, v int64) string {
	return filepath.Join(dir, rootsDir, strconv.FormatInt(v, 10)+".json")
}

func rolePath(dir, role string) string { return filepath.Join(dir, metadataDir, role+".json") }

// climb takes the next root.
func (h *held) climb(b []byte) error {
	next, err := parseRoot(b)
	if err != nil {
		return err
	}
	if next.Signed.Version != h.root.Signed.Version+1 {
		return fmt.Errorf("%w: root version %d after %d", ErrMixAndMatch, next.Signed.Version, h.root.Signed.Version)
	}
	if err := verify(h.root, metadata.ROOT, next); err != nil {
		return err
	}
	h.root = next
	h.roots[next.Signed.Version] = b
	return nil
}

// oldest is the lowest version of a root held.
func (h *held) oldest() int64 {
	return slices.Min(slices.Collect(maps.Keys(h.roots)))
}

// descend takes a root before the first one, next to the oldest. This device does not trust
// it; it keeps it for peers that were enrolled earlier, who verify it by their own.
func (h *held) descend(v int64, b []byte) error {
	before, err := parseRoot(b)
	if err != nil {
		return err
	}
	next, err := parseRoot(h.roots[v+1])
	if err != nil {
		return err
	}
	if before.Signed.Version != v {
		return fmt.Errorf("%w: root version %d under the name of %d", ErrMixAndMatch, before.Signed.Version, v)
	}
	if err := verify(before, metadata.ROOT, next); err != nil {
		return err
	}
	if !signedAlike(before, next) {
		return fmt.Errorf("%w: nobody has signed both root %d and the next", ErrSignature, v)
	}
	h.roots[v] = b
	return nil
}

// signedAlike reports whether a key of before has signed it and next. Anybody can make a
// root that names the keys by which the next is signed, but not sign it with one of them.
// Who has stolen one can, whatever the threshold: only who trusts an older root can tell.
func signedAlike(before, next *rootMeta) bool {
	ids := before.Signed.Roles[metadata.ROOT].KeyIDs
	for _, id := range ids[:min(len(ids), maxKeys)] {
		one := *before
		one.Signed.Roles = maps.Clone(before.Signed.Roles)
		one.Signed.Roles[metadata.ROOT] = &metadata.Role{KeyIDs: []string{id}, Threshold: 1}
		if verify(&one, metadata.ROOT, before) == nil && verify(&one, metadata.ROOT, next) == nil {
			return true
		}
	}
	return false
}

// loadTop loads timestamp, snapshot, targets and the channels as far as they
// verify. Whether they are current is for the client workflow to find out.
func (h *held) loadTop(dir string) {
	var b []byte
	if h.timestamp, b = loadRole[metadata.TimestampType](dir, metadata.TIMESTAMP, maxTimestamp, h.root); h.timestamp == nil {
		return
	}
	if h.timestamp.Signed.Meta["snapshot.json"] == nil {
		h.timestamp = nil
		drop(dir, metadata.TIMESTAMP)
		return
	}
	h.keep(metadata.TIMESTAMP, h.timestamp.Signed.Version, b)
	if h.snapshot, b = loadRole[metadata.SnapshotType](dir, metadata.SNAPSHOT, maxSnapshot, h.root); h.snapshot == nil {
		return
	}
	h.keep(metadata.SNAPSHOT, h.snapshot.Signed.Version, b)
	if h.targets, b = loadRole[metadata.TargetsType](dir, metadata.TARGETS, maxTargets, h.root); h.targets == nil {
		return
	}
	h.keep(metadata.TARGETS, h.targets.Signed.Version, b)
	if h.targets.Signed.Delegations == nil {
		return
	}
	for _, d := range h.targets.Signed.Delegations.Roles {
		if !isDelegated(d.Name) || len(h.raw) > maxHeld {
			continue
		}
		if m, b := loadRole[metadata.TargetsType](dir, d.Name, maxTargets, h.targets); m != nil {
			h.keep(d.Name, m.Signed.Version, b)
		}
	}
}

func (h *held) keep(role string, version int64, b []byte) {
	h.raw[role], h.versions[role] = b, version
}

// loadRole reads one file and checks its type and signature; it removes a file
// that is not what it should be, for go-tuf would stumble over it.
func loadRole[T, D metadata.Roles](dir, role string, limit int64, delegator *metadata.Metadata[D]) (*metadata.Metadata[T], []byte) {
	b, err := readFile(rolePath(dir, role), limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		var m *metadata.Metadata[T]
		if m, err = parse[T](b); err == nil {
			if err = verify(delegator, role, m); err == nil {
				return m, b
			}
		}
	}
	drop(dir, role)
	return nil, nil
}

// drop removes a role's file. If that fails too, the next write will say so.
func drop(dir, role string) { _ = os.Remove(rolePath(dir, role)) }

// restore makes the files agree with what is held in memory before go-tuf reads
// them: a file that was damaged since is written again, an unknown one removed.
func (h *held) restore(dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, metadataDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if h.raw[strings.TrimSuffix(e.Name(), ".json")] == nil {
			if err := os.RemoveAll(filepath.Join(dir, metadataDir, e.Name())); err != nil {
				return err
			}
		}
	}
	for role, want := range h.raw {
		have, err := readFile(rolePath(dir, role), maxTargets)
		if err == nil && bytes.Equal(have, want) {
			continue
		}
		if err := writeFile(rolePath(dir, role), want, storedMode); err != nil {
			return err
		}
	}
	return nil
}

// save writes what n has and old has not, the timestamp last.
func (n *held) save(dir string, old *held) error {
	for _, v := range slices.Sorted(maps.Keys(n.roots)) {
		if !bytes.Equal(old.roots[v], n.roots[v]) {
			if err := writeFile(rootPath(dir, v), n.roots[v], storedMode); err != nil {
				return err
			}
		}
	}
	roles := slices.DeleteFunc(slices.Sorted(maps.Keys(n.raw)), func(r string) bool { return r == metadata.TIMESTAMP })
	for _, role := range append(roles, metadata.TIMESTAMP) {
		if b := n.raw[role]; b != nil && !bytes.Equal(b, old.raw[role]) {
			if err := writeFile(rolePath(dir, role), b, storedMode); err != nil {
				return err
			}
		}
	}
	return nil
}

// readManifest returns a stored manifest, or an error if there is none with the
// digest in its name. A damaged one is removed.
func readManifest(dir, name string) ([]byte, error) {
	sum, ok := splitManifest(name)
	if !ok {
		return nil, fmt.Errorf("%w: %.200q", ErrNotFound, name)
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	b, err := readFile(path, MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotFound, name, err)
	}
	if sha256.Sum256(b) != sum {
		_ = os.Remove(path)
		return nil, fmt.Errorf("%w: %s: stored bytes were damaged", ErrNotFound, name)
	}
	return b, nil
}

// pruneManifests keeps the manifests in use and the newest others.
func pruneManifests(dir string, inUse map[string]bool) {
	type old struct {
		path string
		time int64
	}
	var list []*old
	root := filepath.Join(dir, targetsDir)
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || inUse[filepath.ToSlash(name)] {
			return nil
		}
		if info, err := e.Info(); err == nil {
			list = append(list, &old{path, info.ModTime().UnixNano()})
		}
		return nil
	})
	slices.SortFunc(list, func(a, b *old) int { return int(min(max(b.time-a.time, -1), 1)) })
	for i := maxKnown; i < len(list); i++ {
		_ = os.Remove(list[i].path)
	}
}
