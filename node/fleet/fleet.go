package fleet

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"updraft/delta/release"
	"updraft/node/identity"
)

const (
	configFile = "fleet.json"
	secretFile = "site.secret"
	caFile     = "ca.key"
	notesFile  = "revoked.json"
)

// Options configures Init and Open.
type Options struct {
	Name   string           // of the fleet, for Init; empty: the directory's name
	Now    func() time.Time // clock; nil: time.Now
	Expiry release.Expiry   // zero fields: release.DefaultExpiry

	// For Init: how many keys root and targets get, and how many of them must sign.
	Root, Targets release.Quorum

	// For Init: seal the key files of root and targets with a passphrase, or all secrets.
	Seal, SealAll bool

	Keys *release.Keys // opens sealed key files; nil: they count as not at hand
}

// config is fleet.json.
type config struct {
	Format  int    `json:"updraft_fleet"` // 1
	Name    string `json:"name"`
	Created string `json:"created"`
}

// Fleet is an open fleet directory. It is not safe for concurrent use; several
// processes may have the same one open.
type Fleet struct {
	dir    string
	config config
	now    func() time.Time
	repo   release.RepoOptions
}

func newFleet(dir string, o Options) *Fleet {
	if o.Keys == nil {
		o.Keys = new(release.Keys)
	}
	f := &Fleet{dir: dir, now: o.Now, repo: release.RepoOptions{Now: o.Now, Expiry: o.Expiry, Root: o.Root, Targets: o.Targets,
		Seal: o.Seal, SealAll: o.SealAll, Keys: o.Keys}}
	if f.now == nil {
		f.now = time.Now
	}
	return f
}

// Init makes a fleet in dir, which must be empty or not exist: keys, and an origin
// with its first metadata. On an error it removes what it made.
func Init(dir string, o Options) (*Fleet, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	f := newFleet(dir, o)
	if o.Name == "" {
		o.Name = filepath.Base(dir)
	}
	if len(o.Name) > 256 {
		return nil, fmt.Errorf("%w: fleet name of %d bytes", ErrOptions, len(o.Name))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrNotEmpty, dir)
	}
	f.config = config{Format: 1, Name: o.Name, Created: f.now().UTC().Format(time.RFC3339)}
	if err := f.create(); err != nil {
		for _, name := range []string{"keys", "origin", "releases", "devices", configFile} {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
		}
		return nil, err
	}
	return f, nil
}

