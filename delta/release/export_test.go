package release

import "github.com/theupdateframework/go-tuf/v2/metadata"

// SetStep makes the repository call fn with the name of each file it is about to
// write; an error from fn stops it there, as a crash would.
func (r *Repo) SetStep(fn func(name string) error) { r.step = fn }

// ParseFloors is the decoder of the floors' file.
func ParseFloors(b []byte) { parseFloors(b).clone() }

// ParseAll gives b to every decoder of metadata.
func ParseAll(b []byte) {
	_, _ = parseRoot(b)
	_, _ = parse[metadata.TimestampType](b)
	_, _ = parse[metadata.SnapshotType](b)
	_, _ = parse[metadata.TargetsType](b)
	splitMeta(string(b))
	splitManifest(string(b))
}
