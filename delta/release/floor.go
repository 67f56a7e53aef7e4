package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"time"
)

// maxFloor bounds the file of the floors, in bytes.
const maxFloor = 256 << 10

// floors is what a device never goes below. It is kept in a file of its own, so
// that losing metadata does not lose it.
type floors struct {
	Root     int64                  `json:"root"`               // version
	Roles    map[string]roleFloor   `json:"roles,omitempty"`    // by TUF role
	Releases map[string]targetFloor `json:"releases,omitempty"` // by channel/type asked for
	Signed   int64                  `json:"signed,omitempty"`   // newest signed time, unix seconds
	Passed   int64                  `json:"passed,omitempty"`   // seconds that have passed here since Signed, at least, by a clock that is before it
	By       string                 `json:"by,omitempty"`       // keys that Signed and Passed rest on, see keysOf
	Polled   int64                  `json:"polled,omitempty"`   // when a newer root was last asked for, unix seconds
	Begin    string                 `json:"begin,omitempty"`    // digest of the root that trust began with, in hexadecimal; empty: not noted
}

// roleFloor binds while the role rests on the same keys.
type roleFloor struct {
	Version int64  `json:"v"`
	Keys    string `json:"k"`
}

// targetFloor is the newest manifest accepted.
type targetFloor struct {
	Sequence uint64 `json:"seq"`
	Name     string `json:"name"` // at the origin; holds the digest
	Keys     string `json:"k"`
}

func (f floors) clone() floors {
	f.Roles, f.Releases = maps.Clone(f.Roles), maps.Clone(f.Releases)
	if f.Roles == nil {
		f.Roles = map[string]roleFloor{}
	}
	if f.Releases == nil {
		f.Releases = map[string]targetFloor{}
	}
	return f
}

// allow refuses a version below the floor that was learnt under the same keys.
func (f floors) allow(role, keys string, version int64) error {
	if have, ok := f.Roles[role]; ok && have.Keys == keys && version < have.Version {
		return fmt.Errorf("%w: %s version %d, have accepted %d", ErrRollback, role, version, have.Version)
	}
	return nil
}

// raise never lowers a floor but when the keys are others.
func (f floors) raise(role, keys string, version int64) {
	if have, ok := f.Roles[role]; !ok || have.Keys != keys || have.Version < version {
		f.Roles[role] = roleFloor{version, keys}
	}
}

func (f floors) signed() time.Time {
	if f.Signed == 0 {
		return time.Time{}
	}
	return time.Unix(f.Signed, 0).UTC()
}

func (f *floors) advance(t time.Time) {
	if u := t.Unix(); !t.IsZero() && u > f.Signed {
		f.Signed, f.Passed = u, 0
	}
}

// rekey forgets the newest signed time, and what has passed since, if it rests on other keys:
// a stolen one may have signed a time that is far ahead.
func (f *floors) rekey(keys string) {
	if f.By != "" && f.By != keys {
		f.Signed, f.Passed = 0, 0
	}
	f.By = keys
}

// readFloors reads the file of the floors: a line with the digest of what follows,
// then JSON. Anything else gives empty floors, which are then raised to what the
// metadata at hand says.
func readFloors(dir string) floors {
	var f floors
	b, err := readFile(filepath.Join(dir, floorFile), maxFloor)
	if err != nil {
		return f.clone()
	}
	return parseFloors(b)
}

func parseFloors(b []byte) floors {
	var f floors
	line, body, _ := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(body)
	if string(line) != hex.EncodeToString(sum[:]) || json.Unmarshal(body, &f) != nil {
		return floors{}.clone()
	}
	return f.clone()
}

func (f floors) bytes() ([]byte, error) {
	body, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append([]byte(hex.EncodeToString(sum[:])+"\n"), body...), nil
}
