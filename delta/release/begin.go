package release

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// begin returns the floors of the store in dir for a device that is enrolled with a root.
// They belong to the fleet whose root it was enrolled with: with one of another fleet, made
// anew after its root keys were lost, they begin anew, and the store with them. Nobody who
// cannot change the enrollment brings that about. The new root is noted there as well; if
// that fails, or power does before, it is found out anew next time.
func begin(dir string, raw []byte) (floors, error) {
	root, err := parseRoot(raw)
	if err != nil {
		return floors{}, fmt.Errorf("trusted root: %w", err)
	}
	f := readFloors(dir)
	sum := sha256.Sum256(raw)
	now := hex.EncodeToString(sum[:])
	if f.Begin == now {
		return f, nil
	}
	if foreign(dir, root, f) {
		if err := forget(dir, ofFleet); err != nil {
			return floors{}, fmt.Errorf("release: forgetting another fleet: %w", err)
		}
		f = floors{}.clone()
	}
	f.Begin = now
	if b, err := f.bytes(); err == nil && writeFile(rootPath(dir, root.Signed.Version), raw, storedMode) == nil {
		_ = writeFile(filepath.Join(dir, floorFile), b, storedMode)
	}
	return f, nil
}

// ofFleet is what a store holds of its fleet, in the order in which that is forgotten: the
// floors first. Wherever that ends, they keep no other fleet out.
var ofFleet = []string{floorFile, metadataDir, rootsDir}

// foreign reports whether the store in dir, of floors f, is of another fleet than root, which
// is not the one it began with, if that was noted: no root in it is in a chain with root.
// Before that was noted, it is if one is there that would have to be in a chain with root,
// and is not; without floors, if any is there.
func foreign(dir string, root *rootMeta, f floors) bool {
	entries, _ := os.ReadDir(filepath.Join(dir, rootsDir)) // none: nothing speaks for root
	apart, lost := f.Begin != "", f.Root == 0
	for _, e := range entries[:min(len(entries), storedRoots)] {
		v, err := strconv.ParseInt(strings.TrimSuffix(e.Name(), ".json"), 10, 64)
		if err != nil {
			continue
		}
		b, err := readFile(rootPath(dir, v), maxRoot)
		if err != nil {
			continue
		}
		other, err := parseRoot(b)
		if err != nil || other.Signed.Version != v {
			continue
		}
		first, second := other, root
		if v > root.Signed.Version {
			first, second = root, other
		}
		if verify(first, metadata.ROOT, second) == nil {
			return false
		}
		apart = apart || lost || second.Signed.Version-first.Signed.Version <= 1
	}
	return apart
}

// forget removes for good what a store has under names, one after the other: the floors, or
// all that is in a directory.
func forget(dir string, names []string) error {
	for _, name := range names {
		path := filepath.Join(dir, name)
		var err error
		if name == floorFile {
			err = errors.Join(os.RemoveAll(path), SyncDir(dir))
		} else {
			err = removeIn(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeIn empties a directory for good.
func removeIn(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return SyncDir(dir)
}
