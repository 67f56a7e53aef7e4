package release

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// kept is how many old versions of a role's file stay at the origin for devices
// that are in the middle of a refresh. Roots stay for ever.
const kept = 8

// file is something to write below the origin's root.
type file struct {
	name string
	data []byte
}

// change is what one publication changes; the rest is taken as it is.
type change struct {
	root     *rootMeta
	oldRoot  []ed25519.PrivateKey // the keys of the root before, when they change
	signed   []byte               // root as it was signed elsewhere; nil: to be signed here
	targets  *targetsMeta
	channels map[string]*targetsMeta
	snapshot bool // sign it again although it says the same
	files    []file
}

// publish signs a change and writes it: manifests and metadata under names that
// nothing refers to yet, then a root if there is a new one, then timestamp.json in
// one rename. On an error the repository is as it was, on disk and in memory.
func (r *Repo) publish(c change) error {
	before := *r
	before.channels = maps.Clone(r.channels)
	files, timestamp, err := r.prepare(c)
	if err == nil {
		err = r.write(files, timestamp)
	}
	if err != nil {
		*r = before
		if c.root != nil && (c.oldRoot != nil || c.signed != nil) { // it may be out already
			err = errors.Join(err, r.load())
		}
		return err
	}
	r.writeBundles()
	r.tidy()
	return nil
}

// prepare signs everything, in the order of the references between the files, and
// makes it the state of r.
func (r *Repo) prepare(c change) ([]file, []byte, error) {
	now := r.now().UTC().Truncate(time.Second)
	if err := r.checkClock(c.root, now); err != nil {
		return nil, nil, err
	}
	files := c.files
	rootFile, err := r.signRoot(c, now)
	if err != nil {
		return nil, nil, err
	}
	// What a new root takes the signature from is signed again; also when the
	// rotation was interrupted and the root is out already.
	if c.targets == nil && verify(r.root, metadata.TARGETS, r.targets) != nil {
		c.targets = copyTargets(r.targets)
	}
	c.snapshot = c.snapshot || verify(r.root, metadata.SNAPSHOT, r.snapshot) != nil
	meta := map[string]*metadata.MetaFiles{}
	maps.Copy(meta, r.snapshot.Signed.Meta)
	if c.targets != nil {
		r.targets = c.targets
	}
	signed := maps.Clone(c.channels)
	if signed == nil {
		signed = map[string]*targetsMeta{}
	}
	if c.targets != nil {
		signed[metadata.TARGETS] = c.targets
	}
	for _, role := range slices.Sorted(maps.Keys(signed)) {
		f, version, err := r.signTargets(role, signed[role])
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
		meta[role+".json"] = &metadata.MetaFiles{Version: version}
	}
	if len(signed) > 0 || c.snapshot {
		f, err := r.signSnapshot(meta)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
	}
	if rootFile != nil {
		files = append(files, *rootFile)
	}
	timestamp, err := r.signTimestamp(now)
	return files, timestamp, err
}

// checkClock refuses a clock that is before the last signature: no device would take what is
// signed now for current. Under other keys of the timestamp or the snapshot that signature
// counts for nothing, there as here; next is the root to come, nil if it stays.
func (r *Repo) checkClock(next *rootMeta, now time.Time) error {
	if next == nil {
		next = r.root
	}
	last := issuedAt(r.timestamp.Signed.UnrecognizedFields)
	if !now.Before(last.Add(-time.Hour)) || verify(next, metadata.TIMESTAMP, r.timestamp) != nil || verify(next, metadata.SNAPSHOT, r.snapshot) != nil {
		return nil
	}
	return fmt.Errorf("%w: it says %s, the last release was signed on %s; if it was wrong then, rotate timestamp: devices go by that time until then",
		ErrClock, now.Format(time.RFC3339), last.Format(time.RFC3339))
}

