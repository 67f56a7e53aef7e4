package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"

	"updraft/delta/release"
)

// paths are the files of a data directory that the node itself keeps; releases
// belong to package install.
type paths struct{ data string }

// manifestsDir is where the manifests of releases are kept, by version.
const manifestsDir = "manifests"

// stateDirs are the directories of state. Each file there belongs to a release.
var stateDirs = []string{manifestsDir, "index", "listing", "patches", "scratch"}

func (p paths) state(sub string) string        { return filepath.Join(p.data, "state", sub) }
func (p paths) manifest(version string) string { return filepath.Join(p.state(manifestsDir), version) }
func (p paths) index(sum [32]byte) string {
	return filepath.Join(p.state("index"), fmt.Sprintf("%x", sum))
}
func (p paths) listing(sum [32]byte) string {
	return filepath.Join(p.state("listing"), fmt.Sprintf("%x", sum))
}
func (p paths) patch(sum [32]byte) string {
	return filepath.Join(p.state("patches"), fmt.Sprintf("%x", sum))
}
func (p paths) certificate() string { return filepath.Join(p.data, "certificate") }
func (p paths) scratch() string     { return p.state("scratch") }
func (p paths) make() error {
	for _, d := range stateDirs {
		if err := os.MkdirAll(p.state(d), 0o700); err != nil {
			return fmt.Errorf("node: make state directory: %w", err)
		}
	}
	return nil
}

// held is a release that is installed here.
type held struct {
	manifest *release.Manifest
	arts     []*assembly // one for each artifact that can serve; the same for those with the same bytes
}

// find returns the artifact with the digest, or nil.
func (h *held) find(sum [32]byte) *assembly {
	for _, a := range h.arts {
		if a.art.Sum == sum {
			return a
		}
	}
	return nil
}

// library is what this device holds complete: its installed releases, served
// from where they lie.
type library struct {
	paths paths
	reg   *registry
	log   *slog.Logger

	mu     sync.Mutex             // guards all below
	rel    map[string]*held       // by version
	bad    map[[32]byte]bool      // artifacts that failed as a base
	lookup map[[32]byte]placement // chunks of all artifacts; nil until asked for
}

type placement struct {
	p *page
	i int
}

func newLibrary(p paths, reg *registry, log *slog.Logger) *library {
	return &library{paths: p, reg: reg, log: log, rel: make(map[string]*held), bad: make(map[[32]byte]bool)}
}

// load opens the releases whose manifests are kept; dir tells where a version
// lies. One that cannot be opened is left out and reported by problem.
func (l *library) load(dir func(version string) string, problem func(error)) error {
	es, err := os.ReadDir(l.paths.state(manifestsDir))
	if err != nil {
		return fmt.Errorf("node: read manifests: %w", err)
	}
	for _, e := range es {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		m, _, err := l.read(e.Name())
		if err != nil {
			problem(err)
			continue
		}
		at := dir(m.Version)
		if _, err := os.Stat(at); errors.Is(err, fs.ErrNotExist) {
			continue // under way, not installed
		}
		h := &held{manifest: m}
		for i := range m.Artifacts {
			a := h.find(m.Artifacts[i].Sum)
			if a == nil {
				a, err = l.open(&m.Artifacts[i], at)
			}
			if err != nil {
				problem(fmt.Errorf("node: %s of release %s cannot serve: %w", m.Artifacts[i].Name, m.Version, err))
				continue
			}
			h.arts = append(h.arts, a)
		}
		l.mu.Lock()
		l.rel[m.Version] = h
		l.mu.Unlock()
	}
	return nil
}

// open makes a seed of an installed artifact.
func (l *library) open(art *release.Artifact, dir string) (*assembly, error) {
	if a := l.find(art.Sum); a != nil {
		return a, nil
	}
	st, err := openInstalled(dir, art, l.paths.listing(art.Sum))
	if err != nil {
		return nil, err
	}
	index, err := os.OpenFile(l.paths.index(art.Sum), os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("node: open chunk index: %w", err), st.Close())
	}
	a := newAssembly(art, l.reg, st, index)
	a.becomeSeed(l.lost)
	a.opened.Store(true)
	if err := a.start(false); err != nil {
		return nil, errors.Join(err, a.forget())
	}
	return a, nil
}

