package release

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// workflow is one run of go-tuf's client over what is held and what is fetched.
type workflow struct {
	held      *held
	floor     floors
	dir       string
	clock     time.Time // of the device
	at        time.Time // to judge expiry by: not before the newest signed time
	timestamp []byte    // the newest, not yet verified
	pollRoot  bool      // ask for newer roots
	unkept    bool      // what is held may not be on disk, where go-tuf looks for it

	fetched map[string][]byte // by name at the origin
	failed  error             // of the fetcher, which go-tuf would flatten
	last    string            // name asked for last: where an error belongs
	got     []byte            // what there was under that name, but for a timestamp
}

// download is go-tuf's Fetcher.
type download func(name string, limit int64) ([]byte, error)

// DownloadFile implements fetcher.Fetcher; the URL is the name at the origin.
func (d download) DownloadFile(name string, limit int64, _ time.Duration) ([]byte, error) {
	return d(name, limit)
}

// needsRoot reports whether the timestamp speaks of a newer root or cannot be
// verified with the one held, or that one has expired.
func (w *workflow) needsRoot() bool {
	ts, err := parse[metadata.TimestampType](w.timestamp)
	if err != nil {
		return false
	}
	return rootHint(ts) > w.held.root.Signed.Version || verify(w.held.root, metadata.TIMESTAMP, ts) != nil ||
		w.at.After(w.held.root.Signed.Expires)
}

// run starts go-tuf's updater and lets it refresh. Metadata that it has already
// comes from the store; it writes nothing.
func (w *workflow) run(ctx context.Context, fetch Fetcher, more func(u *updater.Updater) error) (set trustedmetadata.TrustedMetadata, err error) {
	w.fetched = map[string][]byte{}
	defer func() {
		if r := recover(); r != nil { // go-tuf takes signed metadata to be complete
			err = fmt.Errorf("%w: %s: %v", ErrCorrupt, w.last, r)
		}
	}()
	u, err := updater.New(&config.UpdaterConfig{
		MaxRootRotations: maxRotations, MaxDelegations: 8,
		RootMaxLength: maxRoot, TimestampMaxLength: maxTimestamp, SnapshotMaxLength: maxSnapshot, TargetsMaxLength: maxTargets,
		Fetcher: download(func(name string, limit int64) ([]byte, error) {
			return w.download(ctx, fetch, name, limit)
		}),
		LocalTrustedRoot:  w.held.roots[w.held.root.Signed.Version],
		LocalMetadataDir:  filepath.Join(w.dir, metadataDir),
		RemoteMetadataURL: metadataDir,
		DisableLocalCache: true, PrefixTargetsWithHash: true,
	})
	if err != nil {
		return set, w.named(err)
	}
	u.UnsafeSetRefTime(w.at)
	if err = u.Refresh(); err == nil && more != nil {
		err = more(u)
	}
	if err != nil {
		return set, w.named(err)
	}
	return u.GetTrustedMetadataSet(), nil
}

func (w *workflow) download(ctx context.Context, fetch Fetcher, name string, limit int64) ([]byte, error) {
	w.last, w.got = name, nil
	if name == TimestampName {
		return w.timestamp, nil
	}
	role, v, ok := splitMeta(name)
	if !ok || role == metadata.ROOT && !w.pollRoot {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: http.StatusNotFound, URL: name}
	}
	if w.got = w.inMemory(role, v); w.got != nil {
		return w.got, nil
	}
	b, err := get(ctx, fetch, name, limit)
	if isNotFound(err) && role == metadata.ROOT {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: http.StatusNotFound, URL: name}
	}
	if err != nil {
		w.failed = err
		return nil, err
	}
	w.fetched[name], w.got = b, b
	return b, nil
}

// inMemory returns a version of a role that is held and not kept on disk, so that it is not
// fetched at each look; nil: none that the same keys vouch for.
func (w *workflow) inMemory(role string, v int64) []byte {
	if !w.unkept || w.held.versions[role] != v || len(w.fetched) > 0 { // what is new may name other keys
		return nil
	}
	b := w.held.raw[role]
	if isTop(role) {
		return b
	}
	m, err := parse[metadata.TargetsType](b)
	if err != nil || w.held.targets == nil || verify(w.held.targets, role, m) != nil {
		return nil
	}
	return b
}

