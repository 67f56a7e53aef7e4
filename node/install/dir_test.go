package install_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"updraft/node/install"
)

func open(t *testing.T, data string) *install.Dir {
	t.Helper()
	d, err := install.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	recoverAll(t, d)
	return d
}

// recoverAll has everything removed that a crash left half done.
func recoverAll(t *testing.T, d *install.Dir) {
	t.Helper()
	if err := d.Recover(func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
}

// put assembles version and gives it its name; its only file holds the version.
func put(t *testing.T, d *install.Dir, version string) {
	t.Helper()
	dir, err := d.Staging(version)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "app.bin"), version)
	if _, err := d.Publish(version); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// inService checks that the link leads to version, complete.
func inService(t *testing.T, data, version string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(data, "current", "app.bin"))
	if version == "" {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q is in service, want none: %v", b, err)
		}
		return
	}
	if err != nil || string(b) != version {
		t.Errorf("%q is in service, want %s: %v", b, version, err)
	}
}

func TestLayout(t *testing.T) {
	data := t.TempDir()
	d := open(t, data)
	if v, ok := d.Current(); ok {
		t.Fatalf("%s is in service in an empty directory", v)
	}
	put(t, d, "1.0.0")
	if err := d.Switch("1.0.0"); err != nil {
		t.Fatal(err)
	}
	inService(t, data, "1.0.0")
	if to, err := os.Readlink(filepath.Join(data, "current")); err != nil || to != "releases/1.0.0" {
		t.Errorf("current leads to %q, %v", to, err)
	}
	if v, ok := d.Current(); !ok || v != "1.0.0" {
		t.Errorf("Current = %q, %v", v, ok)
	}
	if err := d.Unlink(); err != nil {
		t.Fatal(err)
	}
	if err := d.Unlink(); err != nil {
		t.Errorf("Unlink again: %v", err)
	}
	inService(t, data, "")
}

func TestStagingOutlivesRestart(t *testing.T) {
	data := t.TempDir()
	d := open(t, data)
	dir, err := d.Staging("1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "app.bin"), "half")
	again, err := open(t, data).Staging("1.0.0")
	if err != nil || again != dir {
		t.Fatalf("Staging = %q, %v; want %q", again, err, dir)
	}
	if b, err := os.ReadFile(filepath.Join(again, "app.bin")); err != nil || string(b) != "half" {
		t.Errorf("staged file: %q, %v", b, err)
	}
}

func TestPublishTwice(t *testing.T) {
	data := t.TempDir()
	d := open(t, data)
	if _, err := d.Publish("1.0.0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Publish of nothing: %v", err)
	}
	put(t, d, "1.0.0")
	if p, err := d.Publish("1.0.0"); err != nil || p != d.Path("1.0.0") {
		t.Errorf("Publish again: %q, %v", p, err)
	}
	// Staged anew, it replaces the release that is not in service.
	dir, _ := d.Staging("1.0.0")
	write(t, filepath.Join(dir, "app.bin"), "new")
	if _, err := d.Publish("1.0.0"); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(d.Path("1.0.0"), "app.bin")); string(b) != "new" {
		t.Errorf("release holds %q", b)
	}
	// In service, it does not.
	if err := d.Switch("1.0.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Staging("1.0.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Publish("1.0.0"); err == nil {
		t.Error("the release in service was replaced")
	}
	inService(t, data, "new")
}

func TestVersionsThatAreNoNames(t *testing.T) {
	d := open(t, t.TempDir())
	for _, v := range []string{"", ".", "..", "../x", "a/b", ".hidden", "a\x00b", "a b"} {
		if _, err := d.Staging(v); !errors.Is(err, install.ErrVersion) {
			t.Errorf("Staging(%q): %v", v, err)
		}
		if _, err := d.Publish(v); !errors.Is(err, install.ErrVersion) {
			t.Errorf("Publish(%q): %v", v, err)
		}
		if err := d.Switch(v); !errors.Is(err, install.ErrVersion) {
			t.Errorf("Switch(%q): %v", v, err)
		}
		if err := d.Activate(t.Context(), install.Plain{}, install.Release{Version: v}); !errors.Is(err, install.ErrVersion) {
			t.Errorf("Activate(%q): %v", v, err)
		}
	}
	if err := d.Switch("1.0.0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Switch to nothing: %v", err)
	}
}

func TestForeignLinkIsNotCurrent(t *testing.T) {
	for _, to := range []string{"/etc", "releases", "releases/..", "elsewhere/1.0.0", "releases/2.0.0"} {
		data := t.TempDir()
		d := open(t, data)
		put(t, d, "1.0.0")
		if err := os.Symlink(to, filepath.Join(data, "current")); err != nil {
			t.Fatal(err)
		}
		if v, ok := d.Current(); ok {
			t.Errorf("link to %s: %q is current", to, v)
		}
	}
}

