package release

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Expiry is how long metadata is valid after it was signed. A device refuses
// expired metadata and keeps its release; a site must reach its origin, or an
// updated peer, once in that time. Zero fields have the defaults.
type Expiry struct {
	Root      time.Duration // 2 years
	Targets   time.Duration // 1 year; the channels too
	Snapshot  time.Duration // 8 weeks
	Timestamp time.Duration // 8 weeks
}

// DefaultExpiry suits sites that are offline for weeks.
func DefaultExpiry() Expiry {
	const day = 24 * time.Hour
	return Expiry{Root: 730 * day, Targets: 365 * day, Snapshot: 56 * day, Timestamp: 56 * day}
}

// RepoOptions configures a Repo.
type RepoOptions struct {
	Now    func() time.Time // clock; nil: time.Now
	Expiry Expiry

	// For CreateRepo: how many keys the roles that are kept offline get, whether their
	// files are sealed, and whether those of all others are, too.
	Root, Targets Quorum
	Seal, SealAll bool

	Keys *Keys // opens sealed key files; nil: they count as not at hand
}

// Repo signs the metadata of an origin tree. One process may use an origin at a
// time; a Repo is not safe for concurrent use.
//
// Keys are files <role>.key in the key directory, <role>.2.key and so on for a role
// with several, and channel-<role>.key for each channel. A role signs with all of its
// keys that are at hand, and needs as many as its threshold. Root's and targets' keys are needed only to rotate keys, to open a new
// channel and once a year: they can be kept elsewhere in between.
type Repo struct {
	dir    string
	keys   string
	open   *Keys
	now    func() time.Time
	expiry Expiry
	step   func(name string) error // called before each file is written; nil but in tests

	root      *rootMeta
	targets   *targetsMeta
	channels  map[string]*targetsMeta // by role
	snapshot  *snapshotMeta
	timestamp *timestampMeta
}

func newRepo(dir, keys string, o RepoOptions) *Repo {
	r := &Repo{dir: dir, keys: keys, open: o.Keys, now: o.Now, expiry: o.Expiry, channels: map[string]*targetsMeta{}}
	if r.now == nil {
		r.now = time.Now
	}
	if r.open == nil {
		r.open = new(Keys)
	}
	d := DefaultExpiry()
	for _, p := range []struct{ have, want *time.Duration }{{&r.expiry.Root, &d.Root}, {&r.expiry.Targets, &d.Targets},
		{&r.expiry.Snapshot, &d.Snapshot}, {&r.expiry.Timestamp, &d.Timestamp}} {
		if *p.have <= 0 {
			*p.have = *p.want
		}
	}
	return r
}

// CreateRepo makes keys for all roles, that of the list of revocations among them, in
// the directory keys and writes the first metadata into the origin tree dir. Both
// directories must exist; dir must not hold metadata and keys no key of a role.
func CreateRepo(dir, keys string, o RepoOptions) (*Repo, error) {
	r := newRepo(dir, keys, o)
	if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(TimestampName))); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("release: %s holds metadata already (%w)", dir, errors.Join(err, fs.ErrExist))
	}
	r.root = metadata.Root(r.until(r.expiry.Root))
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		q := map[string]Quorum{metadata.ROOT: o.Root, metadata.TARGETS: o.Targets}[role]
		if err := q.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", role, err)
		}
		if err := r.addKeys(r.root, role, q.keys(), "", o.SealAll || o.Seal && (role == metadata.ROOT || role == metadata.TARGETS)); err != nil {
			return nil, err
		}
		r.root.Signed.Roles[role].Threshold = q.threshold()
	}
	r.targets = metadata.Targets(r.until(r.expiry.Targets))
	r.snapshot = metadata.Snapshot()
	r.timestamp = metadata.Timestamp()
	r.targets.Signed.Version, r.snapshot.Signed.Version, r.timestamp.Signed.Version = 0, 0, 0
	r.root.Signed.Version = 0
	targets, err := r.delegate(revokedRole) // now, while the targets keys are at hand
	if err != nil {
		return nil, err
	}
	return r, r.publish(change{root: r.root, targets: targets})
}