// add takes over the assemblies of a release that has just been installed at dir.
func (l *library) add(m *release.Manifest, arts []*assembly, dir string) error {
	l.mu.Lock()
	for _, a := range arts {
		delete(l.bad, a.art.Sum) // before anything is told of the new copies
	}
	l.mu.Unlock()
	var err error
	for _, a := range arts {
		if a.isSeed() { // shared with an earlier release, served from there
			continue
		}
		st, e := openInstalled(dir, a.art, l.paths.listing(a.art.Sum))
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		err = errors.Join(err, a.swap(st))
		a.becomeSeed(l.lost)
		a.rest()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rel[m.Version] = &held{m, arts}
	l.lookup = nil
	return err
}

// manifest returns the manifest of a held release and the digest of its bytes.
func (l *library) manifest(version string) (*release.Manifest, [32]byte) {
	l.mu.Lock()
	h := l.rel[version]
	l.mu.Unlock()
	if h == nil || len(h.arts) != len(h.manifest.Artifacts) {
		return nil, [32]byte{}
	}
	b, err := h.manifest.Encode()
	if err != nil {
		return nil, [32]byte{}
	}
	return h.manifest, sha256.Sum256(b)
}

// kept returns the manifest that lies here under a version and the digest of its bytes,
// whether or not the release can serve; nil if it cannot be read.
func (l *library) kept(version string) (*release.Manifest, [32]byte) {
	m, digest, err := l.read(version)
	if err != nil || m.Version != version {
		return nil, [32]byte{}
	}
	return m, digest
}

// read returns the manifest that lies here under a name and the digest of its bytes.
func (l *library) read(name string) (*release.Manifest, [32]byte, error) {
	b, err := os.ReadFile(l.paths.manifest(name))
	if err != nil {
		return nil, [32]byte{}, err
	}
	m, err := release.Decode(b)
	if err != nil {
		return nil, [32]byte{}, fmt.Errorf("node: kept manifest of %s: %w", name, err)
	}
	return m, sha256.Sum256(b), nil
}

// differs reports whether the release held under m's version has other contents than m.
func (l *library) differs(m *release.Manifest) bool {
	l.mu.Lock()
	h := l.rel[m.Version]
	l.mu.Unlock()
	return h != nil && !sameArtifacts(h.manifest, m)
}

// sameArtifacts reports whether two releases are the same bytes under the same names,
// in the same chunks, however they come.
func sameArtifacts(a, b *release.Manifest) bool {
	among := func(x release.Artifact) bool {
		return slices.ContainsFunc(b.Artifacts, func(y release.Artifact) bool {
			return x.Name == y.Name && x.Kind == y.Kind && x.Mode == y.Mode && x.Sum == y.Sum && x.Index == y.Index
		})
	}
	for _, x := range a.Artifacts {
		if !among(x) {
			return false
		}
	}
	return len(a.Artifacts) == len(b.Artifacts)
}

// restate has the release held under m's version, with the same artifacts, go by m,
// whose bytes are raw.
func (l *library) restate(m *release.Manifest, raw []byte) error {
	if err := l.keepManifest(m.Version, raw); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rel[m.Version].manifest = m
	return nil
}

// keepManifest writes the manifest of a release that is under way, or held.
func (l *library) keepManifest(version string, raw []byte) error {
	path := l.paths.manifest(version)
	if err := renameio.WriteFile(path, raw, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("node: keep manifest: %w", err)
	}
	return nil
}

// drop forgets a release; what only it had is closed and removed.
func (l *library) drop(version string, dirOf func(version string) string) error {
	l.mu.Lock()
	h := l.rel[version]
	delete(l.rel, version)
	l.lookup = nil
	var gone []*assembly
	if h != nil {
		for _, a := range h.arts {
			if other := l.holderLocked(a); other == "" {
				if !slices.Contains(gone, a) {
					gone = append(gone, a)
				}
			} else if st, err := openInstalled(dirOf(other), a.art, l.paths.listing(a.art.Sum)); err == nil {
				_ = a.swap(st) // the old stream's close: nothing was written
			}
		}
	}
	l.mu.Unlock()
	err := os.Remove(l.paths.manifest(version))
	for _, a := range gone {
		err = errors.Join(err, a.forget())
		if l.find(a.art.Sum) != nil { // the same artifact in a release that stays
			continue
		}
		err = errors.Join(err, os.Remove(l.paths.index(a.art.Sum)))
		if a.art.Kind == release.Tree {
			err = errors.Join(err, os.Remove(l.paths.listing(a.art.Sum)))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("node: forget release %s: %w", version, err)
	}
	return nil
}

func (l *library) holderLocked(a *assembly) string {
	for v, h := range l.rel {
		for _, b := range h.arts {
			if a == b {
				return v
			}
		}
	}
	return ""
}

func (l *library) lost(art *release.Artifact) {
	l.log.Warn("installed artifact has changed on disk", "artifact", art.Name)
	l.spoil(art.Sum)
}

// spoil marks an artifact as unfit to be a base.
func (l *library) spoil(sum [32]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad[sum] = true
}

// bases returns the digests of the artifacts that can serve as bases, in the order of the versions that have them: what
// this device says of itself changes only when something does.
func (l *library) bases() [][32]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out [][32]byte
	seen := make(map[[32]byte]bool)
	versions := make([]string, 0, len(l.rel))
	for v := range l.rel {
		versions = append(versions, v)
	}
	slices.Sort(versions)
	for _, v := range versions {
		for _, a := range l.rel[v].arts {
			if s := a.art.Sum; !l.bad[s] && !seen[s] && len(out) < maxBases {
				seen[s] = true
				out = append(out, s)
			}
		}
	}
	return out
}

// find returns the held artifact with the digest, or nil.
func (l *library) find(sum [32]byte) *assembly {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bad[sum] {
		return nil
	}
	for _, h := range l.rel {
		if a := h.find(sum); a != nil {
			return a
		}
	}
	return nil
}

// chunk returns the bytes of a chunk that some held release contains, checked
// against sum.
func (l *library) chunk(sum [32]byte, buf []byte) ([]byte, bool) {
	l.mu.Lock()
	if l.lookup == nil {
		l.lookup = make(map[[32]byte]placement)
		for _, h := range l.rel {
			for _, a := range h.arts {
				for _, p := range a.snapshot() {
					for i, c := range p.chunks {
						l.lookup[c.Sum] = placement{p, i}
					}
				}
			}
		}
	}
	at, ok := l.lookup[sum]
	l.mu.Unlock()
	if !ok {
		return nil, false
	}
	b, err := at.p.Get(at.i, buf)
	if err != nil || sha256.Sum256(b) != sum {
		return nil, false
	}
	return b, true
}

// forgetLookup frees the table of chunks.
func (l *library) forgetLookup() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lookup = nil
}

// close closes every seed.
func (l *library) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	done := make(map[*assembly]bool)
	for _, h := range l.rel {
		for _, a := range h.arts {
			if !done[a] {
				done[a] = true
				err = errors.Join(err, a.forget())
			}
		}
	}
	l.rel = make(map[string]*held)
	return err
}