func TestPrune(t *testing.T) {
	data := t.TempDir()
	d := open(t, data)
	for _, v := range []string{"1", "2", "3", "4"} {
		put(t, d, v)
	}
	if err := d.Switch("1"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Staging("5"); err != nil {
		t.Fatal(err)
	}
	gone, err := d.Prune(2)
	if err != nil || !slices.Equal(gone, []string{"3", "2"}) {
		t.Errorf("Prune = %v, %v", gone, err)
	}
	if vs, err := d.Versions(); err != nil || !slices.Equal(vs, []string{"4", "1"}) {
		t.Errorf("Versions = %v, %v", vs, err)
	}
	if _, err := os.Lstat(filepath.Join(data, "releases", ".5.partial")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was staged is still there: %v", err)
	}
	if gone, err := d.Prune(0); err != nil || !slices.Equal(gone, []string{"4"}) {
		t.Errorf("Prune(0) = %v, %v", gone, err)
	}
	inService(t, data, "1")
}

// A device whose clock starts in 1970 still knows which release came last.
func TestOrderWithoutClock(t *testing.T) {
	d := open(t, t.TempDir())
	put(t, d, "1")
	future := time.Now().Add(24 * time.Hour)
	if err := os.Chtimes(d.Path("1"), future, future); err != nil {
		t.Fatal(err)
	}
	put(t, d, "2")
	put(t, d, "3")
	if vs, err := d.Versions(); err != nil || !slices.Equal(vs, []string{"3", "2", "1"}) {
		t.Errorf("Versions = %v, %v", vs, err)
	}
}

func TestRecoverRemovesLeftovers(t *testing.T) {
	data := t.TempDir()
	d := open(t, data)
	const version = "1.0.removed" // looks like what is left of a removal
	put(t, d, version)
	if err := d.Switch(version); err != nil {
		t.Fatal(err)
	}
	left := []string{".current123", ".trial456", "releases/.0.9.0.removed"}
	for _, p := range left {
		if err := os.MkdirAll(filepath.Join(data, p, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(data, "hold"), "")
	recoverAll(t, d)
	for _, p := range left {
		if _, err := os.Lstat(filepath.Join(data, p)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", p, err)
		}
	}
	inService(t, data, version)
	if !d.Held() {
		t.Error("the hold file is gone")
	}
}

func TestSpace(t *testing.T) {
	dir := t.TempDir()
	if err := install.Space(dir, 0); err != nil {
		t.Error(err)
	}
	err := install.Space(dir, 1<<62)
	var e *install.SpaceError
	if !errors.Is(err, install.ErrNoSpace) || !errors.As(err, &e) || e.Need != 1<<62 || e.Have <= 0 || e.Dir != dir {
		t.Errorf("Space = %v", err)
	}
	if err := install.Space(filepath.Join(dir, "none"), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Space of nothing: %v", err)
	}
}

// TestFullDisk fills a small file system at each step: the old release stays.
func TestFullDisk(t *testing.T) {
	data := t.TempDir()
	if err := unix.Mount("tmpfs", data, "tmpfs", 0, "size=256k,nr_inodes=64"); err != nil {
		t.Skipf("a small file system can be mounted by root only: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(data, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d := open(t, data)
	put(t, d, "1.0.0")
	if err := d.Switch("1.0.0"); err != nil {
		t.Fatal(err)
	}
	put(t, d, "2.0.0")
	if err := install.Space(data, 1<<20); !errors.Is(err, install.ErrNoSpace) {
		t.Errorf("Space of a full disk: %v", err)
	}
	fill(t, data)
	err := d.Activate(t.Context(), install.Plain{}, install.Release{Version: "2.0.0"})
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Activate on a full disk: %v", err)
	}
	inService(t, data, "1.0.0")
	if err := os.RemoveAll(filepath.Join(data, "filler")); err != nil {
		t.Fatal(err)
	}
	if err := d.Activate(t.Context(), install.Plain{}, install.Release{Version: "2.0.0"}); err != nil {
		t.Errorf("Activate with space again: %v", err)
	}
	inService(t, data, "2.0.0")
}

// fill writes until neither a byte nor a file fits.
func fill(t *testing.T, dir string) {
	t.Helper()
	dir = filepath.Join(dir, "filler")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		err := os.WriteFile(filepath.Join(dir, string(rune('a'+i))), make([]byte, 16<<10), 0o600)
		if errors.Is(err, unix.ENOSPC) {
			if _, err := os.Create(filepath.Join(dir, "last"+string(rune('a'+i)))); errors.Is(err, unix.ENOSPC) {
				return
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the disk does not fill up")
}
