package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"updraft/delta/release"
)

const (
	releasesDir = "releases"
	currentLink = "current"
	holdFile    = "hold"
	trialFile   = "trial"
	partial     = ".partial"
	unlinked    = ".removed"
)

var (
	// ErrNoSpace is wrapped by a *SpaceError.
	ErrNoSpace = errors.New("install: not enough free space")
	// ErrVersion reports a version that cannot name a directory.
	ErrVersion = errors.New("install: unusable version")
	// ErrRemove reports something of no more use that could not be deleted. It takes
	// space, and is in the way of nothing.
	ErrRemove = errors.New("install: cannot be deleted")
)

// SpaceError says how much space is missing. It is ErrNoSpace.
type SpaceError struct {
	Dir        string
	Need, Have int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%v on %s: %d bytes needed, %d free", ErrNoSpace, e.Dir, e.Need, e.Have)
}

func (e *SpaceError) Unwrap() error { return ErrNoSpace }

// Space returns a *SpaceError unless the file system of dir has need bytes free
// for unprivileged users.
func Space(dir string, need int64) error {
	have, err := Free(dir)
	if err == nil && have < need {
		return &SpaceError{dir, need, have}
	}
	return err
}

// Free returns how many bytes the file system of dir has free for unprivileged users.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("install: free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // 32 bits wide on arm
}

// Dir is the releases of a data directory. One process uses it at a time; its
// methods may be called from any goroutine, those that change something from one
// at a time.
type Dir struct {
	data string
	step func(name string) // for tests: called after each step that lasts
}

// Open makes the directory for releases below data.
func Open(data string) (*Dir, error) {
	if err := makeDir(filepath.Join(data, releasesDir)); err != nil {
		return nil, fmt.Errorf("install: make releases directory: %w", err)
	}
	return &Dir{data, func(string) {}}, nil
}

// makeDir makes a directory that applications and hooks of other users can enter,
// whatever the agent's umask.
func makeDir(path string) error {
	return errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, 0o755))
}

// Path returns where a release lies once it is complete.
func (d *Dir) Path(version string) string { return filepath.Join(d.data, releasesDir, version) }

func (d *Dir) partialPath(version string) string {
	return filepath.Join(d.data, releasesDir, "."+version+partial)
}

// Staging returns the directory in which a release is assembled. What an earlier
// run left there is kept.
func (d *Dir) Staging(version string) (string, error) {
	if err := release.CheckVersion(version); err != nil {
		return "", fmt.Errorf("%w: %w", ErrVersion, err)
	}
	p := d.partialPath(version)
	if err := makeDir(p); err != nil {
		return "", fmt.Errorf("install: make staging directory: %w", err)
	}
	return p, nil
}

// Publish gives an assembled release its final name and makes that durable, with
// everything in it, also what a stage hook wrote. It may be repeated after a
// crash. The release in service is never replaced; of another of that version Recover
// tells, if something of it cannot be deleted.
func (d *Dir) Publish(version string) (string, error) {
	if err := release.CheckVersion(version); err != nil {
		return "", fmt.Errorf("%w: %w", ErrVersion, err)
	}
	from, to := d.partialPath(version), d.Path(version)
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(to); err != nil {
			return "", fmt.Errorf("install: release %s is neither staged nor there: %w", version, err)
		}
		return to, syncDir(filepath.Dir(to))
	}
	if _, err := os.Lstat(to); err == nil {
		if cur, ok := d.Current(); ok && cur == version {
			return "", fmt.Errorf("install: release %s is in service and cannot be replaced", version)
		}
		if err := d.remove(to); err != nil && !free(to) {
			return "", err
		}
	}
	if err := d.stamp(from); err != nil {
		return "", err
	}
	if err := syncAll(from); err != nil {
		return "", err
	}
	d.step("synced")
	if err := os.Rename(from, to); err != nil {
		return "", fmt.Errorf("install: name release: %w", err)
	}
	d.step("named")
	return to, syncDir(filepath.Dir(to))
}

