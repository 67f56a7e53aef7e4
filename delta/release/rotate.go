package release

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// maxKeys bounds the keys of one role.
const maxKeys = 16

// Quorum is how many keys a role has, and how many of them must sign. Zero fields
// are 1.
type Quorum struct {
	Keys      int // at most 16
	Threshold int // at most Keys
}

func (q Quorum) keys() int { return max(q.Keys, 1) }

func (q Quorum) threshold() int { return max(q.Threshold, 1) }

func (q Quorum) check() error {
	if q.Keys < 0 || q.Threshold < 0 || q.keys() > maxKeys || q.threshold() > q.keys() {
		return fmt.Errorf("%w: %d of %d keys, at most %d", ErrQuorum, q.threshold(), q.keys(), maxKeys)
	}
	return nil
}

// nthKey is the file of a role's key number n, from 1 on.
func (r *Repo) nthKey(role string, n int) string {
	path := r.keyPath(role)
	if n == 1 {
		return path
	}
	return fmt.Sprintf("%s.%d.key", strings.TrimSuffix(path, ".key"), n)
}

// seals reports whether new keys of a top role are to be sealed: any of those is that is kept
// as they are. The ones that they replace may be lost, or elsewhere. Where online keys are
// sealed, all are.
func (r *Repo) seals(role string) bool {
	like := []string{metadata.SNAPSHOT, metadata.TIMESTAMP, revokedRole}
	if role == metadata.ROOT || role == metadata.TARGETS {
		like = append(like, metadata.ROOT, metadata.TARGETS)
	}
	for _, role := range like {
		for n := range max(len(r.keyIDs(role)), 1) {
			if isSealed(r.nthKey(role, n+1)) {
				return true
			}
		}
	}
	return false
}

// addKeys makes n keys for a top role of root, in files whose names end in suffix.
func (r *Repo) addKeys(root *rootMeta, role string, n int, suffix string, seal bool) error {
	create := NewKey
	if seal {
		create = r.open.Make
	}
	for i := range n {
		key, err := create(r.nthKey(role, i+1) + suffix)
		if err != nil {
			return err
		}
		pub, _, err := publicKey(key)
		if err != nil {
			return err
		}
		if err := root.Signed.AddKey(pub, role); err != nil {
			return err
		}
	}
	return nil
}

// signers returns the keys at hand that sign for a role, or ErrNoKey or ErrSealed when
// they are fewer than its threshold. A rotation that was interrupted leaves new keys beside
// the old ones.
func (r *Repo) signers(role string) ([]ed25519.PrivateKey, error) {
	ids, threshold := r.keyIDs(role), r.threshold(role)
	var keys []ed25519.PrivateKey
	var sealed error // the first file that was not opened
	for n := 1; n <= max(len(ids), 1); n++ {
		for _, suffix := range []string{"", ".new"} {
			path := r.nthKey(role, n) + suffix
			if len(keys) >= threshold && isSealed(path) {
				continue // nobody is asked for more passphrases than it takes
			}
			if suffix != "" && isNoKey(path) {
				continue // see settle
			}
			key, err := r.open.Read(path)
			if errors.Is(err, ErrNoKey) {
				continue
			}
			if errors.Is(err, ErrSealed) {
				sealed = cmp.Or(sealed, err)
				continue
			}
			if err != nil {
				return nil, err
			}
			_, id, err := publicKey(key)
			if err == nil && slices.Contains(ids, id) && !slices.ContainsFunc(keys, func(k ed25519.PrivateKey) bool { return k.Equal(key) }) {
				keys = append(keys, key)
			}
		}
	}
	switch {
	case len(keys) >= threshold:
		return keys, nil
	case sealed != nil:
		return nil, fmt.Errorf("%w (role %s, %d of %d keys needed, %d at hand)", sealed, role, threshold, len(ids), len(keys))
	case threshold == 1:
		return nil, fmt.Errorf("%w: %s (role %s)", ErrNoKey, r.keyPath(role), role)
	default:
		return nil, fmt.Errorf("%w: role %s is signed by %d of %d keys, %d are at hand (%s, …)", ErrNoKey, role, threshold, len(ids), len(keys), r.keyPath(role))
	}
}

