package release

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Names at the origin.
const (
	metadataDir   = "metadata"
	targetsDir    = "targets"
	TimestampName = metadataDir + "/timestamp.json" // changes with everything published; all else is found through it
)

// Limits of the metadata, in bytes, and how many roots one refresh may climb.
const (
	maxRoot      = 64 << 10
	maxTimestamp = 8 << 10
	maxSnapshot  = 256 << 10
	maxTargets   = 1 << 20
	maxRotations = 256
)

// Our own signed fields beside those of TUF, in root and timestamp: when it was
// signed (RFC 3339), and for the timestamp the newest root's version, so that a
// device need not ask for a newer root at each check.
const (
	fieldIssued = "issued"
	fieldRoot   = "root"
)

type (
	rootMeta      = metadata.Metadata[metadata.RootType]
	timestampMeta = metadata.Metadata[metadata.TimestampType]
	snapshotMeta  = metadata.Metadata[metadata.SnapshotType]
	targetsMeta   = metadata.Metadata[metadata.TargetsType]
)

// roleName is the TUF role of a channel. "~" occurs in no channel.
func roleName(channel string) string { return strings.ReplaceAll(channel, "/", "~") }

func channelOf(role string) string { return strings.ReplaceAll(role, "~", "/") }

// metaName is the name of version v of a role's file at the origin.
func metaName(role string, v int64) string {
	return metadataDir + "/" + strconv.FormatInt(v, 10) + "." + role + ".json"
}

// splitMeta undoes metaName; ok is false for any other name.
func splitMeta(name string) (role string, v int64, ok bool) {
	name, found := strings.CutPrefix(name, metadataDir+"/")
	name, tail := strings.CutSuffix(name, ".json")
	number, role, dot := strings.Cut(name, ".")
	v, err := strconv.ParseInt(number, 10, 64)
	ok = found && tail && dot && err == nil && v > 0 && strconv.FormatInt(v, 10) == number
	return role, v, ok && (isTop(role) || isDelegated(role))
}

// isDelegated reports whether a role signs releases, or the revocations.
func isDelegated(role string) bool {
	return role == revokedRole || CheckChannel(channelOf(role)) == nil
}

func isTop(role string) bool {
	return role == metadata.ROOT || role == metadata.TARGETS || role == metadata.SNAPSHOT
}

// manifestName is where the manifest with digest sum for a target lies at the origin.
func manifestName(target string, sum []byte) string {
	dir, typ := path.Split(target)
	return targetsDir + "/" + dir + hex.EncodeToString(sum) + "." + typ
}

// splitManifest undoes manifestName.
func splitManifest(name string) (sum [32]byte, ok bool) {
	name, found := strings.CutPrefix(name, targetsDir+"/")
	dir, file := path.Split(name)
	text, typ, dot := strings.Cut(file, ".")
	raw, err := hex.DecodeString(text)
	if !found || !dot || err != nil || len(raw) != len(sum) || strings.ToLower(text) != text {
		return sum, false
	}
	if !isDelegated(roleName(strings.TrimSuffix(dir, "/"))) || typ != AnyType && CheckType(typ) != nil {
		return sum, false
	}
	return [32]byte(raw), true
}

// custom is the part of a target's entry that is ours: the sequence, so that a
// device can tell the newer of two manifests before it fetches one.
type custom struct {
	Sequence uint64 `json:"seq"`
}

func sequenceOf(t *metadata.TargetFiles) uint64 {
	var c custom
	if t == nil || t.Custom == nil || json.Unmarshal(*t.Custom, &c) != nil {
		return 0
	}
	return c.Sequence
}

// issuedAt reads our signed time; zero when there is none.
func issuedAt(fields map[string]any) time.Time {
	text, _ := fields[fieldIssued].(string)
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Year() > 9999 {
		return time.Time{}
	}
	return t.UTC()
}

// rootHint reads the newest root's version from a timestamp; 0 when not given.
func rootHint(ts *timestampMeta) int64 {
	n, _ := ts.Signed.UnrecognizedFields[fieldRoot].(float64)
	if n < 0 || n > 1<<40 {
		return 0
	}
	return int64(n)
}

// keysOf names the keys that a role's trust rests on: a floor learnt under other
// keys does not bind, which is how a fleet recovers from a stolen key that signed
// far too high a version.
func keysOf(root *rootMeta, delegations *metadata.Delegations, role string) string {
	ids := slices.Concat(root.Signed.Roles[metadata.TIMESTAMP].KeyIDs, []string{""}, root.Signed.Roles[metadata.SNAPSHOT].KeyIDs, []string{""})
	if r, ok := root.Signed.Roles[role]; ok {
		ids = append(ids, r.KeyIDs...)
	} else if delegations != nil {
		for _, d := range delegations.Roles {
			if d.Name == role {
				ids = append(ids, d.KeyIDs...)
			}
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(ids, ",")))
	return hex.EncodeToString(sum[:8])
}

// parse reads metadata of one role and survives whatever it is given.
func parse[T metadata.Roles](b []byte) (m *metadata.Metadata[T], err error) {
	defer func() {
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}()
	m, err = new(metadata.Metadata[T]).FromBytes(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return m, nil
}

// parseRoot parses a root and checks that it is complete and signed by itself.
func parseRoot(b []byte) (*rootMeta, error) {
	m, err := parse[metadata.RootType](b)
	if err != nil {
		return nil, err
	}
	if err := checkRoot(m); err != nil {
		return nil, err
	}
	return m, verify(m, metadata.ROOT, m)
}

// checkRoot checks that a root is complete.
func checkRoot(m *rootMeta) error {
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		if m.Signed.Roles[role] == nil {
			return fmt.Errorf("%w: root without %s", ErrCorrupt, role)
		}
	}
	for _, k := range m.Signed.Keys {
		if k == nil {
			return fmt.Errorf("%w: root with an empty key", ErrCorrupt)
		}
	}
	if m.Signed.Type != metadata.ROOT || m.Signed.Version < 1 {
		return fmt.Errorf("%w: %q version %d is no root", ErrCorrupt, m.Signed.Type, m.Signed.Version)
	}
	return nil
}

// verify checks that the delegator's keys for role signed m.
func verify[T, U metadata.Roles](delegator *metadata.Metadata[T], role string, m *metadata.Metadata[U]) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}()
	if err := delegator.VerifyDelegate(role, m); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrSignature, role, err)
	}
	return nil
}

func isNotFound(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
