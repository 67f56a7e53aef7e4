package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Enrollment is all that a device needs to join its fleet.
type Enrollment struct {
	Fleet     string // name of the fleet
	CA        []byte // Ed25519 public key of the authority
	Root      []byte // TUF root.json to begin with
	Key       []byte // libp2p private key; empty while only the device has it
	Cert      []byte
	SiteKey   [32]byte // secret of the site's announcements
	Name      string
	Type      string
	Site      string
	Channel   string
	Origins   []string // URLs or directories, tried in order
	Peers     []string // static multiaddrs, with /p2p/
	Bootstrap []string // of the DHT, multiaddrs with /p2p/
}

// enrollmentFile is the JSON of an enrollment.
type enrollmentFile struct {
	Format    int             `json:"updraft_enrollment"` // 1
	Fleet     string          `json:"fleet"`
	Name      string          `json:"name"`
	Type      string          `json:"type"`
	Site      string          `json:"site"`
	Channel   string          `json:"channel"`
	Origins   []string        `json:"origins,omitempty"`
	Peers     []string        `json:"peers,omitempty"`
	Bootstrap []string        `json:"bootstrap,omitempty"`
	CA        []byte          `json:"ca"`
	Cert      []byte          `json:"cert"`
	Key       []byte          `json:"key,omitempty"`
	SiteKey   []byte          `json:"site_key"`
	Root      json.RawMessage `json:"root"`
}

// Certificate returns the verified certificate; see Verify for floor and errors.
func (e *Enrollment) Certificate(floor time.Time) (*Cert, error) { return Verify(e.Cert, e.CA, floor) }

// PrivateKey returns the device's key and peer ID. It is ErrKey while the key is
// missing.
func (e *Enrollment) PrivateKey() (crypto.PrivKey, peer.ID, error) {
	if len(e.Key) == 0 {
		return nil, "", fmt.Errorf("%w: the enrollment holds no key; complete it on the device that made the request", ErrKey)
	}
	return ParseKey(e.Key)
}

// Complete adds the key that was made on the device.
func (e *Enrollment) Complete(key []byte) error {
	n := *e
	n.Key = bytes.Clone(key)
	if err := n.check(); err != nil {
		return err
	}
	e.Key = n.Key
	return nil
}

// check reports what does not fit together. Validity in time is left out.
func (e *Enrollment) check() error {
	c, err := e.Certificate(time.Time{})
	if err != nil {
		return err
	}
	if c.Name != e.Name || c.Type != e.Type || c.Site != e.Site {
		return fmt.Errorf("%w: certificate is for %s (%s) at %s, file for %s (%s) at %s", ErrMalformed, c.Name, c.Type, c.Site, e.Name, e.Type, e.Site)
	}
	if len(e.Key) > 0 {
		_, id, err := ParseKey(e.Key)
		if err != nil {
			return err
		}
		if id != c.Peer {
			return fmt.Errorf("%w: key of %s, certificate for %s", ErrKey, id, c.Peer)
		}
	}
	if len(e.Fleet) > 256 || e.Channel == "" || len(e.Channel) > 256 || len(e.Root) < 2 {
		return fmt.Errorf("%w: fleet %.40q, channel %.40q, root of %d bytes", ErrMalformed, e.Fleet, e.Channel, len(e.Root))
	}
	for what, list := range map[string][]string{"origins": e.Origins, "peers": e.Peers, "bootstrap": e.Bootstrap} {
		if len(list) > 64 {
			return fmt.Errorf("%w: %d %s", ErrMalformed, len(list), what)
		}
		for _, s := range list {
			if s == "" || len(s) > 2048 {
				return fmt.Errorf("%w: %s: entry of %d bytes", ErrMalformed, what, len(s))
			}
		}
	}
	return nil
}

// Encode returns the enrollment as JSON text. It holds secrets.
func (e *Enrollment) Encode() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(enrollmentFile{Format: 1, Fleet: e.Fleet, Name: e.Name, Type: e.Type, Site: e.Site,
		Channel: e.Channel, Origins: e.Origins, Peers: e.Peers, Bootstrap: e.Bootstrap, CA: e.CA, Cert: e.Cert, Key: e.Key,
		SiteKey: e.SiteKey[:], Root: e.Root}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(b) >= MaxEnrollment {
		return nil, fmt.Errorf("%w: enrollment of %d bytes", ErrMalformed, len(b))
	}
	return append(b, '\n'), nil
}

// ParseEnrollment decodes an enrollment and checks that its parts fit together. A
// certificate that has expired is no error here.
func ParseEnrollment(b []byte) (*Enrollment, error) {
	if len(b) > MaxEnrollment {
		return nil, fmt.Errorf("%w: enrollment of %d bytes", ErrMalformed, len(b))
	}
	var w enrollmentFile
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: enrollment: %w", ErrMalformed, err)
	}
	if w.Format != 1 {
		return nil, fmt.Errorf("%w: not an enrollment of a format this program knows (%d)", ErrMalformed, w.Format)
	}
	if len(w.SiteKey) != 32 {
		return nil, fmt.Errorf("%w: site key of %d bytes", ErrMalformed, len(w.SiteKey))
	}
	var root bytes.Buffer // the file indents it; what is signed is independent of white space
	if err := json.Compact(&root, w.Root); err != nil {
		return nil, fmt.Errorf("%w: root: %w", ErrMalformed, err)
	}
	e := &Enrollment{Fleet: w.Fleet, CA: w.CA, Root: root.Bytes(), Key: w.Key, Cert: w.Cert, SiteKey: [32]byte(w.SiteKey),
		Name: w.Name, Type: w.Type, Site: w.Site, Channel: w.Channel, Origins: w.Origins, Peers: w.Peers, Bootstrap: w.Bootstrap}
	return e, e.check()
}

// Write writes the enrollment to path, mode 0600, so that after a power cut there
// is the old file or the new one.
func (e *Enrollment) Write(path string) error {
	b, err := e.Encode()
	if err != nil {
		return err
	}
	return WriteSecret(path, b)
}

// WriteSecret replaces path by data, mode 0600, synced.
func WriteSecret(path string, data []byte) error {
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithStaticPermissions(0o600), renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadSecret reads at most limit bytes of a file that only its owner may read;
// otherwise it is ErrPermissions.
func ReadSecret(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrMalformed, path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; chmod 600 it", ErrPermissions, path, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrMalformed, path, limit)
	}
	return b, err
}

// ReadEnrollment reads an enrollment file. Errors name the file.
func ReadEnrollment(path string) (*Enrollment, error) {
	b, err := ReadSecret(path, MaxEnrollment)
	if err != nil {
		return nil, fmt.Errorf("enrollment: %w", err)
	}
	e, err := ParseEnrollment(b)
	if err != nil {
		return nil, fmt.Errorf("enrollment %s: %w", path, err)
	}
	return e, nil
}
