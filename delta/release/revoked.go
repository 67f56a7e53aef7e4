package release

import (
	"context"
	"errors"
	"fmt"
)

// revokedRole signs one target, the list of revoked devices: a TUF delegation like
// that of a channel, so that the list has the guarantees of a release (no rollback,
// no freezing, no mix with other metadata) and the same way to every device.
const revokedRole = "revoked"

// MaxRevocations is the size limit of the list, in bytes.
const MaxRevocations = 1 << 20

// SetRevocations publishes the list of revoked devices, which is opaque here. It needs
// no key that is kept offline.
func (r *Repo) SetRevocations(list []byte) error {
	if len(list) == 0 || len(list) > MaxRevocations {
		return fmt.Errorf("%w: revocations of %d bytes", ErrTooLarge, len(list))
	}
	_, last, err := r.revocations()
	if err != nil {
		return err
	}
	return r.addTargets(revokedRole, []string{AnyType}, last+1, list, false)
}

// Revocations returns the list published last; nil without any.
func (r *Repo) Revocations() ([]byte, error) {
	b, _, err := r.revocations()
	return b, err
}

func (r *Repo) revocations() ([]byte, uint64, error) {
	role := r.channels[revokedRole]
	if role == nil {
		return nil, 0, nil
	}
	name := TargetName(revokedRole, AnyType)
	info := role.Signed.Targets[name]
	if info == nil {
		return nil, 0, fmt.Errorf("%w: no list of revocations in its role", ErrCorrupt)
	}
	b, err := r.read(manifestName(name, info.Hashes["sha256"]), MaxRevocations)
	if err != nil {
		return nil, 0, err
	}
	if err := info.VerifyLengthHashes(b); err != nil {
		return nil, 0, fmt.Errorf("%w: revocations: %w", ErrCorrupt, err)
	}
	return b, sequenceOf(info), nil
}

// Revocations returns the list of revoked devices from the metadata of the last
// Refresh; nil without any. What is not held is fetched. A list older than one
// returned before is ErrRollback, and so is none where there was one, while the
// role rests on the same keys. With ErrNotKept the list is returned as well. A list that check, if it is not nil, cannot read is its
// error, and not kept: the one before stays.
func (t *Trust) Revocations(ctx context.Context, fetch Fetcher, check func(list []byte) error) ([]byte, error) {
	t.busy.Lock()
	defer t.busy.Unlock()
	key := TargetName(revokedRole, AnyType)
	have, known := t.floor.Releases[key]
	if t.held.snapshot == nil || t.held.snapshot.Signed.Meta[revokedRole+".json"] == nil {
		if known {
			return nil, fmt.Errorf("%w: no revocations, have accepted list %d", ErrRollback, have.Sequence)
		}
		return nil, nil
	}
	h, found, err := t.find(ctx, fetch, revokedRole, AnyType)
	if err != nil {
		return nil, err
	}
	next := targetFloor{Sequence: found.sequence, Name: found.path(), Keys: t.keys(h, revokedRole)}
	if known && have.Keys == next.Keys && (next.Sequence < have.Sequence || next.Sequence == have.Sequence && next.Name != have.Name) {
		return nil, fmt.Errorf("%w: list %d of revocations, have accepted %d", ErrRollback, next.Sequence, have.Sequence)
	}
	if found.length > MaxRevocations {
		return nil, fmt.Errorf("%w: revocations of %d bytes", ErrTooLarge, found.length)
	}
	b, stored, err := t.payload(ctx, fetch, found)
	if err == nil && check != nil {
		err = check(b)
	}
	if err != nil {
		return nil, err
	}
	return b, t.keep(h, revokedRole, key, next, b, stored)
}

// KnownRevocations returns the list that Revocations returned last, from this
// device's own store; nil without any, an error if it is there no more.
func (t *Trust) KnownRevocations() ([]byte, error) {
	t.mu.RLock()
	have, ok := t.floor.Releases[TargetName(revokedRole, AnyType)]
	t.mu.RUnlock()
	if !ok {
		return nil, nil
	}
	b, err := t.stored(have.Name)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: the list of revocations is gone; the next look brings it", err)
	}
	return b, err
}