// refresh updates the four top roles and returns the new state.
func (w *workflow) refresh(ctx context.Context, fetch Fetcher) (*held, floors, error) {
	w.heed(w.held.root)
	set, err := w.run(ctx, fetch, nil)
	if errors.Is(err, ErrExpired) && w.rekeyed() {
		set, err = w.run(ctx, fetch, nil)
	}
	if err != nil {
		return nil, floors{}, err
	}
	if v := set.Root.Signed.Version; v < w.floor.Root {
		return nil, floors{}, fmt.Errorf("%w: root version %d, have accepted %d", ErrRollback, v, w.floor.Root)
	}
	h, err := w.taken(set)
	if err != nil {
		return nil, floors{}, err
	}
	f := w.floor.clone()
	f.rekey(keysOf(h.root, nil, metadata.TIMESTAMP))
	f.Root = set.Root.Signed.Version
	for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		keys := keysOf(h.root, nil, role)
		if err := f.allow(role, keys, h.versions[role]); err != nil {
			return nil, floors{}, err
		}
		f.raise(role, keys, h.versions[role])
	}
	if err := w.channelsKept(h, f); err != nil {
		return nil, floors{}, err
	}
	f.advance(issuedAt(h.root.Signed.UnrecognizedFields))
	f.advance(issuedAt(h.timestamp.Signed.UnrecognizedFields))
	return h, f, nil
}

// rekeyed reports whether a new root has replaced the keys that the newest signed time
// rests on. Then expiry is judged without that time.
func (w *workflow) rekeyed() bool {
	h := w.held.clone()
	for h.climb(w.fetched[metaName(metadata.ROOT, h.root.Signed.Version+1)]) == nil { // until there is none
	}
	was := w.floor.Signed
	if w.floor.rekey(keysOf(h.root, nil, metadata.TIMESTAMP)); w.floor.Signed == was {
		return false
	}
	w.at = w.clock
	w.heed(h.root)
	return true
}

// heed judges expiry by the new timestamp, too, if the keys of root have signed it. Then it
// is the best clock there is: a device that slept for years must not take old metadata for
// current.
func (w *workflow) heed(root *rootMeta) {
	if ts, err := parse[metadata.TimestampType](w.timestamp); err == nil && verify(root, metadata.TIMESTAMP, ts) == nil {
		w.at = latest(w.at, issuedAt(ts.Signed.UnrecognizedFields))
	}
}

// channelsKept refuses a snapshot with a channel older than the floor: go-tuf
// compares with the last snapshot, which may have been lost.
func (w *workflow) channelsKept(h *held, f floors) error {
	for role := range f.Roles {
		if info := h.snapshot.Signed.Meta[role+".json"]; info != nil && isDelegated(role) {
			if err := f.allow(role, keysOf(h.root, h.targets.Signed.Delegations, role), info.Version); err != nil {
				return err
			}
		}
	}
	return nil
}

// taken is the state after go-tuf has accepted set.
func (w *workflow) taken(set trustedmetadata.TrustedMetadata) (*held, error) {
	h := w.held.clone()
	for v := h.root.Signed.Version + 1; v <= set.Root.Signed.Version; v++ {
		if err := h.climb(w.fetched[metaName(metadata.ROOT, v)]); err != nil {
			return nil, err
		}
	}
	h.timestamp, h.snapshot, h.targets = set.Timestamp, set.Snapshot, set.Targets[metadata.TARGETS]
	if h.targets == nil {
		return nil, fmt.Errorf("%w: no targets", ErrCorrupt)
	}
	// With equal versions go-tuf keeps the timestamp it had, if that still verifies.
	if b := w.held.raw[metadata.TIMESTAMP]; b == nil || w.held.versions[metadata.TIMESTAMP] != set.Timestamp.Signed.Version ||
		verify(set.Root, metadata.TIMESTAMP, w.held.timestamp) != nil {
		h.keep(metadata.TIMESTAMP, set.Timestamp.Signed.Version, w.timestamp)
	}
	for role, v := range map[string]int64{metadata.SNAPSHOT: set.Snapshot.Signed.Version, metadata.TARGETS: h.targets.Signed.Version} {
		if b := w.fetched[metaName(role, v)]; b != nil {
			h.keep(role, v, b)
		}
	}
	return h, nil
}

// target is what a channel says about a manifest.
type target struct {
	name     string // <channel>/<type>
	sum      [32]byte
	length   int64
	sequence uint64
	check    func(b []byte) error // length and hashes
}

// path is where the target lies at the origin.
func (t *target) path() string { return manifestName(t.name, t.sum[:]) }

