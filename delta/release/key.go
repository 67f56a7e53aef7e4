package release

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 4096

// NewKey makes an Ed25519 key and writes it to path as PEM (PKCS #8), mode 0600,
// synced. It replaces nothing: an existing file is an error.
func NewKey(path string) (ed25519.PrivateKey, error) {
	key, text, err := generateKey()
	if err != nil {
		return nil, err
	}
	return key, writeKeyFile(path, text)
}

func generateKey() (key ed25519.PrivateKey, text []byte, err error) {
	if _, key, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ReadKey reads a key that NewKey wrote. A missing file is ErrNoKey; a file that
// group or others can read, or that holds no Ed25519 key, is ErrKeyFile; a sealed
// one is ErrSealed.
func ReadKey(path string) (ed25519.PrivateKey, error) { return new(Keys).Read(path) }

// readKeyFile reads a key file that nobody else can read.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoKey, path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s: mode is %v, must be 0600", ErrKeyFile, path, info.Mode())
	}
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}

func parseKey(path string, text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%w: %s: not PEM", ErrKeyFile, path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeyFile, path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: %s: not an Ed25519 key", ErrKeyFile, path)
	}
	return key, nil
}

// writeFile replaces path by data so that after a power cut there is the old file
// or the new one: written aside, synced, renamed, directory synced.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := renameio.WriteFile(path, data, mode, renameio.WithStaticPermissions(mode), renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// makeDir makes dir and the missing ones above it, and syncs what holds them.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := makeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(filepath.Dir(dir))
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readFile reads at most limit bytes; more is ErrTooLarge.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s", ErrTooLarge, path)
	}
	return b, nil
}