// threshold is how many of a role's keys must sign.
func (r *Repo) threshold(role string) int {
	if top, ok := r.root.Signed.Roles[role]; ok {
		return top.Threshold
	}
	return 1 // of a channel, which has one key
}

// Rotate replaces the keys of "root", "targets", "snapshot", "timestamp" or of a
// channel by as many new ones and signs everything that needs it. It needs enough
// root keys, or for a channel enough targets keys, and the key files of the roles it
// signs; keys of the role itself that are lost do not matter beyond that. The new ones are
// sealed if others that are kept in the same way are. The old
// key files are removed. Devices forget the floors they learnt under the old keys.
func (r *Repo) Rotate(role string) error {
	ids := r.keyIDs(roleName(role))
	if len(ids) == 0 {
		return fmt.Errorf("%w: role %.40q is none of root, targets, snapshot, timestamp and the channels", ErrName, role)
	}
	role = roleName(role)
	if err := r.settle(role, ids); err != nil { // what an interrupted rotation left
		return err
	}
	parent := metadata.TARGETS
	if _, top := r.root.Signed.Roles[role]; top {
		parent = metadata.ROOT
	}
	old, err := r.signers(parent)
	if err != nil {
		return err
	}
	var c change
	if parent == metadata.ROOT {
		c, err = r.rotateTop(role)
		c.oldRoot = old
	} else {
		c, err = r.rotateChannel(role)
	}
	if err != nil {
		return err
	}
	if err := r.publish(c); err != nil {
		return err
	}
	return r.settle(role, r.keyIDs(role))
}

func (r *Repo) rotateTop(role string) (change, error) {
	next, err := r.copyRoot()
	if err != nil {
		return change{}, err
	}
	ids := r.keyIDs(role)
	for _, id := range ids {
		if err := next.Signed.RevokeKey(id, role); err != nil {
			return change{}, err
		}
	}
	return change{root: next}, r.addKeys(next, role, len(ids), ".new", r.seals(role))
}

func (r *Repo) rotateChannel(role string) (change, error) {
	key, err := r.open.like(r.keyPath(role)+".new", r.keyPath(role), r.keyPath(metadata.SNAPSHOT))
	if err != nil {
		return change{}, err
	}
	pub, id, err := publicKey(key)
	if err != nil {
		return change{}, err
	}
	next := copyTargets(r.targets)
	for i, d := range next.Signed.Delegations.Roles {
		if d.Name != role {
			continue
		}
		for _, old := range d.KeyIDs {
			delete(next.Signed.Delegations.Keys, old) // each channel has a key of its own
		}
		next.Signed.Delegations.Roles[i].KeyIDs = []string{id}
		next.Signed.Delegations.Keys[id] = pub
	}
	c := change{targets: next}
	if old := r.channels[role]; old != nil { // something was published there
		c.channels = map[string]*targetsMeta{role: copyTargets(old)}
	}
	return c, nil
}

// settle keeps of each of a role's pairs of key files the one that is in use. A new one that
// holds no key is of no use.
func (r *Repo) settle(role string, ids []string) error {
	for n := 1; n <= len(ids); n++ {
		path := r.nthKey(role, n)
		if _, err := os.Lstat(path + ".new"); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if isNoKey(path + ".new") {
			if err := errors.Join(os.Remove(path+".new"), SyncDir(r.keys)); err != nil {
				return err
			}
			continue
		}
		key, err := r.open.Read(path + ".new")
		if err != nil {
			return err
		}
		_, id, err := publicKey(key)
		if err != nil {
			return err
		}
		if slices.Contains(ids, id) {
			err = os.Rename(path+".new", path)
		} else {
			err = os.Remove(path + ".new")
		}
		if err := errors.Join(err, SyncDir(r.keys)); err != nil {
			return err
		}
	}
	return nil
}
