package release

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// SetStep makes the repository call fn with the name of each file it is about to
// write; an error from fn stops it there, as a crash would.
func (r *Repo) SetStep(fn func(name string) error) { r.step = fn }

// ParseFloors is the decoder of the floors' file.
func ParseFloors(b []byte) { parseFloors(b).clone() }

// ForgetBegin makes the store in dir what it was before the first root was noted in it.
func ForgetBegin(dir string) error {
	f := readFloors(dir)
	b, _ := hex.DecodeString(f.Begin)
	entries, err := os.ReadDir(filepath.Join(dir, rootsDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, rootsDir, e.Name())
		if raw, err := os.ReadFile(path); err == nil && sha256.Sum256(raw) == [32]byte(b) {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	f.Begin = ""
	if b, err = f.bytes(); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, floorFile), b, storedMode)
}

// ForgetFleet forgets what the store in dir holds of its fleet, as a device does that is
// enrolled in another one, but no more than left; it returns how much there is.
func ForgetFleet(dir string, left int) (all int, err error) {
	return len(ofFleet), forget(dir, ofFleet[:left])
}

// ParseAll gives b to every decoder of metadata.
func ParseAll(b []byte) {
	_, _ = parseRoot(b)
	_, _ = parse[metadata.TimestampType](b)
	_, _ = parse[metadata.SnapshotType](b)
	_, _ = parse[metadata.TargetsType](b)
	splitMeta(string(b))
	splitManifest(string(b))
}

// SignAs lets the channel's key sign a manifest that AddRelease would refuse.
func (r *Repo) SignAs(target string, manifest []byte, sequence uint64) error {
	role := roleName("stable")
	next := copyTargets(r.channels[role])
	sum := sha256.Sum256(manifest)
	raw := json.RawMessage(fmt.Sprintf(`{"seq":%d}`, sequence))
	next.Signed.Targets = map[string]*metadata.TargetFiles{target: {Length: int64(len(manifest)), Custom: &raw, Hashes: metadata.Hashes{"sha256": sum[:]}}}
	return r.publish(change{channels: map[string]*targetsMeta{role: next}, files: []file{{manifestName(target, sum[:]), manifest}}})
}

// ForgeBefore makes a root to stand before the root given: it names the keys of that one, but
// a key of the forger's is enough: one that was stolen, or nil.
func ForgeBefore(root []byte, key ed25519.PrivateKey) ([]byte, error) {
	m, err := parseRoot(root)
	if err != nil {
		return nil, err
	}
	if key == nil {
		if _, key, err = ed25519.GenerateKey(nil); err != nil {
			return nil, err
		}
	}
	pub, _, err := publicKey(key)
	if err != nil {
		return nil, err
	}
	m.Signed.Version--
	m.Signed.Roles[metadata.ROOT].Threshold = 1
	if err := m.Signed.AddKey(pub, metadata.ROOT); err != nil {
		return nil, err
	}
	return sign(m, key)
}

// SignEmptyTimestamp makes a timestamp that vouches for nothing.
func (r *Repo) SignEmptyTimestamp(version int64) ([]byte, error) {
	keys, err := r.signers(metadata.TIMESTAMP)
	if err != nil {
		return nil, err
	}
	ts := metadata.Timestamp(r.until(r.expiry.Timestamp))
	ts.Signed.Version = version
	ts.Signed.Meta = map[string]*metadata.MetaFiles{}
	return sign(ts, keys...)
}

// Lower lets the repository sign for a role with one key, whatever its threshold.
func (r *Repo) Lower(role string) { r.root.Signed.Roles[role].Threshold = 1 }

// ParseBundle and EncodeBundle are the two sides of a bundle.
var (
	ParseBundle  = parseBundle
	EncodeBundle = encodeBundle
)

// SignSteps puts text where the stable channel's metadata has the steps of its releases.
func (r *Repo) SignSteps(text string) error {
	role := roleName("stable")
	next := copyTargets(r.channels[role])
	all := map[string]any{}
	for _, info := range next.Signed.Targets {
		all[info.Hashes["sha256"].String()] = text
	}
	next.Signed.UnrecognizedFields = map[string]any{fieldSteps: all}
	return r.publish(change{channels: map[string]*targetsMeta{role: next}})
}
