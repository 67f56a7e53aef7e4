package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"filippo.io/age"
	"golang.org/x/sys/unix"
)

// sealedMark begins each key file that a passphrase opens: age's format.
var sealedMark = []byte("age-encryption.org/")

// maxWork bounds what opening a file may cost: 2^work × 1 KiB of memory.
const maxWork = 20

// Passphrase returns the passphrase of a key file, or the one to seal a fresh file
// with. An error of it is returned to the caller, wrapped.
type Passphrase func(path string, fresh bool) (string, error)

// Keys opens and makes key files, sealed ones too. It remembers those that it opened.
// The zero value opens only files that are not sealed. It is not safe for concurrent use.
type Keys struct {
	Passphrase Passphrase // nil: sealed files are ErrSealed
	Work       int        // to seal with: 2^Work × 1 KiB of memory, about 1 s for 18; 0: 18

	opened map[[32]byte][]byte // what is in a sealed file, by the digest of the file
}

// Read reads a key file as ReadKey does, and opens it if it is sealed.
func (k *Keys) Read(path string) (ed25519.PrivateKey, error) {
	text, err := k.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseKey(path, text)
}

// ReadFile reads a secret file, of at most 4 KiB, that only its owner may read, and
// opens it if it is sealed. What it returns must not be changed.
func (k *Keys) ReadFile(path string) ([]byte, error) {
	text, err := readKeyFile(path)
	if err != nil || !bytes.HasPrefix(text, sealedMark) {
		return text, err
	}
	sum := sha256.Sum256(text)
	if opened, ok := k.opened[sum]; ok {
		return opened, nil
	}
	if k.Passphrase == nil {
		return nil, fmt.Errorf("%w: %s", ErrSealed, path)
	}
	pass, err := k.Passphrase(path, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSealed, path, err)
	}
	id, err := age.NewScryptIdentity(pass)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSealed, path, err)
	}
	id.SetMaxWorkFactor(maxWork)
	r, err := age.Decrypt(bytes.NewReader(text), id)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSealed, path, err)
	}
	if text, err = io.ReadAll(io.LimitReader(r, maxKeyFile)); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeyFile, path, err)
	}
	k.remember(sum, text)
	return text, nil
}

func (k *Keys) remember(sum [32]byte, text []byte) {
	if k.opened == nil {
		k.opened = map[[32]byte][]byte{}
	}
	k.opened[sum] = text
}

// Make makes a key as NewKey does, in a sealed file.
func (k *Keys) Make(path string) (ed25519.PrivateKey, error) {
	key, text, err := generateKey()
	if err != nil {
		return nil, err
	}
	return key, k.SealFile(path, text)
}

// like makes a key, sealed if one of the models is.
func (k *Keys) like(path string, models ...string) (ed25519.PrivateKey, error) {
	if slices.ContainsFunc(models, isSealed) {
		return k.Make(path)
	}
	return NewKey(path)
}

// SealFile writes a secret to a sealed file that was not there, mode 0600, synced.
func (k *Keys) SealFile(path string, text []byte) error {
	if k.Passphrase == nil {
		return fmt.Errorf("%w: %s: no passphrase", ErrSealed, path)
	}
	pass, err := k.Passphrase(path, true)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrSealed, path, err)
	}
	to, err := age.NewScryptRecipient(pass)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrSealed, path, err)
	}
	if k.Work > 0 {
		to.SetWorkFactor(k.Work)
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := writeKeyFile(path, sealed.Bytes()); err != nil {
		return err
	}
	k.remember(sha256.Sum256(sealed.Bytes()), bytes.Clone(text))
	return nil
}

// isSealed reports whether a key file needs a passphrase.
func isSealed(path string) bool {
	text, err := readKeyFile(path)
	return err == nil && bytes.HasPrefix(text, sealedMark)
}

// writeKeyFile writes a file that was not there, mode 0600, synced: after a power cut there is all
// of it or none. Else it is fs.ErrExist.
func writeKeyFile(path string, text []byte) error {
	dir := filepath.Dir(path)
	if done, err := writeNameless(dir, path, text); done {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".") // mode 0600
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = giveName(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(f.Name())) // which is no error where it has moved
	}
	if err := errors.Join(os.RemoveAll(f.Name()), SyncDir(dir)); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// writeNameless does so by a file that has no name until it is whole, so that no copy of a key stays under
// another; done is false where the file system cannot.
func writeNameless(dir, path string, text []byte) (done bool, err error) {
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, 0o600)
	if err != nil {
		return false, nil
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return true, errors.Join(err, f.Close())
	}
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	switch err = errors.Join(err, f.Close()); {
	case errors.Is(err, fs.ErrExist):
		return true, fmt.Errorf("%s: %w", path, fs.ErrExist)
	case err != nil: // no /proc, or no hard links
		return false, nil
	}
	if err := SyncDir(dir); err != nil {
		return true, errors.Join(err, os.Remove(path))
	}
	return true, nil
}

// giveName gives a file the name path, if that is free. The name that it had may stay.
func giveName(from, path string) error {
	err := os.Link(from, path)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) { // no hard links, as on FAT
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return os.Rename(from, path)
		}
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	return err
}

// isNoKey reports whether a key file holds the beginning of one at most, as a power cut left it
// when such files were written in their place.
func isNoKey(path string) bool {
	text, err := readKeyFile(path)
	if err != nil || bytes.HasPrefix(text, sealedMark) {
		return false
	}
	block, _ := pem.Decode(text)
	return block == nil
}
