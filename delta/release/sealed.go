package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
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

	opened map[[32]byte]ed25519.PrivateKey // by the digest of the sealed file
}

// Read reads a key file as ReadKey does, and opens it if it is sealed.
func (k *Keys) Read(path string) (ed25519.PrivateKey, error) {
	text, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(text, sealedMark) {
		return parseKey(path, text)
	}
	sum := sha256.Sum256(text)
	if key, ok := k.opened[sum]; ok {
		return key, nil
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
	key, err := parseKey(path, text)
	if err == nil {
		k.remember(sum, key)
	}
	return key, err
}

func (k *Keys) remember(sum [32]byte, key ed25519.PrivateKey) {
	if k.opened == nil {
		k.opened = map[[32]byte]ed25519.PrivateKey{}
	}
	k.opened[sum] = key
}

// Make makes a key as NewKey does, in a sealed file.
func (k *Keys) Make(path string) (ed25519.PrivateKey, error) {
	if k.Passphrase == nil {
		return nil, fmt.Errorf("%w: %s: no passphrase", ErrSealed, path)
	}
	pass, err := k.Passphrase(path, true)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSealed, path, err)
	}
	to, err := age.NewScryptRecipient(pass)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSealed, path, err)
	}
	if k.Work > 0 {
		to.SetWorkFactor(k.Work)
	}
	key, text, err := generateKey()
	if err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := writeKeyFile(path, sealed.Bytes()); err != nil {
		return nil, err
	}
	k.remember(sha256.Sum256(sealed.Bytes()), key)
	return key, nil
}

// isSealed reports whether a key file needs a passphrase.
func isSealed(path string) bool {
	text, err := readKeyFile(path)
	return err == nil && bytes.HasPrefix(text, sealedMark)
}

// writeKeyFile writes a file that was not there, mode 0600, synced.
func writeKeyFile(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close(), syncDir(filepath.Dir(path))); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