func (f *Fleet) create() error {
	for name, mode := range map[string]fs.FileMode{"keys": 0o700, "origin": 0o755, "releases": 0o755, "devices": 0o700} {
		if err := os.Mkdir(f.path(name), mode); err != nil {
			return err
		}
	}
	makeKey, writeSecret := release.NewKey, identity.WriteSecret
	if f.repo.SealAll {
		makeKey, writeSecret = f.repo.Keys.Make, f.repo.Keys.SealFile
	}
	if _, err := makeKey(f.path("keys", caFile)); err != nil {
		return err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	if err := writeSecret(f.path("keys", secretFile), []byte(hex.EncodeToString(secret)+"\n")); err != nil {
		return err
	}
	if _, err := release.CreateRepo(f.Origin(), f.path("keys"), f.repo); err != nil {
		return err
	}
	b, err := json.MarshalIndent(f.config, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(f.path(configFile), append(b, '\n')) // last: with it, the fleet is whole
}

// Open opens a fleet that Init made.
func Open(dir string, o Options) (*Fleet, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	f := newFleet(dir, o)
	b, err := os.ReadFile(f.path(configFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has no %s", ErrNotFleet, dir, configFile)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &f.config); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotFleet, f.path(configFile), err)
	}
	if f.config.Format != 1 {
		return nil, fmt.Errorf("%w: %s has format %d, this program knows 1", ErrNotFleet, dir, f.config.Format)
	}
	return f, nil
}

// Name is the fleet's name.
func (f *Fleet) Name() string { return f.config.Name }

// Origin is the directory to serve.
func (f *Fleet) Origin() string { return f.path("origin") }

// Offline lists the key files to keep in a safe place and away from this machine:
// they are needed to open a channel, to rotate keys and once a year. Of a role's
// further keys it lists those that are here.
func (f *Fleet) Offline() []string {
	var list []string
	for _, role := range []string{"root", "targets"} {
		more, err := filepath.Glob(f.path("keys", role+".*.key"))
		if err != nil {
			more = nil // a directory whose name is a pattern
		}
		list = append(append(list, f.path("keys", role+".key")), more...)
	}
	return list
}

// Repo opens the signing side of the origin, as to read Expiries. To change it use
// Publish, Refresh and Rotate, which hold the lock.
func (f *Fleet) Repo() (*release.Repo, error) {
	return release.OpenRepo(f.Origin(), f.path("keys"), f.repo)
}

// Refresh signs anew what must not expire and returns the roles; see
// release.Repo.Refresh.
func (f *Fleet) Refresh() (roles []string, err error) {
	err = f.locked(func() error {
		repo, err := f.Repo()
		if err != nil {
			return err
		}
		roles, err = repo.Refresh()
		return err
	})
	return roles, err
}

// Rotate replaces a role's key; see release.Repo.Rotate.
func (f *Fleet) Rotate(role string) error {
	return f.locked(func() error {
		repo, err := f.Repo()
		if err != nil {
			return err
		}
		return repo.Rotate(role)
	})
}

// NextRoot makes the root to be signed elsewhere; see release.Repo.NextRoot.
func (f *Fleet) NextRoot(c release.RootChange) (root []byte, err error) {
	err = f.locked(func() error {
		repo, err := f.Repo()
		if err != nil {
			return err
		}
		root, err = repo.NextRoot(c)
		return err
	})
	return root, err
}

// ImportRoot publishes a root that was signed elsewhere; see release.Repo.ImportRoot.
func (f *Fleet) ImportRoot(root []byte) error {
	return f.locked(func() error {
		repo, err := f.Repo()
		if err != nil {
			return err
		}
		return repo.ImportRoot(root)
	})
}

// Authority is the public key that device certificates are verified with.
func (f *Fleet) Authority() (ed25519.PublicKey, error) {
	key, err := f.ca()
	if err != nil {
		return nil, err
	}
	return key.Public().(ed25519.PublicKey), nil //nolint:forcetypeassert // of an Ed25519 key it is one
}

// ca is the key that certificates are signed with.
func (f *Fleet) ca() (ed25519.PrivateKey, error) { return f.repo.Keys.Read(f.path("keys", caFile)) }

// SiteKey is the secret of a site's announcements: HMAC-SHA256(site.secret, site).
func (f *Fleet) SiteKey(site string) ([32]byte, error) {
	text, err := f.repo.Keys.ReadFile(f.path("keys", secretFile))
	if err != nil {
		return [32]byte{}, err
	}
	secret := make([]byte, 32)
	if n, err := hex.Decode(secret, text[:min(64, len(text))]); err != nil || n != 32 {
		return [32]byte{}, fmt.Errorf("%w: %s", release.ErrKeyFile, f.path("keys", secretFile))
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(site))
	return [32]byte(mac.Sum(nil)), nil
}

// locked runs fn while no other process does. The lock falls with the process, and by name: a
// child that is being started has the file open, too, until it executes its program.
func (f *Fleet) locked(fn func() error) (err error) {
	l, err := os.OpenFile(f.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for {
		err = unix.Flock(int(l.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w: %s", ErrBusy, f.dir)
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", f.path("lock"), err)
	}
	defer func() { err = errors.Join(err, unix.Flock(int(l.Fd()), unix.LOCK_UN)) }()
	return fn()
}

func (f *Fleet) path(elem ...string) string {
	return filepath.Join(append([]string{f.dir}, elem...)...)
}