// OpenRepo opens an origin tree that CreateRepo made. What an interrupted publish
// left is not part of it.
func OpenRepo(dir, keys string, o RepoOptions) (*Repo, error) {
	r := newRepo(dir, keys, o)
	if err := r.load(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Repo) load() error {
	version, err := r.newest(metadata.ROOT)
	if err != nil {
		return err
	}
	b, err := r.read(metaName(metadata.ROOT, version), maxRoot)
	if err != nil {
		return err
	}
	if r.root, err = parseRoot(b); err != nil {
		return err
	}
	if b, err = r.read(TimestampName, maxTimestamp); err != nil {
		return err
	}
	if r.timestamp, err = parse[metadata.TimestampType](b); err != nil {
		return err
	}
	info := r.timestamp.Signed.Meta["snapshot.json"]
	if info == nil {
		return fmt.Errorf("%w: timestamp names no snapshot", ErrCorrupt)
	}
	if b, err = r.read(metaName(metadata.SNAPSHOT, info.Version), maxSnapshot); err != nil {
		return err
	}
	if r.snapshot, err = parse[metadata.SnapshotType](b); err != nil {
		return err
	}
	return r.loadTargets()
}

func (r *Repo) loadTargets() error {
	for file, info := range r.snapshot.Signed.Meta {
		role := strings.TrimSuffix(file, ".json")
		if info == nil {
			return fmt.Errorf("%w: snapshot has nothing on %s", ErrCorrupt, role)
		}
		b, err := r.read(metaName(role, info.Version), maxTargets)
		if err != nil {
			return err
		}
		m, err := parse[metadata.TargetsType](b)
		if err != nil {
			return err
		}
		if role == metadata.TARGETS {
			r.targets = m
		} else {
			r.channels[role] = m
		}
	}
	if r.targets == nil {
		return fmt.Errorf("%w: snapshot names no targets", ErrCorrupt)
	}
	return nil
}

// Root returns the newest root.json, with which a device begins.
func (r *Repo) Root() ([]byte, error) {
	return r.read(metaName(metadata.ROOT, r.root.Signed.Version), maxRoot)
}

// Version is the version of the timestamp: it grows with everything published.
func (r *Repo) Version() int64 { return r.timestamp.Signed.Version }

// Channels lists the channels in order of their names.
func (r *Repo) Channels() []string {
	var names []string
	for role := range r.channels {
		if role != revokedRole {
			names = append(names, channelOf(role))
		}
	}
	slices.Sort(names)
	return names
}

// Current returns the manifests a channel offers now, by device type.
func (r *Repo) Current(channel string) (map[string]*Manifest, error) {
	found := map[string]*Manifest{}
	role, ok := r.channels[roleName(channel)]
	if !ok {
		return found, nil
	}
	for target, info := range role.Signed.Targets {
		b, err := r.read(manifestName(target, info.Hashes["sha256"]), MaxManifest)
		if err != nil {
			return nil, err
		}
		if err := info.VerifyLengthHashes(b); err != nil {
			return nil, fmt.Errorf("%w: manifest for %s: %w", ErrCorrupt, target, err)
		}
		m, err := Decode(b)
		if err != nil {
			return nil, err
		}
		m.Steps = stepsOf(role, sha256.Sum256(b))
		found[target[strings.LastIndexByte(target, '/')+1:]] = m
	}
	return found, nil
}

// AddRelease publishes an encoded manifest: it becomes the current one of its
// channel for each of its types, or for every device when it has none. Its
// sequence must be above those on offer there. The files that the manifest and steps
// name must be at the origin already. A channel's first release needs the targets key.
func (r *Repo) AddRelease(manifest []byte, steps ...Step) error {
	m, err := Decode(manifest)
	if err != nil {
		return err
	}
	types := m.Types
	if len(types) == 0 {
		types = []string{AnyType}
	}
	// A release for any device replaces all.
	return r.addTargets(m.Channel, types, m.Sequence, manifest, len(m.Types) > 0, steps...)
}

// Unlock opens the keys that a release of the channel is signed with, so that what is
// missing is known before the work: a passphrase, or the targets key for a new channel.
func (r *Repo) Unlock(channel string) error {
	roles := []string{metadata.TIMESTAMP, metadata.SNAPSHOT, roleName(channel)}
	if len(r.keyIDs(roleName(channel))) == 0 {
		roles[2] = metadata.TARGETS
	}
	for _, role := range roles {
		if _, err := r.signers(role); err != nil {
			return err
		}
	}
	return nil
}

// addTargets publishes data as the target of a channel for each of types; what the
// channel offers for other types stays if keep is set. The sequence must be above
// those on offer there.
func (r *Repo) addTargets(channel string, types []string, sequence uint64, data []byte, keep bool, steps ...Step) error {
	role := roleName(channel)
	next := metadata.Targets()
	var c change
	var err error
	if old := r.channels[role]; old != nil {
		for target, info := range old.Signed.Targets {
			if s := sequenceOf(info); s >= sequence {
				return fmt.Errorf("%w: %d, %s has %d", ErrSequence, sequence, target, s)
			}
			if keep {
				next.Signed.Targets[target] = info
			}
		}
	} else if len(r.keyIDs(role)) == 0 {
		if c.targets, err = r.delegate(channel); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(custom{Sequence: sequence})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	for _, typ := range types {
		target := TargetName(channel, typ)
		next.Signed.Targets[target] = &metadata.TargetFiles{Length: int64(len(data)), Custom: (*json.RawMessage)(&raw),
			Hashes: metadata.Hashes{"sha256": sum[:]}}
		c.files = append(c.files, file{manifestName(target, sum[:]), data})
	}
	if err := setSteps(next, r.channels[role], sum, steps); err != nil {
		return err
	}
	c.channels = map[string]*targetsMeta{role: next}
	return r.publish(c)
}

// delegate returns targets with a delegation to a new channel, and makes its key,
// sealed if those that sign with it are.
func (r *Repo) delegate(channel string) (*targetsMeta, error) {
	if _, err := r.signers(metadata.TARGETS); err != nil {
		return nil, fmt.Errorf("opening channel %s: %w", channel, err)
	}
	role := roleName(channel)
	if isNoKey(r.keyPath(role)) { // nothing is signed with it, nor can be
		if err := os.Remove(r.keyPath(role)); err != nil {
			return nil, err
		}
	}
	key, err := r.open.Read(r.keyPath(role))
	if errors.Is(err, ErrNoKey) {
		key, err = r.open.like(r.keyPath(role), r.keyPath(metadata.SNAPSHOT))
	}
	if err != nil {
		return nil, err
	}
	pub, id, err := publicKey(key)
	if err != nil {
		return nil, err
	}
	next := copyTargets(r.targets)
	if next.Signed.Delegations == nil {
		next.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	}
	next.Signed.Delegations.Keys[id] = pub
	next.Signed.Delegations.Roles = append(next.Signed.Delegations.Roles, metadata.DelegatedRole{Name: role,
		KeyIDs: []string{id}, Threshold: 1, Terminating: true, Paths: []string{channel + "/*"}})
	return next, nil
}

// copyTargets copies what publishing changes.
func copyTargets(m *targetsMeta) *targetsMeta {
	n := metadata.Targets()
	n.Signed.Targets = m.Signed.Targets
	n.Signed.Version = m.Signed.Version
	n.Signed.UnrecognizedFields = m.Signed.UnrecognizedFields
	if d := m.Signed.Delegations; d != nil {
		n.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}, Roles: slices.Clone(d.Roles)}
		for id, k := range d.Keys {
			n.Signed.Delegations.Keys[id] = k
		}
	}
	return n
}

