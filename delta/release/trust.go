package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// pollRoot is how often a device asks for a newer root although no timestamp told
// it of one: whoever stole the timestamp key cannot hide the root that revokes it
// for longer. As he says what time is signed, this goes by the device's own clock as well,
// wherever that one is late, and each start counts as a day.
const pollRoot = 24 * time.Hour

// Fetcher gets one file by its name below the origin's root, of at most limit
// bytes. A file that is not there is ErrNotFound or fs.ErrNotExist; any other error
// is returned to the caller of Refresh or Release, wrapped; see ErrLater. What it
// returns is trusted in nothing.
type Fetcher func(ctx context.Context, name string, limit int64) ([]byte, error)

// Trust is a device's view of what is published. It is safe for concurrent use.
type Trust struct {
	dir   string
	asked atomic.Bool // a peer was given a root from before the first: it may have been made up, see fill

	busy    sync.Mutex // held by Refresh and Release: one client workflow at a time; guards what is in this paragraph
	saved   *held      // as held was when it was last written
	kept    floors     // as on disk
	unsaved bool       // what is in force is not all on disk

	mu     sync.RWMutex      // guards what follows; changed with busy held as well
	held   *held             // replaced, never changed
	floor  floors            // replaced, never changed
	loose  map[string][]byte // by name: manifests and the like that are in force and not on disk yet
	at     time.Time         // effective time of the last Refresh
	polled time.Time         // by the device's clock: when a newer root was last asked for; zero: not since the start
	early  clockAnchor
}

// OpenTrust opens, or makes, the store in dir for a device that trusts root, the
// bytes of some version of root.json. Damaged files in it are dropped, and all of it
// with its floors if it is of another fleet: if root is not the one it began with, and
// neither in a chain with one of those that it holds. Only an unusable root or an
// unwritable directory is an error.
func OpenTrust(dir string, root []byte) (*Trust, error) {
	for _, d := range []string{metadataDir, rootsDir} {
		if err := makeDir(filepath.Join(dir, d)); err != nil {
			return nil, err
		}
	}
	if len(root) > maxRoot {
		return nil, fmt.Errorf("%w: trusted root of %d bytes", ErrTooLarge, len(root))
	}
	f, err := begin(dir, root)
	if err != nil {
		return nil, err
	}
	h, err := load(dir, bytes.Clone(root))
	if err != nil {
		return nil, err
	}
	t := &Trust{dir: dir, held: h, saved: h, floor: f, kept: f.clone(), loose: make(map[string][]byte)}
	t.floor.rekey(keysOf(h.root, nil, metadata.TIMESTAMP))
	t.dropStale()
	t.lift()
	return t, nil
}

// dropStale forgets metadata below the floors: a crash came between, or somebody
// put back an old file.
func (t *Trust) dropStale() {
	for role, v := range t.held.versions {
		if t.floor.allow(role, t.keys(t.held, role), v) != nil {
			delete(t.held.raw, role)
			delete(t.held.versions, role)
			drop(t.dir, role)
		}
	}
	if t.held.raw[metadata.TIMESTAMP] == nil {
		t.held.timestamp = nil
	}
	if t.held.timestamp == nil || t.held.raw[metadata.SNAPSHOT] == nil {
		t.held.snapshot = nil
	}
	if t.held.snapshot == nil || t.held.raw[metadata.TARGETS] == nil {
		t.held.targets = nil
	}
}

func (t *Trust) keys(h *held, role string) string {
	var d *metadata.Delegations
	if h.targets != nil {
		d = h.targets.Signed.Delegations
	}
	return keysOf(h.root, d, role)
}

// lift raises the floors to what the metadata held proves.
func (t *Trust) lift() {
	t.floor.Root = max(t.floor.Root, t.held.root.Signed.Version)
	for role, v := range t.held.versions {
		if t.held.targets == nil && !isTop(role) && role != metadata.TIMESTAMP {
			continue // which keys it rests on is not known
		}
		t.floor.raise(role, t.keys(t.held, role), v)
	}
	t.floor.advance(issuedAt(t.held.root.Signed.UnrecognizedFields))
	if t.held.timestamp != nil {
		t.floor.advance(issuedAt(t.held.timestamp.Signed.UnrecognizedFields))
	}
}

