package install_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"updraft/node/install"
)

// nobody is a user without rights.
const nobody = 65534

// unprivileged runs fn with a directory of its own as somebody who is not root.
// fn must use the file system from its own goroutine only.
func unprivileged(t *testing.T, fn func(data string)) {
	t.Helper()
	data, err := os.MkdirTemp("/tmp", "install") // t.TempDir lies below what only root may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(data) })
	if os.Geteuid() != 0 {
		fn(data)
		return
	}
	if err := os.Chown(data, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() { fn(data) })
}

// asNobody runs fn as a user without rights. fn must use the file system from its own goroutine only.
func asNobody(t *testing.T, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		// The raw calls change this thread alone.
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, nobody, nobody, nobody); e != 0 {
			t.Error(e)
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); e != 0 {
			t.Error(e)
			return
		}
		fn()
	}()
	<-done
}

// sealed makes a tree below dir whose directories forbid every change.
func sealed(dir string) error {
	deep := filepath.Join(dir, "app", "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		return err
	}
	for _, p := range []string{deep, filepath.Dir(deep)} {
		if err := os.WriteFile(filepath.Join(p, "f"), nil, 0o444); err != nil {
			return err
		}
	}
	// Nothing a link leads to is touched.
	if err := os.Symlink("../../..", filepath.Join(deep, "up")); err != nil {
		return err
	}
	return errors.Join(os.Chmod(deep, 0), os.Chmod(filepath.Dir(deep), 0o500), os.Chmod(filepath.Join(dir, "app"), 0o555))
}

// TestReadOnlyTree removes trees that the agent itself may not write to.
func TestReadOnlyTree(t *testing.T) {
	unprivileged(t, func(data string) {
		d, err := install.Open(data)
		if err != nil {
			t.Error(err)
			return
		}
		for _, v := range []string{"1", "2", "3"} {
			dir, err := d.Staging(v)
			if err == nil {
				err = sealed(dir)
			}
			if err == nil {
				_, err = d.Publish(v)
			}
			if err != nil {
				t.Errorf("publish %s: %v", v, err)
				return
			}
		}
		left := filepath.Join(data, "releases", ".0.removed") // a removal that a crash cut short
		dir, err := d.Staging("4")
		if err := errors.Join(err, sealed(dir), sealed(left), d.Switch("3"), d.Recover(func(err error) { t.Error(err) })); err != nil {
			t.Error(err)
		}
		if gone, err := d.Prune(2); err != nil || !slices.Equal(gone, []string{"1"}) {
			t.Errorf("Prune = %v, %v", gone, err)
		}
		es, err := os.ReadDir(filepath.Join(data, "releases"))
		if err != nil || len(es) != 2 {
			t.Errorf("left: %v, %v", es, err)
		}
		if fi, err := os.Stat(filepath.Join(d.Path("3"), "app")); err != nil || fi.Mode().Perm() != 0o555 {
			t.Errorf("the release in service: %v, %v", fi, err)
		}
	})
}

// foreign makes a tree below dir, a part of which is in a directory that is another user's alone.
func foreign(t *testing.T, dir string) {
	t.Helper()
	shut := filepath.Join(dir, "app", "spool", "b")
	if err := os.MkdirAll(shut, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{shut, filepath.Dir(shut), filepath.Join(dir, "app", "z")} {
		if err := errors.Join(os.MkdirAll(p, 0o700), os.WriteFile(filepath.Join(p, "f"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{dir, filepath.Join(dir, "app"), filepath.Join(dir, "app", "z"), filepath.Dir(shut)} {
		if err := os.Chown(p, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	// That of the agent's own which comes after the foreign one forbids its removal, too.
	if err := errors.Join(os.Chmod(filepath.Dir(shut), 0o777), os.Chmod(filepath.Join(dir, "app", "z"), 0o500)); err != nil {
		t.Fatal(err)
	}
}

// TestWhatCannotBeDeleted goes on where a part of a release is another user's: what can be deleted is,
// the rest is told, and is in the way of nothing.
func TestWhatCannotBeDeleted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's directory")
	}
	data, err := os.MkdirTemp("/tmp", "install") // t.TempDir lies below what only root may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(data) })
	for _, v := range []string{".0.removed", "1", ".2.partial"} {
		foreign(t, filepath.Join(data, "releases", v))
	}
	if err := errors.Join(os.Chown(data, nobody, nobody), os.Chown(filepath.Join(data, "releases"), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	left := func(name string) {
		t.Helper()
		dir := filepath.Join(data, "releases", name, "app")
		if _, err := os.Lstat(filepath.Join(dir, "spool", "b", "f")); err != nil {
			t.Error(err)
		}
		for _, p := range []string{"z", "spool/f"} {
			if _, err := os.Lstat(filepath.Join(dir, p)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s of %s is still there: %v", p, name, err)
			}
		}
	}
	asNobody(t, func() {
		d, err := install.Open(data)
		if err != nil {
			t.Error(err)
			return
		}
		var told error
		if err := d.Recover(func(err error) { told = err }); err != nil || !errors.Is(told, install.ErrRemove) {
			t.Errorf("Recover = %v, told %v", err, told)
		}
		if gone, err := d.Prune(0); !slices.Equal(gone, []string{"1"}) || !errors.Is(err, install.ErrRemove) {
			t.Errorf("Prune = %v, %v", gone, err)
		}
		if err := d.Discard("2"); !errors.Is(err, install.ErrRemove) {
			t.Errorf("Discard = %v", err)
		}
		// The names are free for releases that come again, and for their removal.
		for _, v := range []string{"1", "2"} {
			dir, err := d.Staging(v)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "app"), nil, 0o600)
			}
			if err == nil {
				_, err = d.Publish(v)
			}
			if err == nil {
				err = d.Discard(v)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	for _, name := range []string{".0.removed", ".1.removed", ".2.partial.removed"} {
		left(name)
	}
	if es, err := os.ReadDir(filepath.Join(data, "releases")); err != nil || len(es) != 3 {
		t.Errorf("left: %v, %v", es, err)
	}
}

// TestRemovalIsTakenUpAgain removes a release of whose namesake a part is left.
func TestRemovalIsTakenUpAgain(t *testing.T) {
	data := t.TempDir()
	d := open(t, data)
	put(t, d, "1")
	left := filepath.Join(data, "releases", ".1.removed")
	if err := os.MkdirAll(filepath.Join(left, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if gone, err := d.Prune(0); err != nil || !slices.Equal(gone, []string{"1"}) {
		t.Errorf("Prune = %v, %v", gone, err)
	}
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// TestRecoverRemovesLinks removes what a switch leaves when it is killed between
// making the new link and giving it its name.
func TestRecoverRemovesLinks(t *testing.T) {
	data := t.TempDir()
	d := open(t, data)
	put(t, d, "1")
	put(t, d, "2")
	if err := d.Switch("1"); err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(data, ".current")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("releases", "2"), filepath.Join(tmp, "tmp.symlink")); err != nil {
		t.Fatal(err)
	}
	open(t, data)
	if _, err := os.Lstat(tmp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	inService(t, data, "1")
	if vs, err := d.Versions(); err != nil || len(vs) != 2 {
		t.Errorf("Versions = %v, %v", vs, err)
	}
}
