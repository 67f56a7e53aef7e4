package release

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Release returns the newest manifest for a channel and a device type, and its
// bytes, from the metadata of the last Refresh: the one for the type or the one for
// any type, whichever was published later. What is not held is fetched: the
// channel's metadata and the manifest. A manifest of a lower sequence than one
// returned before for the same channel and type is ErrRollback; that and what else is
// wrong with a manifest that is here as it was signed comes as a JudgedError. ErrNoRelease
// means that the channel offers nothing for the type. With ErrNotKept the manifest is
// returned as well.
func (t *Trust) Release(ctx context.Context, channel, typ string, fetch Fetcher) (*Manifest, []byte, error) {
	if err := CheckChannel(channel); err != nil {
		return nil, nil, err
	}
	if err := CheckType(typ); err != nil && typ != AnyType {
		return nil, nil, err
	}
	t.busy.Lock()
	defer t.busy.Unlock()
	h, found, err := t.find(ctx, fetch, channel, typ)
	if err != nil {
		return nil, nil, err
	}
	return t.accept(ctx, fetch, h, channel, typ, found)
}

// find gets what a channel says it offers for a type.
func (t *Trust) find(ctx context.Context, fetch Fetcher, channel, typ string) (*held, target, error) {
	if t.held.timestamp == nil {
		return nil, target{}, fmt.Errorf("%w: no metadata yet", ErrNoRelease)
	}
	unkept := t.mend() != nil
	at := t.at
	if at.IsZero() {
		at = t.Now(time.Now())
	}
	if t.held.complete() {
		if err := t.held.fresh(at, t.floor.signed()); err != nil {
			return nil, target{}, err
		}
	}
	w := workflow{held: t.held, floor: t.floor, dir: t.dir, at: at, timestamp: t.held.raw[metadata.TIMESTAMP], unkept: unkept}
	return w.target(ctx, fetch, channel, typ)
}

// payload gets the bytes of a target from the store or by fetch, and reports
// whether they were in the store.
func (t *Trust) payload(ctx context.Context, fetch Fetcher, found target) (b []byte, stored bool, err error) {
	name := found.path()
	if b, err = t.stored(name); err == nil {
		return b, true, nil
	}
	if b, err = get(ctx, fetch, name, min(found.length, MaxManifest)); err != nil {
		return nil, false, err
	}
	if err := found.check(b); err != nil {
		return nil, false, fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	return b, false, nil
}

// accept gets the manifest of a target, checks it and raises the floors.
func (t *Trust) accept(ctx context.Context, fetch Fetcher, h *held, channel, typ string, found target) (*Manifest, []byte, error) {
	name := found.path()
	b, stored, err := t.payload(ctx, fetch, found)
	if err != nil {
		return nil, nil, err
	}
	m, next, err := t.judge(h, channel, typ, name, b)
	if err != nil {
		return nil, nil, &JudgedError{err}
	}
	m.Steps = h.heldSteps(roleName(channel), found.sum)
	return m, b, t.keep(h, roleName(channel), TargetName(channel, typ), next, b, stored)
}

// judge decodes the manifest b, which is as it was signed, and returns the floor that it raises.
func (t *Trust) judge(h *held, channel, typ, name string, b []byte) (*Manifest, targetFloor, error) {
	m, err := Decode(b)
	if err != nil {
		return nil, targetFloor{}, err
	}
	key := TargetName(channel, typ)
	next := targetFloor{Sequence: m.Sequence, Name: name, Keys: t.keys(h, roleName(channel))}
	have, known := t.floor.Releases[key]
	switch {
	case m.Channel != channel:
		err = fmt.Errorf("%w: it is for %s, asked for %s", ErrWrongChannel, m.Channel, channel)
	case !m.Fits(typ):
		err = fmt.Errorf("%w: version %s is for %v, this is a %s", ErrWrongType, m.Version, m.Types, typ)
	case known && have.Keys == next.Keys && m.Sequence < have.Sequence:
		err = fmt.Errorf("%w: version %s has sequence %d, have accepted %d", ErrRollback, m.Version, m.Sequence, have.Sequence)
	case known && have.Keys == next.Keys && m.Sequence == have.Sequence && !sameManifest(name, have.Name):
		err = fmt.Errorf("%w: another manifest for sequence %d of %s", ErrRollback, m.Sequence, key)
	}
	return m, next, err
}

// keep stores an accepted payload and raises the floors: of the role, and of the key
// under which it was asked for. When a release was made is no floor of time: the
// timestamp that led here was signed later, and a channel's key cannot say otherwise.
func (t *Trust) keep(h *held, role, key string, next targetFloor, b []byte, stored bool) error {
	have, known := t.floor.Releases[key]
	f := t.floor.clone()
	f.raise(role, next.Keys, h.versions[role])
	f.Releases[key] = next
	if h == t.held && known && have == next && stored {
		return nil // nothing new to keep
	}
	inUse := map[string]bool{}
	for _, r := range f.Releases {
		inUse[r.Name] = true
	}
	t.mu.Lock()
	if !stored {
		t.loose[next.Name] = b
	}
	maps.DeleteFunc(t.loose, func(name string, _ []byte) bool { return !inUse[name] })
	t.mu.Unlock()
	for _, r := range t.kept.Releases { // what a restart falls back to
		inUse[r.Name] = true
	}
	err := t.store(h, f)
	pruneManifests(t.dir, inUse)
	return err
}

func sameManifest(a, b string) bool {
	x, okX := splitManifest(a)
	y, okY := splitManifest(b)
	return okX && okY && x == y
}

// Known returns the manifest that Release returned last for a channel and type,
// from this device's own store, also when the metadata has expired since: what a
// device works by while it reaches nobody. Without one it is ErrNoRelease.
func (t *Trust) Known(channel, typ string) (*Manifest, []byte, error) {
	t.mu.RLock()
	have, ok := t.floor.Releases[TargetName(channel, typ)]
	h := t.held
	t.mu.RUnlock()
	if !ok {
		return nil, nil, fmt.Errorf("%w: none seen for %s on %s", ErrNoRelease, typ, channel)
	}
	b, err := t.stored(have.Name)
	if err != nil {
		return nil, nil, errors.Join(ErrNoRelease, err)
	}
	m, err := Decode(b)
	if err == nil {
		m.Steps = h.heldSteps(roleName(channel), sha256.Sum256(b))
	}
	return m, b, err
}