// Version is the version of the timestamp held: it grows with everything
// published. 0: none.
func (t *Trust) Version() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.held.versions[metadata.TIMESTAMP]
}

// File returns a file this device holds, by its name at the origin, for a peer to
// fetch: the timestamp, all roots, the current and the previous generation of
// everything else, and manifests. Anything else is ErrNotFound. The bytes must not
// be changed. Roots from before the one that this device was enrolled with it cannot
// verify: when a peer has asked for them, each poll of the root fetches them anew until it
// gets a chain that goes back as far, so that one made up with a stolen root key stays no
// longer than who serves it.
func (t *Trust) File(name string) ([]byte, error) {
	t.mu.RLock()
	h := t.held
	t.mu.RUnlock()
	if name == TimestampName {
		if b := h.raw[metadata.TIMESTAMP]; b != nil {
			return b, nil
		}
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if role, v, ok := splitMeta(name); ok {
		b := h.before[name]
		if role == metadata.ROOT {
			b = h.roots[v]
			if b != nil && v < h.first {
				t.asked.Store(true)
			}
		} else if h.versions[role] == v {
			b = h.raw[role]
		}
		if b == nil {
			return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
		}
		return b, nil
	}
	return t.stored(name)
}

// store makes h and f the state, and writes it. What is signed is in force whether that
// works or not: the error is ErrNotKept.
func (t *Trust) store(h *held, f floors) error {
	t.mu.Lock()
	t.held, t.floor = h, f
	t.mu.Unlock()
	return t.save()
}

// save writes what is in force: manifests, metadata, then floors. A crash in between
// leaves lower floors, which the metadata lifts again. What does not fit on the disk keeps
// nothing else from it; the floors there name the manifest before instead.
func (t *Trust) save() error {
	var errs []error
	f := t.floor.clone()
	for key, r := range f.Releases {
		b := t.loose[r.Name]
		if b == nil {
			continue
		}
		err := writeFile(filepath.Join(t.dir, filepath.FromSlash(r.Name)), b, storedMode)
		if err == nil {
			t.mu.Lock()
			delete(t.loose, r.Name)
			t.mu.Unlock()
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", r.Name, err))
		delete(f.Releases, key)
		if before, ok := t.kept.Releases[key]; ok {
			f.Releases[key] = before
		}
	}
	if err := t.saveTop(f); err != nil {
		errs = append(errs, err)
	}
	if t.unsaved = len(errs) > 0; t.unsaved {
		return fmt.Errorf("%w: %w", ErrNotKept, errors.Join(errs...))
	}
	return nil
}

// saveTop writes the metadata in force, and floors.
func (t *Trust) saveTop(f floors) error {
	if err := t.held.save(t.dir, t.saved); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	t.saved = t.held
	b, err := f.bytes()
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(t.dir, floorFile), b, storedMode); err != nil {
		return fmt.Errorf("floors: %w", err)
	}
	t.kept = f
	return nil
}

// mend makes the files agree with what is in force: what was damaged, or could not be
// written before.
func (t *Trust) mend() error {
	if err := t.held.restore(t.dir); err != nil {
		return fmt.Errorf("%w: repairing the store: %w", ErrNotKept, err)
	}
	if t.unsaved {
		return t.save()
	}
	return nil
}

// stored returns a manifest, or what else is named by its digest, that this device has.
func (t *Trust) stored(name string) ([]byte, error) {
	t.mu.RLock()
	b := t.loose[name]
	t.mu.RUnlock()
	if b != nil {
		return b, nil
	}
	return readManifest(t.dir, name)
}

// Refresh brings the metadata up to date from fetch, by the TUF client workflow.
// clock is the device's clock. An unchanged origin costs one request. On an error
// everything is as before; the errors to tell apart are those of this package,
// and those of fetch. ErrNotKept comes when all else went well.
//
// ErrExpired also comes when nothing is new but what is held has expired by now.
func (t *Trust) Refresh(ctx context.Context, fetch Fetcher, clock time.Time) error {
	t.busy.Lock()
	defer t.busy.Unlock()
	t.mu.Lock()
	at := t.nowLocked(clock)
	t.pass(clock, at)
	t.mu.Unlock()
	kept := t.mend()
	b, err := get(ctx, fetch, TimestampName, maxTimestamp)
	if err != nil {
		return err
	}
	poll := t.pollDue(clock, at)
	if !poll && bytes.Equal(b, t.held.raw[metadata.TIMESTAMP]) && t.held.complete() {
		t.setTime(at)
		if err := t.held.fresh(at, t.floor.signed()); err != nil {
			return err
		}
		return kept
	}
	w := workflow{held: t.held, floor: t.floor, dir: t.dir, clock: clock, at: at, timestamp: b, unkept: kept != nil}
	w.pollRoot = poll || w.needsRoot()
	h, f, err := w.refresh(ctx, fetch)
	if err != nil {
		return err
	}
	if w.pollRoot {
		f.Polled = w.at.Unix()
		old, err := h.fill(ctx, fetch, t.asked.Load())
		if err != nil {
			return err
		}
		t.asked.Store(old)
		t.mu.Lock()
		t.polled = clock
		t.mu.Unlock()
	}
	kept = t.store(h, f)
	t.setTime(latest(w.at, f.signed()))
	return kept
}

// pollDue reports whether a newer root is to be asked for whatever the timestamp says.
// at is the effective time of the device's clock: while that is late it passes as whoever
// signs times lets it, a second at each look if he likes.
func (t *Trust) pollDue(clock, at time.Time) bool {
	due := func(now, polled time.Time) bool { return now.Sub(polled) >= pollRoot || polled.After(now) }
	return due(at, time.Unix(t.floor.Polled, 0)) || clock.Before(t.floor.signed()) && due(clock, t.polled) ||
		t.held.root.Signed.Version < t.floor.Root
}

// NextRoot returns the name of the root for which the next Refresh asks whatever else
// it finds, so that it can be fetched at the same time as the timestamp; ok is false
// when it asks for none.
func (t *Trust) NextRoot(clock time.Time) (name string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return metaName(metadata.ROOT, t.held.root.Signed.Version+1), t.pollDue(clock, t.nowLocked(clock))
}

// fill gets the roots before the first one trusted, for the sake of peers: those that are
// not held or, with anew, all of them. Those held then stay unless the others go back as far:
// who serves this device cannot have it drop what only they lead to, not even by a byte that
// nobody signed. kept is whether they stay. What cannot be had is tried again at the next
// poll; its only error is ErrLater.
func (h *held) fill(ctx context.Context, fetch Fetcher, anew bool) (kept bool, err error) {
	n := held{roots: maps.Clone(h.roots)}
	if anew {
		maps.DeleteFunc(n.roots, func(v int64, _ []byte) bool { return v < h.first })
	}
	for v := n.oldest() - 1; v > 0; v-- {
		b, err := get(ctx, fetch, metaName(metadata.ROOT, v), maxRoot)
		if errors.Is(err, ErrLater) {
			return false, err
		}
		if err != nil || n.descend(v, b) != nil {
			break
		}
	}
	if n.oldest() > h.oldest() {
		return true, nil
	}
	h.roots = n.roots
	return false, nil
}

// complete reports whether everything the timestamp vouches for is at hand.
func (h *held) complete() bool {
	if h.timestamp == nil || h.snapshot == nil || h.targets == nil ||
		h.snapshot.Signed.Version != h.timestamp.Signed.Meta["snapshot.json"].Version {
		return false
	}
	info := h.snapshot.Signed.Meta["targets.json"]
	return info != nil && info.Version == h.targets.Signed.Version
}

// fresh reports what has expired.
func (h *held) fresh(at, signed time.Time) error {
	for _, e := range []struct {
		name    string
		expires time.Time
	}{{"root.json", h.root.Signed.Expires}, {"timestamp.json", h.timestamp.Signed.Expires},
		{"snapshot.json", h.snapshot.Signed.Expires}, {"targets.json", h.targets.Signed.Expires}} {
		if at.After(e.expires) {
			return &ExpiredError{File: e.name, Expires: e.expires, Now: at, Signed: signed}
		}
	}
	return nil
}

// get fetches one file and holds the fetcher to its limit.
func get(ctx context.Context, fetch Fetcher, name string, limit int64) ([]byte, error) {
	b, err := fetch(ctx, name, limit)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, limit %d", ErrTooLarge, name, len(b), limit)
	}
	return b, nil
}
