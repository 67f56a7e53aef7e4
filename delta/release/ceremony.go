package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// RootChange is what the next root changes beside its expiry.
type RootChange struct {
	Rotate    []string            // online roles that get new keys: "snapshot", "timestamp", or "targets" if its keys are here
	Keys      []ed25519.PublicKey // the root's own keys from now on; empty: as they are
	Threshold int                 // with Keys: how many of them must sign; 0: one
}

// NextRoot makes the root that is to follow the current one, for SignRoot wherever
// its keys are and then ImportRoot. It needs no root key. New keys of other roles are
// made here, beside the ones in use, and sealed as with Rotate.
func (r *Repo) NextRoot(c RootChange) ([]byte, error) {
	next, err := r.copyRoot()
	if err != nil {
		return nil, err
	}
	if len(c.Keys) > 0 || c.Threshold != 0 {
		if err := replaceKeys(next, c); err != nil {
			return nil, err
		}
	}
	for _, role := range c.Rotate {
		ids := r.keyIDs(role)
		if !slices.Contains([]string{metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP}, role) {
			return nil, fmt.Errorf("%w: role %.40q is none that a root can be exported with new keys for", ErrName, role)
		}
		if err := r.settle(role, ids); err != nil {
			return nil, err
		}
		for _, id := range ids {
			if err := next.Signed.RevokeKey(id, role); err != nil {
				return nil, err
			}
		}
		if err := r.addKeys(next, role, len(ids), ".new", r.seals(role)); err != nil {
			return nil, err
		}
	}
	now := r.now().UTC().Truncate(time.Second)
	next.Signed.Version++
	next.Signed.Expires = r.until(r.expiry.Root)
	next.Signed.UnrecognizedFields = map[string]any{fieldIssued: now.Format(time.RFC3339)}
	next.ClearSignatures()
	return next.ToBytes(false)
}

func replaceKeys(next *rootMeta, c RootChange) error {
	q := Quorum{Keys: len(c.Keys), Threshold: c.Threshold}
	if err := q.check(); err != nil {
		return err
	}
	for _, id := range slices.Clone(next.Signed.Roles[metadata.ROOT].KeyIDs) {
		if err := next.Signed.RevokeKey(id, metadata.ROOT); err != nil {
			return err
		}
	}
	for _, key := range c.Keys {
		pub, err := metadata.KeyFromPublicKey(key)
		if err != nil {
			return err
		}
		if err := next.Signed.AddKey(pub, metadata.ROOT); err != nil {
			return err
		}
	}
	if n := len(next.Signed.Roles[metadata.ROOT].KeyIDs); n != len(c.Keys) {
		return fmt.Errorf("%w: %d different keys, %d were given", ErrQuorum, n, len(c.Keys))
	}
	next.Signed.Roles[metadata.ROOT].Threshold = q.threshold()
	return nil
}

// SignRoot adds the key's signature to a root that NextRoot made.
func SignRoot(root []byte, key ed25519.PrivateKey) ([]byte, error) {
	m, err := unsignedRoot(root)
	if err != nil {
		return nil, err
	}
	_, id, err := publicKey(key)
	if err != nil {
		return nil, err
	}
	m.Signatures = slices.DeleteFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == id })
	if err := addSignature(m, key); err != nil {
		return nil, err
	}
	return m.ToBytes(false)
}

func unsignedRoot(b []byte) (*rootMeta, error) {
	if len(b) > maxRoot {
		return nil, fmt.Errorf("%w: root of %d bytes", ErrTooLarge, len(b))
	}
	m, err := parse[metadata.RootType](b)
	if err != nil {
		return nil, err
	}
	return m, checkRoot(m)
}

// RootInfo says what a root says, for a person who is asked to sign it.
type RootInfo struct {
	Version    int64
	Expires    time.Time
	Keys       map[string][]string // by role: the IDs of its keys
	Threshold  map[string]int      // by role
	Signatures []string            // IDs of the keys that signed, not verified
}

// InspectRoot reads a root, signed or not.
func InspectRoot(b []byte) (RootInfo, error) {
	m, err := unsignedRoot(b)
	if err != nil {
		return RootInfo{}, err
	}
	info := RootInfo{Version: m.Signed.Version, Expires: m.Signed.Expires, Keys: map[string][]string{}, Threshold: map[string]int{}}
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		info.Keys[role], info.Threshold[role] = m.Signed.Roles[role].KeyIDs, m.Signed.Roles[role].Threshold
	}
	for _, s := range m.Signatures {
		info.Signatures = append(info.Signatures, s.KeyID)
	}
	return info, nil
}

// ImportRoot publishes a root that was signed elsewhere. It must follow the current
// one, and be signed by enough keys of both; anything else is ErrRoot or ErrSignature.
// Roles whose keys it changes are signed again.
func (r *Repo) ImportRoot(root []byte) error {
	next, err := unsignedRoot(root)
	if err != nil {
		return err
	}
	if want := r.root.Signed.Version + 1; next.Signed.Version != want {
		return fmt.Errorf("%w: version %d, the next one is %d", ErrRoot, next.Signed.Version, want)
	}
	if now := r.now(); now.After(next.Signed.Expires) {
		return &ExpiredError{File: "root.json", Expires: next.Signed.Expires, Now: now}
	}
	if err := errors.Join(verify(r.root, metadata.ROOT, next), verify(next, metadata.ROOT, next)); err != nil {
		return err
	}
	if err := r.publish(change{root: next, signed: bytes.Clone(root)}); err != nil {
		return err
	}
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		if err := r.settle(role, r.keyIDs(role)); err != nil {
			return err
		}
	}
	return nil
}

// MarshalPublic is the PEM form (PKIX) of the public half of a key.
func MarshalPublic(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// ParsePublic undoes MarshalPublic.
func ParsePublic(text []byte) (ed25519.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%w: no PEM", ErrKeyFile)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: no Ed25519 key", ErrKeyFile)
	}
	return key, nil
}
