package release

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// MaxBundle is the size limit of a bundle, in bytes: what comes in two or three round
// trips of a new connection.
const MaxBundle = 64 << 10

const maxBundleFiles = 64

// bundleFile is one file of a bundle, by its name at the origin.
type bundleFile struct {
	_    struct{} `cbor:",toarray"`
	Name string
	Data []byte
}

// BundleName is where the bundle of a channel lies at the origin.
func BundleName(channel string) string {
	return metadataDir + "/" + roleName(channel) + ".bundle"
}

// encodeBundle returns the bundle of files.
func encodeBundle(files map[string][]byte) ([]byte, error) {
	list := make([]bundleFile, 0, len(files))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, bundleFile{Name: name, Data: files[name]})
	}
	return encoding.Marshal(list)
}

// parseBundle returns the files of a bundle by name. Names are those of metadata and
// manifests, ascending. What is in the files is not looked at.
func parseBundle(b []byte) (map[string][]byte, error) {
	if len(b) > MaxBundle {
		return nil, fmt.Errorf("%w: bundle of %d bytes", ErrTooLarge, len(b))
	}
	var list []bundleFile
	if err := decoding.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%w: bundle: %w", ErrCorrupt, err)
	}
	if len(list) > maxBundleFiles || !slices.IsSortedFunc(list, func(a, b bundleFile) int { return cmp.Compare(a.Name, b.Name) }) {
		return nil, fmt.Errorf("%w: bundle of %d files", ErrCorrupt, len(list))
	}
	files := make(map[string][]byte, len(list))
	for _, f := range list {
		_, _, meta := splitMeta(f.Name)
		_, manifest := splitManifest(f.Name)
		if !meta && !manifest && f.Name != TimestampName {
			return nil, fmt.Errorf("%w: %.80q in a bundle", ErrCorrupt, f.Name)
		}
		files[f.Name] = f.Data
	}
	if again, err := encodeBundle(files); err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: bundle in another encoding", ErrCorrupt)
	}
	return files, nil
}

// Bundled is a fetcher that takes what it can from a bundle, so that a look at an
// origin that is far away takes one round trip instead of one for each file. It is safe
// for concurrent use.
//
// A bundle says nothing by itself. The timestamp is always fetched as such, and a
// bundle with another one is not used; what is used of it is verified like anything
// that a fetcher returns. So the worst that a bundle can do is to make Refresh or
// Release fail; Used tells whether the same is worth trying without it.
type Bundled struct {
	load func(ctx context.Context) ([]byte, error)
	rest Fetcher

	mu        sync.Mutex // guards all below
	timestamp []byte
	files     map[string][]byte // nil: not loaded, or of no use
	loaded    bool
	used      bool
}

// NewBundled returns a fetcher that asks rest for the timestamp, for what the bundle
// lacks, and for everything when load fails or returns no bundle of that timestamp.
// load is called once, when something else than the timestamp is asked for.
func NewBundled(load func(ctx context.Context) ([]byte, error), rest Fetcher) *Bundled {
	return &Bundled{load: load, rest: rest}
}

// Fetch is a Fetcher.
func (b *Bundled) Fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	if name == TimestampName {
		data, err := b.rest(ctx, name, limit)
		b.mu.Lock()
		defer b.mu.Unlock()
		if !bytes.Equal(data, b.timestamp) {
			b.timestamp = bytes.Clone(data)
		}
		return data, err
	}
	if data := b.find(ctx, name, limit); data != nil {
		return data, nil
	}
	return b.rest(ctx, name, limit)
}

// find returns a file of the bundle, or nil.
func (b *Bundled) find(ctx context.Context, name string, limit int64) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.loaded {
		b.loaded = true
		if raw, err := b.load(ctx); err == nil {
			b.files, _ = parseBundle(raw) // one that cannot be read is like none
		}
	}
	data, ok := b.files[name]
	if !ok || int64(len(data)) > limit || !bytes.Equal(b.files[TimestampName], b.timestamp) {
		return nil
	}
	b.used = true
	return bytes.Clone(data)
}

// Used reports whether anything came from the bundle.
func (b *Bundled) Used() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// writeBundles puts what devices fetch for each channel into one file beside the
// others. It comes after the timestamp: until then, and if it cannot be written, the
// bundle of before is of another timestamp, which devices see.
func (r *Repo) writeBundles() {
	common := []string{TimestampName}
	for v := max(2, r.root.Signed.Version-kept+1); v <= r.root.Signed.Version; v++ {
		common = append(common, metaName(metadata.ROOT, v))
	}
	common = append(common, metaName(metadata.SNAPSHOT, r.snapshot.Signed.Version), metaName(metadata.TARGETS, r.targets.Signed.Version))
	if m := r.channels[revokedRole]; m != nil {
		common = append(common, roleFiles(revokedRole, m)...)
	}
	for role, m := range r.channels {
		if role == revokedRole {
			continue
		}
		path := filepath.Join(r.dir, filepath.FromSlash(BundleName(channelOf(role))))
		b, err := r.bundle(append(slices.Clone(common), roleFiles(role, m)...))
		if err == nil {
			err = writeFile(path, b, 0o644)
		}
		if err != nil {
			_ = os.Remove(path) // devices fetch file by file
		}
	}
}

// roleFiles are the files of a channel: its metadata, then its manifests.
func roleFiles(role string, m *targetsMeta) []string {
	list := []string{metaName(role, m.Signed.Version)}
	for target, info := range m.Signed.Targets {
		list = append(list, manifestName(target, info.Hashes["sha256"]))
	}
	slices.Sort(list[1:])
	return list
}

// bundle reads the files, as far as they fit.
func (r *Repo) bundle(names []string) ([]byte, error) {
	files := make(map[string][]byte)
	left := MaxBundle - 16
	for _, name := range names {
		b, err := r.read(name, int64(MaxBundle))
		if err != nil {
			continue // too large, or gone
		}
		if need := len(b) + len(name) + 16; need <= left && len(files) < maxBundleFiles {
			files[name] = b
			left -= need
		}
	}
	return encodeBundle(files)
}