// stamp sets the time of the release at path, by which Prune knows their order:
// now, or later than all others where the clock went back.
func (d *Dir) stamp(path string) error {
	at := time.Now()
	vs, err := d.Versions()
	if err != nil {
		return err
	}
	if len(vs) > 0 {
		fi, err := os.Stat(d.Path(vs[0]))
		if err != nil {
			return fmt.Errorf("install: stamp release: %w", err)
		}
		if newest := fi.ModTime(); !at.After(newest) {
			at = newest.Add(time.Second)
		}
	}
	if err := os.Chtimes(path, at, at); err != nil {
		return fmt.Errorf("install: stamp release: %w", err)
	}
	return nil
}

// Switch puts a complete release into service.
func (d *Dir) Switch(version string) error {
	if err := release.CheckVersion(version); err != nil {
		return fmt.Errorf("%w: %w", ErrVersion, err)
	}
	if fi, err := os.Stat(d.Path(version)); err != nil || !fi.IsDir() {
		return fmt.Errorf("install: release %s is not there: %w", version, errors.Join(err, fs.ErrNotExist))
	}
	if err := renameio.Symlink(filepath.Join(releasesDir, version), filepath.Join(d.data, currentLink)); err != nil {
		return fmt.Errorf("install: switch to %s: %w", version, err)
	}
	return syncDir(d.data)
}

// Unlink takes whatever is in service out of service.
func (d *Dir) Unlink() error {
	if err := os.Remove(filepath.Join(d.data, currentLink)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("install: take release out of service: %w", err)
	}
	return syncDir(d.data)
}

// Current returns the version in service.
func (d *Dir) Current() (version string, ok bool) {
	to, err := os.Readlink(filepath.Join(d.data, currentLink))
	if err != nil {
		return "", false
	}
	version = filepath.Base(to)
	if to != filepath.Join(releasesDir, version) {
		return "", false
	}
	if fi, err := os.Stat(d.Path(version)); err != nil || !fi.IsDir() {
		return "", false
	}
	return version, true
}

// Held reports whether the hold file exists.
func (d *Dir) Held() bool {
	_, err := os.Lstat(filepath.Join(d.data, holdFile))
	return err == nil
}

// Recover removes what a crash left half done: files and links under temporary
// names and releases whose removal had begun. What was staged stays, and so does
// a Trial. What cannot be removed it tells left of, as an ErrRemove for all together,
// and goes on: it is in the way of nothing.
func (d *Dir) Recover(left func(error)) error {
	es, err := os.ReadDir(d.data)
	if err != nil {
		return fmt.Errorf("install: read data directory: %w", err)
	}
	rs, err := os.ReadDir(filepath.Join(d.data, releasesDir))
	if err != nil {
		return fmt.Errorf("install: read releases: %w", err)
	}
	var failed error
	for _, e := range es {
		// renameio makes what is new under a name of its own beside the old.
		if strings.HasPrefix(e.Name(), "."+currentLink) || strings.HasPrefix(e.Name(), "."+trialFile) {
			failed = errors.Join(failed, removeAll(filepath.Join(d.data, e.Name())))
		}
	}
	for _, r := range rs {
		if strings.HasPrefix(r.Name(), ".") && strings.HasSuffix(r.Name(), unlinked) { // no version begins so
			failed = errors.Join(failed, removeAll(d.Path(r.Name())))
		}
	}
	if failed != nil {
		left(failed)
	}
	return nil
}

// Discard removes a release that is not in service, and what was staged for it.
func (d *Dir) Discard(version string) error {
	if err := release.CheckVersion(version); err != nil {
		return fmt.Errorf("%w: %w", ErrVersion, err)
	}
	if cur, ok := d.Current(); ok && cur == version {
		return fmt.Errorf("install: release %s is in service and cannot be removed", version)
	}
	var err error
	for _, p := range []string{d.partialPath(version), d.Path(version)} {
		if _, e := os.Lstat(p); e == nil {
			err = errors.Join(err, d.remove(p))
		}
	}
	return err
}

