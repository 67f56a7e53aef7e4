package release_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"updraft/delta/release"
)

// changesOf returns what happens to the file name in dir while fn runs, as bits of inotify.
func changesOf(t *testing.T, dir, name string, fn func()) (all uint32) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}()
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_ALL_EVENTS); err != nil {
		t.Fatal(err)
	}
	fn()
	buf := make([]byte, 64<<10)
	n, err := unix.Read(fd, buf)
	if err != nil {
		t.Fatal(err)
	}
	for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if string(bytes.TrimRight(b[unix.SizeofInotifyEvent:end], "\x00")) == name {
			all |= binary.NativeEndian.Uint32(b[4:])
		}
		b = b[end:]
	}
	return all
}

// TestKeyFileIsWhole: a key file has its name only when all of it is there, so that a power cut leaves
// none that is empty or half; it takes nobody's place.
func TestKeyFileIsWhole(t *testing.T) {
	t.Parallel()
	keys, _ := sealed("correct horse")
	for name, create := range map[string]func(path string) error{
		"plain":  func(path string) error { _, err := release.NewKey(path); return err },
		"sealed": func(path string) error { _, err := keys.Make(path); return err },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.key")
		if all := changesOf(t, dir, "a.key", func() {
			if err := create(path); err != nil {
				t.Fatal(err)
			}
		}); all&unix.IN_CREATE == 0 || all&unix.IN_MODIFY != 0 {
			t.Errorf("%s: changes %#x", name, all)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := create(path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
			t.Errorf("%s: changed, %v", name, err)
		}
		if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
			t.Errorf("%s: left: %v, %v", name, es, err)
		}
	}
}

// TestHalfKeyFiles: a key file that a power cut left empty or half, as earlier versions could, stops
// nothing; one that holds something else is left to who put it there.
func TestHalfKeyFiles(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "half": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			f.publish("stable", "1", "rpi4")
			half := func(name string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(f.keys, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d := newDevice(t, f.root)
			for _, role := range []string{"root", "targets", "snapshot", "timestamp", "channel-stable"} {
				half(role + ".key.new")
			}
			half("channel-beta.key")
			f.publish("stable", "2", "rpi4") // of keys that have successors begun
			f.publish("beta", "1", "rpi4")
			f.next(release.RootChange{Rotate: []string{"timestamp"}})
			for _, role := range []string{"root", "targets", "snapshot", "timestamp", "stable"} {
				if err := f.repo.Rotate(role); err != nil {
					t.Fatal(role, err)
				}
			}
			d.want(f.fetch, f.now, "2")
			if left, err := filepath.Glob(filepath.Join(f.keys, "*.new")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			other := filepath.Join(f.keys, "timestamp.key.new")
			if err := os.WriteFile(other, []byte("age-encryption.org/v1\n-> scrypt"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := f.repo.Rotate("timestamp"); !errors.Is(err, release.ErrSealed) {
				t.Error(err)
			}
			if _, err := os.Lstat(other); err != nil {
				t.Error(err)
			}
		})
	}
}
