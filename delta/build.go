package delta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"updraft/delta/chunk"
	"updraft/delta/patch"
	"updraft/delta/release"
	"updraft/delta/tree"
)

// maxJobs bounds the goroutines that compress: each needs about 36 MiB.
const maxJobs = 8

// ErrInput reports inputs or options that make no release.
var ErrInput = errors.New("delta: cannot make a release of this")

// Input is something to publish.
type Input struct {
	Path string // a regular file or a directory; a link is followed
	Name string // of the artifact; empty: the last element of Path
}

// BuildOptions say what Build makes. Out, Channel and Version must be given.
type BuildOptions struct {
	Out      string   // staging directory; objects are written below it as an origin has them
	Origin   string   // existing origin directory with what Previous refers to; may be empty if there are none
	Channel  string   // see release.Manifest
	Version  string   // see release.Manifest
	Types    []string // see release.Manifest
	Sequence uint64   // see release.Manifest
	Created  int64    // seconds since 1970; the only time that enters the release
	// Previous are the earlier releases whose packs may be referred to, for which
	// patches are made, and whose patches make chains, newest first.
	Previous []*release.Manifest
	Deltas   int      // for how many of Previous patches are made, for each artifact
	Bases    []string // versions of Previous for which they are made besides
	// Full also makes a patch from the empty stream, which every device has, and
	// keeps it by the same rule: one compressed stream where chunks, each by
	// itself, cost a tenth to a fifth more.
	Full bool
	// Maker names the program, in a way that no program has in common with another that
	// may make other bytes. With it Out is this Build's alone, but for what a Build before
	// it, of whatever release, left there when it failed or was interrupted: chunks and
	// whole patches of that are used again, if they are whole, from the same bytes, by
	// the same options and maker; the rest is removed. Empty: nothing is used again.
	Maker    string
	Jobs     int            // goroutines that compress; 0: one for each CPU; at most 8; each takes about 36 MiB
	Scratch  string         // directory for bases and patches under work; empty: the system's
	Patch    patch.Options  // Jobs, Scratch, Progress and the listing offsets are set by Build
	Progress func(Progress) // called often, never concurrently; may be nil
}

// Stage says what Build is at.
type Stage string

// The stages of Build, for each artifact in turn.
const (
	StageChunks Stage = "chunks" // reading, cutting and compressing the input
	StageBase   Stage = "base"   // rebuilding an earlier version from its packs
	StagePatch  Stage = "patch"  // making the patch from it
)

// Progress is where Build stands.
type Progress struct {
	Stage       Stage
	Artifact    string
	Base        string      // version that a base or patch belongs to
	Done, Total int64       // bytes of this stage; Done equals Total once at its end
	Patch       *PatchStats // set at the end of StagePatch
}

// BuildStats say what Build did.
type BuildStats struct {
	Artifacts []ArtifactStats
	PackSize  int64 // bytes of the new pack; 0 when every chunk was there already
}

// ArtifactStats are the figures of one artifact.
type ArtifactStats struct {
	Name      string
	Size      int64 // bytes of the stream
	Chunks    int
	NewChunks int   // stored in the new pack
	Resumed   int   // of these, that an interrupted Build had stored
	NewBytes  int64 // their plain size
	Stored    int64 // their size in the pack
	Patches   []PatchStats
	Chains    []ChainStats // newest base first
}

// PatchStats are the figures of one patch.
type PatchStats struct {
	BaseVersion string
	Size        int64 // bytes of the patch
	Chunks      int64 // bytes in packs that a device with the base would need without it
	Kept        bool  // smaller than 90 % of Chunks
	Resumed     bool  // an interrupted Build had made it
}

// Build makes a release of the inputs: it writes packs, patches, index and maps
// below o.Out and returns the manifest, with the steps that make chains to it, to be
// signed and published by others. An error wraps ErrInput when inputs or options are to
// blame, and tree.ErrChanged besides when an input was written while it was read. Nothing
// is left outside o.Out; what is there after an error is of use to another Build with the
// same Maker only, which gives the same bytes as one without interruption.
func Build(ctx context.Context, in []Input, o BuildOptions) (*release.Manifest, BuildStats, error) {
	b := &builder{o: o, sources: make([]*input, 0, len(in)), own: map[[32]byte]bool{}}
	defer b.close()
	if err := b.setup(in); err != nil {
		return nil, b.stats, err
	}
	if err := b.chunks(ctx); err != nil {
		return nil, b.stats, err
	}
	for _, src := range b.sources { // what is written there from now on, patches notice
		if err := src.unchanged(); err != nil {
			return nil, b.stats, fmt.Errorf("%w: %w", ErrInput, err)
		}
	}
	if err := b.sweep(); err != nil {
		return nil, b.stats, err
	}
	if err := b.tables(); err != nil {
		return nil, b.stats, err
	}
	for i := range b.sources {
		if err := b.patches(ctx, i); err != nil {
			return nil, b.stats, err
		}
		if err := b.chains(i); err != nil {
			return nil, b.stats, err
		}
	}
	// Whoever reads the manifest validates it: better to fail here.
	if _, err := b.m.Encode(); err != nil {
		return nil, b.stats, fmt.Errorf("%w: %w", ErrInput, err)
	}
	return b.m, b.stats, nil
}

