package fleet

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"updraft/delta/release"
)

// objectDirs are the parts of an origin that a build writes.
var objectDirs = []string{"packs", "patches", "index", "maps"}

// movedFile lists, in a staging directory, the objects moved into the origin.
const movedFile = "moved"

// PublishOptions names a release.
type PublishOptions struct {
	Channel string
	Version string   // not published on the channel for one of the types yet
	Types   []string // device types; empty: any
}

// Job is what a build gets to know.
type Job struct {
	PublishOptions
	Staging  string // write packs/, patches/, index/ and maps/ below it; see Build
	Scratch  string // for temporary files; removed afterwards
	Origin   string // what is published already
	Sequence uint64
	Created  int64               // unix seconds
	Previous []*release.Manifest // earlier releases of the channel that fit one of the types, newest first
}

// Build makes a release: it writes the objects into the job's staging directory, on
// the same file system as the origin, and returns the manifest, which may also name
// objects that the origin holds. What a build wrote of which no release came is there
// again for the next one, of whatever release: it may use that, when it has found it to be
// whole, and removes what it does not want to keep.
type Build func(ctx context.Context, j Job) (*release.Manifest, error)

// Publish builds a release and makes it visible, or leaves the origin as it was and what
// was built in staging, where it stays until a publish succeeds, or fails because the disk
// is full.
func (f *Fleet) Publish(ctx context.Context, o PublishOptions, build Build) (m *release.Manifest, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	err = f.locked(func() error {
		m, err = f.publish(ctx, o, build)
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (o *PublishOptions) check() error {
	err := errors.Join(release.CheckChannel(o.Channel), release.CheckVersion(o.Version))
	for _, t := range o.Types {
		err = errors.Join(err, release.CheckType(t))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOptions, err)
	}
	return nil
}

func (f *Fleet) publish(ctx context.Context, o PublishOptions, build Build) (*release.Manifest, error) {
	repo, err := f.Repo()
	if err != nil {
		return nil, err
	}
	if err := repo.Unlock(o.Channel); err != nil {
		return nil, err
	}
	if err := f.reconcile(repo); err != nil {
		return nil, err
	}
	if err := f.withdraw(); err != nil {
		return nil, err
	}
	history, err := f.History(o.Channel)
	if err != nil {
		return nil, err
	}
	job := Job{PublishOptions: o, Origin: f.Origin(), Sequence: 1, Created: f.now().Unix()}
	for _, m := range history {
		job.Sequence = max(job.Sequence, m.Sequence+1)
		if !overlap(m.Types, o.Types) {
			continue
		}
		if m.Version == o.Version {
			return nil, fmt.Errorf("%w: version %s on %s", ErrExists, o.Version, o.Channel)
		}
		job.Previous = append(job.Previous, m)
	}
	work := f.path("staging", "publish")
	job.Staging, job.Scratch = filepath.Join(work, "objects"), filepath.Join(work, "scratch")
	for _, dir := range []string{job.Staging, job.Scratch} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(f.path("staging"), 0o700); err != nil { // nobody else's before it is published
		return nil, err
	}
	m, err := f.buildAndSign(ctx, repo, job, build)
	if err != nil {
		if werr := f.withdraw(); werr != nil {
			return nil, errors.Join(err, werr)
		}
		// A full disk needs the room, to sign metadata anew too; a build that is not what it says would be found again.
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrStaged) {
			err = errors.Join(err, os.RemoveAll(f.path("staging")))
		}
		return nil, err
	}
	return m, os.RemoveAll(f.path("staging"))
}

func (f *Fleet) buildAndSign(ctx context.Context, repo *release.Repo, job Job, build Build) (*release.Manifest, error) {
	m, err := build(ctx, job)
	if err != nil {
		return nil, err
	}
	if m.Channel != job.Channel || m.Version != job.Version || m.Sequence != job.Sequence || !sameTypes(m.Types, job.Types) {
		return nil, fmt.Errorf("%w: asked for %s %s sequence %d, built %s %s sequence %d", ErrStaged,
			job.Channel, job.Version, job.Sequence, m.Channel, m.Version, m.Sequence)
	}
	b, err := m.Encode()
	if err != nil {
		return nil, err
	}
	if err := f.move(job.Staging, m); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := repo.AddRelease(b, m.Steps...); err != nil {
		return nil, err
	}
	if err := f.remember(m, b); err != nil {
		return nil, fmt.Errorf("version %s is published, but the history could not be written: %w", m.Version, err)
	}
	return m, nil
}

func sameTypes(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, slices.Compact(b))
}

// overlap reports whether some device fits both; no types are all types.
func overlap(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(t string) bool { return slices.Contains(b, t) })
}

// recordSize is the size of a chunk's record in an index, in bytes.
const recordSize = 35