func (r *Repo) signRoot(c change, now time.Time) (*file, error) {
	if c.root == nil {
		return nil, nil
	}
	keys := c.oldRoot
	r.root = c.root
	if c.signed != nil {
		return &file{metaName(metadata.ROOT, r.root.Signed.Version), c.signed}, nil
	}
	fresh, err := r.signers(metadata.ROOT)
	if err != nil {
		return nil, err
	}
	for _, key := range fresh {
		if !slices.ContainsFunc(keys, func(k ed25519.PrivateKey) bool { return k.Equal(key) }) {
			keys = append(keys, key)
		}
	}
	r.root.Signed.Version++
	r.root.Signed.Expires = r.until(r.expiry.Root)
	r.root.Signed.UnrecognizedFields = map[string]any{fieldIssued: now.Format(time.RFC3339)}
	b, err := sign(r.root, keys...)
	return &file{metaName(metadata.ROOT, r.root.Signed.Version), b}, err
}

func (r *Repo) signTargets(role string, m *targetsMeta) (file, int64, error) {
	version, err := r.newest(role)
	if err != nil {
		return file{}, 0, err
	}
	keys, err := r.signers(role)
	if err != nil {
		return file{}, 0, err
	}
	m.Signed.Version = version + 1
	m.Signed.Expires = r.until(r.expiry.Targets)
	b, err := sign(m, keys...)
	if err == nil && len(b) > maxTargets {
		err = fmt.Errorf("%w: metadata of %s would have %d bytes, %d can be read", ErrTooLarge, role, len(b), maxTargets)
	}
	if role != metadata.TARGETS {
		r.channels[role] = m
	}
	return file{metaName(role, m.Signed.Version), b}, m.Signed.Version, err
}

func (r *Repo) signSnapshot(meta map[string]*metadata.MetaFiles) (file, error) {
	version, err := r.newest(metadata.SNAPSHOT)
	if err != nil {
		return file{}, err
	}
	keys, err := r.signers(metadata.SNAPSHOT)
	if err != nil {
		return file{}, err
	}
	r.snapshot = metadata.Snapshot(r.until(r.expiry.Snapshot))
	r.snapshot.Signed.Version = version + 1
	r.snapshot.Signed.Meta = meta
	b, err := sign(r.snapshot, keys...)
	return file{metaName(metadata.SNAPSHOT, version+1), b}, err
}

func (r *Repo) signTimestamp(now time.Time) ([]byte, error) {
	keys, err := r.signers(metadata.TIMESTAMP)
	if err != nil {
		return nil, err
	}
	version := r.timestamp.Signed.Version
	r.timestamp = metadata.Timestamp(r.until(r.expiry.Timestamp))
	r.timestamp.Signed.Version = version + 1
	r.timestamp.Signed.Meta = map[string]*metadata.MetaFiles{"snapshot.json": {Version: r.snapshot.Signed.Version}}
	r.timestamp.Signed.UnrecognizedFields = map[string]any{fieldIssued: now.Format(time.RFC3339), fieldRoot: float64(r.root.Signed.Version)}
	return sign(r.timestamp, keys...)
}