// builder is one run of Build.
type builder struct {
	o       BuildOptions
	m       *release.Manifest
	stats   BuildStats
	sources []*input // by artifact
	known   *known
	earlier []release.Step    // see earlierSteps; nil: not looked for yet
	scratch string            // own directory, removed at the end
	own     map[[32]byte]bool // keys of the patches that it has noted itself

	progress sync.Mutex // held during o.Progress
}

// input is an artifact on its way into the release.
type input struct {
	Stream
	name    string
	path    string
	kind    release.Kind
	mode    uint32 // of a file
	listing int64  // bytes of the listing, 0 for a file
	chunks  []chunk.Chunk

	unchanged func() error // fails if it is no longer as it was when it was opened
}

func (b *builder) setup(in []Input) error {
	o := &b.o
	if len(in) == 0 || o.Out == "" {
		return fmt.Errorf("%w: no input or no staging directory", ErrInput)
	}
	if o.Maker != "" && filepath.Clean(o.Out) == filepath.Clean(o.Origin) {
		return fmt.Errorf("%w: the staging directory is the origin", ErrInput)
	}
	o.Deltas = min(o.Deltas, release.MaxPatches)
	if o.Jobs <= 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	o.Jobs = min(o.Jobs, maxJobs)
	b.m = &release.Manifest{Format: release.Format, Channel: o.Channel, Version: o.Version, Sequence: o.Sequence,
		Types: o.Types, Created: o.Created}
	if err := probe(*b.m, in); err != nil {
		return err
	}
	for _, i := range in {
		src, err := openInput(i)
		if err != nil {
			return err
		}
		b.sources = append(b.sources, src)
		b.m.Artifacts = append(b.m.Artifacts, release.Artifact{Name: src.name, Kind: src.kind, Mode: src.mode,
			Size: src.Size(), ListingSize: src.listing})
		b.stats.Artifacts = append(b.stats.Artifacts, ArtifactStats{Name: src.name, Size: src.Size()})
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	var err error
	if b.scratch, err = os.MkdirTemp(o.Scratch, "updraft-build-"); err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	b.known, err = readKnown(o.Origin, o.Previous)
	return err
}

// probe finds out early what the manifest would be refused for at the end: it
// validates m with empty artifacts of the same names.
func probe(m release.Manifest, in []Input) error {
	for _, i := range in {
		m.Artifacts = append(m.Artifacts, release.Artifact{Name: i.artifact(), Kind: release.File, Index: sha256.Sum256(nil)})
	}
	if err := m.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	return nil
}

// artifact returns the name of the artifact that i becomes.
func (i Input) artifact() string {
	if i.Name != "" {
		return i.Name
	}
	path, err := filepath.Abs(i.Path)
	if err != nil {
		path = i.Path
	}
	return filepath.Base(path)
}

func (b *builder) close() {
	for _, s := range b.sources {
		s.Close()
	}
	if b.scratch != "" {
		os.RemoveAll(b.scratch)
	}
}

func (b *builder) report(p Progress) {
	if b.o.Progress == nil {
		return
	}
	b.progress.Lock()
	defer b.progress.Unlock()
	b.o.Progress(p)
}

// openInput opens a file or a directory as a stream.
func openInput(in Input) (*input, error) {
	path, err := filepath.Abs(in.Path)
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	i := &input{name: in.artifact(), path: path}
	switch {
	case st.IsDir():
		return i, i.openTree()
	case st.Mode().IsRegular():
		f, err := tree.OpenFile(path)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInput, err)
		}
		i.kind, i.mode, i.Stream, i.unchanged = release.File, unixMode(f.Info().Mode()), f, f.Unchanged
		return i, nil
	}
	return nil, fmt.Errorf("%w: %s is neither a file nor a directory", ErrInput, path)
}

func (i *input) openTree() error {
	l, err := tree.Walk(i.path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	r, err := tree.Open(i.path, l)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	i.kind, i.Stream, i.listing = release.Tree, r, r.ListingSize()
	i.unchanged = func() error { return l.Unchanged(i.path) }
	return nil
}

// unixMode returns permissions with setuid, setgid and sticky as Unix has them.
func unixMode(m os.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, unix := range map[os.FileMode]uint32{os.ModeSetuid: 0o4000, os.ModeSetgid: 0o2000, os.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= unix
		}
	}
	return mode
}