// Free reports whether nothing has the name of a release, nor of what is staged for it.
func (d *Dir) Free(version string) bool { return free(d.Path(version)) && free(d.partialPath(version)) }

// Versions returns the complete releases, the newest installed first.
func (d *Dir) Versions() ([]string, error) {
	es, err := os.ReadDir(filepath.Join(d.data, releasesDir))
	if err != nil {
		return nil, fmt.Errorf("install: read releases: %w", err)
	}
	type rel struct {
		v string
		t time.Time
	}
	var list []rel
	for _, e := range es {
		if fi, err := e.Info(); err == nil && e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			list = append(list, rel{e.Name(), fi.ModTime()})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].t.After(list[j].t) })
	out := make([]string, len(list))
	for i, r := range list {
		out[i] = r.v
	}
	return out, nil
}

// Prune removes all but keep releases: the one in service and the newest others.
// What a Trial may go back to stays in any case. It also removes what was staged.
// It returns the versions that are gone, also those of which something could not be
// deleted.
func (d *Dir) Prune(keep int) (gone []string, err error) {
	vs, err := d.Versions()
	if err != nil {
		return nil, err
	}
	cur, ok := d.Current()
	if ok {
		keep--
	}
	trial, _ := d.Pending()
	for _, v := range vs {
		if v == cur || v == trial.Version || v == trial.Previous {
			continue
		}
		if keep > 0 {
			keep--
			continue
		}
		err = errors.Join(err, d.remove(d.Path(v)))
		if free(d.Path(v)) {
			gone = append(gone, v)
		}
	}
	return gone, errors.Join(err, d.CleanStaging(""))
}

// CleanStaging removes what was staged for other versions than keep.
func (d *Dir) CleanStaging(keep string) error {
	es, err := os.ReadDir(filepath.Join(d.data, releasesDir))
	if err != nil {
		return fmt.Errorf("install: read releases: %w", err)
	}
	for _, e := range es {
		p := filepath.Join(d.data, releasesDir, e.Name())
		if strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), partial) && p != d.partialPath(keep) {
			err = errors.Join(err, removeAll(p))
		}
	}
	return err
}

// remove deletes a release, or what was staged for one; it loses its name first, so
// that half of one is never taken for a whole.
func (d *Dir) remove(path string) error {
	name := "." + strings.TrimPrefix(filepath.Base(path), ".")
	out := d.Path(name + unlinked)
	for n := 2; ; n++ { // past what an earlier attempt left and nobody can delete
		if err := removeAll(out); err == nil {
			break
		} else if _, e := os.Lstat(out); e != nil {
			return err
		}
		out = d.Path(fmt.Sprintf("%s.%d%s", name, n, unlinked))
	}
	if err := os.Rename(path, out); err != nil {
		return fmt.Errorf("install: remove %s: %w", filepath.Base(path), err)
	}
	return removeAll(out)
}

// free reports whether nothing is at path.
func free(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// removeAll removes path and all below it, as far as possible. The directories of a
// tree may forbid that to an agent that is not root; as their owner it can change their
// modes. What it cannot remove is ErrRemove.
func removeAll(path string) error {
	err := os.RemoveAll(path)
	if errors.Is(err, fs.ErrPermission) {
		_ = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return fs.SkipDir // a directory of somebody else's: there is more than that
			}
			if e.IsDir() {
				_ = os.Chmod(p, 0o700) // RemoveAll tells what is left
			}
			return nil
		})
		err = os.RemoveAll(path)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRemove, err)
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("install: sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("install: sync %s: %w", path, err)
	}
	return nil
}

// syncAll makes the tree at path durable, and whatever else its file system has
// not written yet.
func syncAll(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("install: sync: %w", err)
	}
	if err := errors.Join(unix.Syncfs(int(f.Fd())), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("install: sync %s: %w", path, err)
	}
	return nil
}