func (r *Repo) write(files []file, timestamp []byte) error {
	for _, f := range append(files, file{TimestampName, timestamp}) {
		if r.step != nil {
			if err := r.step(f.name); err != nil {
				return err
			}
		}
		if err := writeFile(filepath.Join(r.dir, filepath.FromSlash(f.name)), f.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// newest is the highest version of a role's file on disk; 0 without any. Versions
// that an interrupted publish left are not used again, so a name always has the
// same content.
func (r *Repo) newest(role string) (int64, error) {
	versions, err := r.versions(role)
	if err != nil || len(versions) == 0 {
		return 0, err
	}
	return versions[len(versions)-1], nil
}

func (r *Repo) versions(role string) ([]int64, error) {
	entries, err := os.ReadDir(filepath.Join(r.dir, metadataDir))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var list []int64
	for _, e := range entries {
		if name, v, ok := splitMeta(metadataDir + "/" + e.Name()); ok && name == role {
			list = append(list, v)
		}
	}
	slices.Sort(list)
	return list, nil
}

// tidy removes versions that no device can still be reading, and what an
// interrupted write left. What cannot be removed stays; it does no harm.
func (r *Repo) tidy() {
	dir := filepath.Join(r.dir, metadataDir)
	for file := range r.snapshot.Signed.Meta {
		r.tidyRole(strings.TrimSuffix(file, ".json"))
	}
	r.tidyRole(metadata.SNAPSHOT)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

func (r *Repo) tidyRole(role string) {
	versions, err := r.versions(role)
	if err != nil || len(versions) <= kept {
		return
	}
	for _, v := range versions[:len(versions)-kept] {
		_ = os.Remove(filepath.Join(r.dir, filepath.FromSlash(metaName(role, v))))
	}
}

// Refresh signs a new timestamp, and every other role of which less than half of
// its life is left and whose key is at hand. It returns the roles it signed. Run
// it more often than the shortest expiry. Expiries tells what it could not sign.
func (r *Repo) Refresh() ([]string, error) {
	var c change
	var roles []string
	due := func(role string, expires time.Time, life time.Duration) bool {
		if expires.Sub(r.now()) > life/2 {
			return false
		}
		_, err := r.signers(role)
		if err == nil {
			roles = append(roles, role)
		}
		return err == nil
	}
	if due(metadata.ROOT, r.root.Signed.Expires, r.expiry.Root) {
		next, err := r.copyRoot()
		if err != nil {
			return nil, err
		}
		c.root = next
	}
	if due(metadata.TARGETS, r.targets.Signed.Expires, r.expiry.Targets) {
		c.targets = copyTargets(r.targets)
	}
	c.channels = map[string]*targetsMeta{}
	for role, m := range r.channels {
		if due(role, m.Signed.Expires, r.expiry.Targets) {
			c.channels[role] = copyTargets(m)
		}
	}
	c.snapshot = due(metadata.SNAPSHOT, r.snapshot.Signed.Expires, r.expiry.Snapshot)
	if !c.snapshot && (c.targets != nil || len(c.channels) > 0) {
		roles = append(roles, metadata.SNAPSHOT)
	}
	roles = append(roles, metadata.TIMESTAMP)
	slices.Sort(roles)
	return roles, r.publish(c)
}

// Stamp signs a new timestamp and nothing else: devices that see it look anew for what
// lies at the origin beside the metadata.
func (r *Repo) Stamp() error { return r.publish(change{}) }

// RoleExpiry is the state of one role.
type RoleExpiry struct {
	Role    string // "root", "timestamp", … or a channel
	Version int64
	Expires time.Time
	Key     bool // its key is at hand, or enough of its keys
}

// Expiries lists all roles, the first to expire first. It asks for no passphrase: a
// sealed key is at hand when it was opened before.
func (r *Repo) Expiries() []RoleExpiry {
	list := []RoleExpiry{
		{metadata.ROOT, r.root.Signed.Version, r.root.Signed.Expires, false},
		{metadata.TARGETS, r.targets.Signed.Version, r.targets.Signed.Expires, false},
		{metadata.SNAPSHOT, r.snapshot.Signed.Version, r.snapshot.Signed.Expires, false},
		{metadata.TIMESTAMP, r.timestamp.Signed.Version, r.timestamp.Signed.Expires, false}}
	for role, m := range r.channels {
		list = append(list, RoleExpiry{role, m.Signed.Version, m.Signed.Expires, false})
	}
	quiet := *r
	quiet.open = &Keys{opened: r.open.opened}
	for i := range list {
		_, err := quiet.signers(list[i].Role)
		list[i].Key = err == nil
		list[i].Role = channelOf(list[i].Role)
	}
	sort.Slice(list, func(i, j int) bool {
		if c := list[i].Expires.Compare(list[j].Expires); c != 0 {
			return c < 0
		}
		return list[i].Role < list[j].Role
	})
	return list
}

func (r *Repo) copyRoot() (*rootMeta, error) {
	b, err := r.root.ToBytes(false)
	if err != nil {
		return nil, err
	}
	return parse[metadata.RootType](b)
}