func publicKey(key ed25519.PrivateKey) (*metadata.Key, string, error) {
	pub, err := metadata.KeyFromPublicKey(key.Public())
	if err != nil {
		return nil, "", err
	}
	id, err := pub.ID()
	return pub, id, err
}

func (r *Repo) keyPath(role string) string {
	if !isTop(role) && role != metadata.TIMESTAMP {
		role = "channel-" + role
	}
	return filepath.Join(r.keys, role+".key")
}

// keyIDs are the keys that a role must be signed with.
func (r *Repo) keyIDs(role string) []string {
	if top, ok := r.root.Signed.Roles[role]; ok {
		return top.KeyIDs
	}
	if r.targets != nil && r.targets.Signed.Delegations != nil {
		for _, d := range r.targets.Signed.Delegations.Roles {
			if d.Name == role {
				return d.KeyIDs
			}
		}
	}
	return nil
}

func sign[T metadata.Roles](m *metadata.Metadata[T], keys ...ed25519.PrivateKey) ([]byte, error) {
	m.ClearSignatures()
	for _, key := range keys {
		if err := addSignature(m, key); err != nil {
			return nil, err
		}
	}
	return m.ToBytes(false)
}

func addSignature[T metadata.Roles](m *metadata.Metadata[T], key ed25519.PrivateKey) error {
	signer, err := signature.LoadED25519Signer(key)
	if err != nil {
		return err
	}
	_, err = m.Sign(signer)
	return err
}

func (r *Repo) until(d time.Duration) time.Time { return r.now().UTC().Truncate(time.Second).Add(d) }

func (r *Repo) read(name string, limit int64) ([]byte, error) {
	return readFile(filepath.Join(r.dir, filepath.FromSlash(name)), limit)
}