// target finds the newest target for a channel and type.
func (w *workflow) target(ctx context.Context, fetch Fetcher, channel, typ string) (*held, target, error) {
	var best target
	role := roleName(channel)
	set, err := w.run(ctx, fetch, func(u *updater.Updater) error {
		for _, name := range []string{TargetName(channel, typ), TargetName(channel, AnyType)} {
			info, err := u.GetTargetInfo(name)
			if err != nil && (w.failed != nil || !strings.HasSuffix(err.Error(), "target "+name+" not found")) {
				return err
			}
			if err != nil || sequenceOf(info) < best.sequence || best.check != nil && sequenceOf(info) == best.sequence {
				continue
			}
			sum, length := info.Hashes["sha256"], info.Length
			if len(sum) != 32 || length < 1 || length > MaxManifest {
				return fmt.Errorf("%w: target %s", ErrCorrupt, name)
			}
			best = target{name: name, sum: [32]byte(sum), length: length, sequence: sequenceOf(info), check: info.VerifyLengthHashes}
		}
		return nil
	})
	if err != nil {
		return nil, best, err
	}
	if best.check == nil {
		return nil, best, fmt.Errorf("%w: for %s on %s", ErrNoRelease, typ, channel)
	}
	m := set.Targets[role]
	if m == nil {
		return nil, best, fmt.Errorf("%w: %s is not signed by its channel", ErrWrongChannel, best.name)
	}
	if err := w.floor.allow(role, keysOf(set.Root, set.Targets[metadata.TARGETS].Signed.Delegations, role), m.Signed.Version); err != nil {
		return nil, best, err
	}
	b := w.fetched[metaName(role, m.Signed.Version)]
	if b == nil {
		return w.held, best, nil
	}
	h := w.held.clone()
	h.keep(role, m.Signed.Version, b)
	return h, best, nil
}

// named gives an error of go-tuf its name here.
func (w *workflow) named(err error) error {
	var (
		expired  *metadata.ErrExpiredMetadata
		unsigned *metadata.ErrUnsignedMetadata
		version  *metadata.ErrBadVersionNumber
		mismatch *metadata.ErrLengthOrHashMismatch
		repo     *metadata.ErrRepository
	)
	switch {
	case w.failed != nil:
		return w.failed
	case errors.Is(err, ErrCorrupt):
		return err
	case errors.As(err, &expired):
		return w.expired(err)
	case errors.As(err, &unsigned):
		return fmt.Errorf("%w: %s: %w", ErrSignature, w.last, err)
	case errors.As(err, &version):
		return fmt.Errorf("%w: %s: %w", w.badVersion(), w.last, err)
	case errors.As(err, &mismatch):
		return fmt.Errorf("%w: %s: %w", ErrMixAndMatch, w.last, err)
	case errors.As(err, &repo) && strings.Contains(err.Error(), "missing info"):
		return fmt.Errorf("%w: %s: %w", ErrRollback, w.last, err)
	default:
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, w.last, err)
	}
}

// badVersion tells a rollback from files that do not belong together: go-tuf uses
// one error for both.
func (w *workflow) badVersion() error {
	role, asked, ok := splitMeta(w.last)
	if w.last == TimestampName {
		return ErrRollback
	}
	if ok && role == metadata.SNAPSHOT {
		if s, err := parse[metadata.SnapshotType](w.got); err == nil && s.Signed.Version == asked {
			return ErrRollback // its own version is right, so it names an older file than the last one did
		}
	}
	return ErrMixAndMatch
}

// expired finds out which file is meant: the one asked for last, or the root if
// that is what has expired.
func (w *workflow) expired(err error) error {
	e := &ExpiredError{File: strings.TrimPrefix(w.last, metadataDir+"/"), Now: w.at, Signed: w.floor.signed()}
	if strings.Contains(err.Error(), "root.json") {
		e.File, e.Expires = "root.json", w.held.root.Signed.Expires
		for v := w.held.root.Signed.Version + 1; w.fetched[metaName(metadata.ROOT, v)] != nil; v++ {
			if r, err := parse[metadata.RootType](w.fetched[metaName(metadata.ROOT, v)]); err == nil {
				e.Expires = r.Signed.Expires
			}
		}
		return e
	}
	if ts, err := parse[metadata.TimestampType](w.timestamp); err == nil {
		e.Signed = latest(e.Signed, issuedAt(ts.Signed.UnrecognizedFields))
		e.Expires = ts.Signed.Expires
		if w.at.After(e.Expires) {
			e.File = "timestamp.json"
			return e
		}
	}
	if w.got != nil {
		if m, err := parse[metadata.SnapshotType](w.got); err == nil && m.Signed.Type == metadata.SNAPSHOT {
			e.Expires = m.Signed.Expires
		} else if m, err := parse[metadata.TargetsType](w.got); err == nil {
			e.Expires = m.Signed.Expires
		}
	}
	return e
}