// objects lists what a manifest and its steps refer to, with sizes.
func objects(m *release.Manifest) map[string]int64 {
	need := map[string]int64{}
	for _, p := range m.Packs {
		need[object("packs", p.Sum)] = p.Size
	}
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		if len(a.Pages) > 0 {
			need[object("index", a.Index)] = a.Chunks() * recordSize
		}
		if a.MapSize > 0 {
			need[object("maps", a.Map)] = a.MapSize
		}
		for j := range a.Patches {
			need[object("patches", a.Patches[j].Sum)] = a.Patches[j].Size
		}
	}
	for i := range m.Steps {
		need[object("patches", m.Steps[i].Sum)] = m.Steps[i].Size
	}
	return need
}

func object(dir string, sum [32]byte) string { return path.Join(dir, hex.EncodeToString(sum[:])) }

// move brings the objects that a manifest names into the origin. The list of them
// is on disk first, so that they are found if the release never appears.
func (f *Fleet) move(staging string, m *release.Manifest) error {
	need := objects(m)
	var fresh []string
	for name, size := range need {
		from := filepath.Join(staging, filepath.FromSlash(name))
		info, err := os.Lstat(from)
		if errors.Is(err, fs.ErrNotExist) {
			from = f.path("origin", filepath.FromSlash(name))
			info, err = os.Lstat(from)
		} else if _, there := os.Lstat(f.path("origin", filepath.FromSlash(name))); there != nil {
			fresh = append(fresh, name)
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrStaged, name, err)
		}
		if !info.Mode().IsRegular() || info.Size() != size {
			return fmt.Errorf("%w: %s has %d bytes, want %d", ErrStaged, from, info.Size(), size)
		}
	}
	slices.Sort(fresh)
	if err := writeFile(f.path("staging", "publish", movedFile), []byte(strings.Join(fresh, "\n")+"\n")); err != nil {
		return err
	}
	for _, name := range fresh {
		if err := moveFile(filepath.Join(staging, filepath.FromSlash(name)), f.path("origin", filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	for _, dir := range objectDirs {
		if err := release.SyncDir(f.path("origin", dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return release.SyncDir(f.Origin())
}

// moveFile syncs a file and renames it, readable for a web server. The directory
// is synced by the caller.
func moveFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(from, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Chmod(0o644), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// withdraw makes the origin what it was before a publish that did not come to its end: the
// objects that it moved there, and no release names, go back into staging. What it wrote
// besides is removed.
func (f *Fleet) withdraw() error {
	if err := f.cleanUnfinished(); err != nil {
		return err
	}
	list, err := os.ReadFile(f.path("staging", "publish", movedFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.RemoveAll(f.path("staging", "publish", "scratch"))
	case err != nil:
		return err
	}
	back, err := f.moveBack(strings.Fields(string(list)))
	if err != nil {
		return err
	}
	if !back { // the release is out
		return os.RemoveAll(f.path("staging"))
	}
	return errors.Join(os.Remove(f.path("staging", "publish", movedFile)), os.RemoveAll(f.path("staging", "publish", "scratch")))
}

// writtenDirs are where files are written aside and renamed.
var writtenDirs = []string{"releases", "origin/targets", "origin/renewals"}

// unfinished matches what a file is called until it is renamed: a dot, its name and a
// random number of 63 bits, of which all but one in 10⁹ have ten digits or more.
var unfinished = regexp.MustCompile(`^\..+[0-9]{10}$`)

// cleanUnfinished removes files that a process was writing when it ended. The lock is
// held: nobody is writing them now.
func (f *Fleet) cleanUnfinished() error {
	for _, dir := range writtenDirs {
		err := filepath.WalkDir(f.path(filepath.FromSlash(dir)), func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || !unfinished.MatchString(d.Name()) {
				return err
			}
			return os.Remove(name)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// moveBack brings the objects named back into staging, durably, unless a release names
// them, and reports whether there are any of which that is so. Some may be there still.
func (f *Fleet) moveBack(names []string) (back bool, err error) {
	used := map[string]bool{}
	all, err := f.all()
	if err != nil {
		return false, err
	}
	for _, m := range all {
		for name := range objects(m) {
			used[name] = true
		}
	}
	dirs := map[string]bool{}
	for _, name := range names {
		dir, sum := path.Split(name)
		if raw, err := hex.DecodeString(sum); err != nil || len(raw) != 32 || !slices.Contains(objectDirs, strings.TrimSuffix(dir, "/")) || used[name] {
			continue
		}
		back = true
		from, to := f.path("origin", filepath.FromSlash(name)), f.path("staging", "publish", "objects", filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return back, err
		}
		if err := os.Rename(from, to); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return back, err
		}
		dirs[filepath.Dir(from)], dirs[filepath.Dir(to)] = true, true
	}
	for dir := range dirs {
		if err := release.SyncDir(dir); err != nil {
			return back, err
		}
	}
	return back, nil
}

// writeFile replaces a file durably.
func writeFile(name string, data []byte) error {
	if err := renameio.WriteFile(name, data, 0o644, renameio.WithStaticPermissions(0o644), renameio.WithTempDir(filepath.Dir(name))); err != nil {
		return err
	}
	return release.SyncDir(filepath.Dir(name))
}
