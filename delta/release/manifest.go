package release

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Format is the manifest format this package writes and reads.
const Format = 1

// Limits of a manifest.
const (
	MaxManifest  = 4 << 20         // bytes of an encoded manifest
	MaxArtifact  = int64(1) << 40  // bytes of an artifact, a pack or a patch
	MaxListing   = int64(64) << 20 // bytes of a tree's listing, which is read as a whole
	MaxArtifacts = 256
	MaxTypes     = 64
	MaxPages     = 1 << 16 // pages of one artifact's index
	MaxPatches   = 64      // patches of one artifact
	MaxPacks     = 4096
	MaxBlocks    = 1 << 16 // blocks of one patch
	MaxBlock     = 1 << 20 // bytes of a block
	PageLen      = 256     // records in every page but the last
	MaxChunk     = 1 << 20 // bytes of a chunk
)

var (
	// ErrManifest reports bytes that are not a manifest, or a manifest outside its
	// limits.
	ErrManifest = errors.New("release: malformed manifest")
	// ErrFormat reports a manifest of a later format: the agent is too old for it.
	ErrFormat = errors.New("release: manifest format is newer than this program")
	// ErrName reports a name that may not be used.
	ErrName = errors.New("release: unusable name")
)

// Kind says what an artifact is.
type Kind string

// The kinds of artifact: one file (or image), or a directory tree as a stream.
const (
	File Kind = "file"
	Tree Kind = "tree"
)

// Manifest describes one version on one channel.
type Manifest struct {
	Format    int      // 1
	Channel   string   // see CheckChannel
	Version   string   // see CheckVersion
	Sequence  uint64   // from 1; orders the releases of a channel
	Types     []string // device types it fits, without repetition; empty: any. Encode sorts them
	Created   int64    // unix seconds
	Artifacts []Artifact
	Packs     []Pack

	// Steps are patches between earlier artifacts, from which Ways makes chains. They are
	// no part of the manifest's bytes: Encode leaves them out, Decode leaves them empty. The
	// channel signs them beside the manifest; Release, Known and Current fill them in.
	Steps []Step
}

// Artifact is one byte stream with a name.
type Artifact struct {
	Name        string // of the file or directory; one path element
	Kind        Kind
	Mode        uint32 // permission bits of a file, 0 to 07777; 0 for a tree
	Size        int64  // bytes of the stream
	ListingSize int64  // bytes of a tree's listing, with which its stream begins; 0 for a file
	Sum         [32]byte
	Index       [32]byte   // sha2-256 of all pages, one after the other
	Pages       [][32]byte // sha2-256 of each page; none for an empty stream
	LastPage    int        // records in the last page, 1 to PageLen; 0 without pages
	Map         [32]byte   // sha2-256 of the pack map
	MapSize     int64      // bytes
	Patches     []Patch
}

// Patch is a delta from an earlier artifact to this one.
type Patch struct {
	Base        [32]byte // sha2-256 of the whole base stream
	BaseVersion string
	Sum         [32]byte
	Size        int64      // bytes, at least 1
	BlockSize   int        // bytes of each block but the last
	Blocks      [][32]byte // sha2-256 of each block; nil when there is one: its sum is Sum
	Profile     string     // how it was made; at most 32 bytes
	Memory      int64      // bytes the decoder needs
	Work        int64      // decoder work, in bytes it has to produce or read
}

// Pack is an object of concatenated chunks at the origin.
type Pack struct {
	Sum  [32]byte
	Size int64
}

// Fits reports whether the release may be installed on a device of type typ.
func (m *Manifest) Fits(typ string) bool {
	return len(m.Types) == 0 || slices.Contains(m.Types, typ)
}

// Chunks is the number of chunks of the artifact.
func (a *Artifact) Chunks() int64 {
	if len(a.Pages) == 0 {
		return 0
	}
	return int64(len(a.Pages)-1)*PageLen + int64(a.LastPage)
}

// BlockCount is the number of blocks of the patch.
func (p *Patch) BlockCount() int {
	if len(p.Blocks) == 0 {
		return 1
	}
	return len(p.Blocks)
}

// Validate reports the first thing in m that is outside the limits.
func (m *Manifest) Validate() error {
	if m.Format > Format {
		return fmt.Errorf("%w: %d", ErrFormat, m.Format)
	}
	if m.Format != Format {
		return fmt.Errorf("%w: format %d", ErrManifest, m.Format)
	}
	if err := errors.Join(CheckChannel(m.Channel), CheckVersion(m.Version)); err != nil {
		return fmt.Errorf("%w: %w", ErrManifest, err)
	}
	switch {
	case m.Sequence < 1 || m.Sequence > 1<<62:
		return fmt.Errorf("%w: sequence %d", ErrManifest, m.Sequence)
	case m.Created < 0 || m.Created > 1<<40:
		return fmt.Errorf("%w: created %d", ErrManifest, m.Created)
	case len(m.Types) > MaxTypes, len(m.Packs) > MaxPacks:
		return fmt.Errorf("%w: %d types, %d packs", ErrManifest, len(m.Types), len(m.Packs))
	case len(m.Artifacts) < 1 || len(m.Artifacts) > MaxArtifacts:
		return fmt.Errorf("%w: %d artifacts", ErrManifest, len(m.Artifacts))
	}
	return m.validateParts()
}

func (m *Manifest) validateParts() error {
	types := slices.Clone(m.Types)
	sort.Strings(types)
	for i, t := range types {
		if err := CheckType(t); err != nil {
			return fmt.Errorf("%w: %w", ErrManifest, err)
		}
		if i > 0 && types[i-1] == t {
			return fmt.Errorf("%w: type %q twice", ErrManifest, t)
		}
	}
	packs := make(map[[32]byte]bool, len(m.Packs))
	for i, p := range m.Packs {
		if p.Size < 1 || p.Size > MaxArtifact || packs[p.Sum] {
			return fmt.Errorf("%w: pack %d of %d bytes", ErrManifest, i, p.Size)
		}
		packs[p.Sum] = true
	}
	names := make(map[string]bool, len(m.Artifacts))
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		if names[a.Name] {
			return fmt.Errorf("%w: artifact %q twice", ErrManifest, a.Name)
		}
		names[a.Name] = true
		if err := a.validate(); err != nil {
			return fmt.Errorf("%w: artifact %d: %w", ErrManifest, i, err)
		}
	}
	return nil
}

func (a *Artifact) validate() error {
	if err := checkFile(a.Name); err != nil {
		return err
	}
	switch {
	case a.Kind != File && a.Kind != Tree:
		return fmt.Errorf("kind %.20q", a.Kind)
	case a.Mode > 0o7777, a.Kind == Tree && a.Mode != 0:
		return fmt.Errorf("mode %o", a.Mode)
	case a.Size < 0 || a.Size > MaxArtifact:
		return fmt.Errorf("size %d", a.Size)
	case a.Kind == File && a.ListingSize != 0, a.Kind == Tree && (a.ListingSize < 1 || a.ListingSize > min(a.Size, MaxListing)):
		return fmt.Errorf("listing of %d bytes in %d", a.ListingSize, a.Size)
	case len(a.Pages) > MaxPages, len(a.Patches) > MaxPatches:
		return fmt.Errorf("%d pages, %d patches", len(a.Pages), len(a.Patches))
	case len(a.Pages) == 0 && (a.LastPage != 0 || a.Index != sha256.Sum256(nil)):
		return errors.New("index of an empty stream")
	case len(a.Pages) > 0 && (a.LastPage < 1 || a.LastPage > PageLen):
		return fmt.Errorf("%d records in the last page", a.LastPage)
	case len(a.Pages) == 1 && a.Index != a.Pages[0]:
		return errors.New("index differs from its only page")
	case a.Size < a.Chunks() || a.Size > a.Chunks()*MaxChunk:
		return fmt.Errorf("%d bytes in %d chunks", a.Size, a.Chunks())
	case a.MapSize < 0 || a.MapSize > 64<<20 || a.MapSize == 0 && a.Size > 0:
		return fmt.Errorf("pack map of %d bytes", a.MapSize)
	}
	for i := range a.Patches {
		if err := a.Patches[i].validate(a.Sum); err != nil {
			return fmt.Errorf("patch %d: %w", i, err)
		}
	}
	return nil
}

func (p *Patch) validate(target [32]byte) error {
	if err := CheckVersion(p.BaseVersion); err != nil {
		return err
	}
	if p.Base == target {
		return errors.New("from the artifact to itself")
	}
	if p.Size < 1 || p.Size > MaxArtifact || p.BlockSize < 1 || p.BlockSize > MaxBlock {
		return fmt.Errorf("%d bytes in blocks of %d", p.Size, p.BlockSize)
	}
	blocks := (p.Size + int64(p.BlockSize) - 1) / int64(p.BlockSize)
	if blocks > MaxBlocks || blocks != int64(p.BlockCount()) || len(p.Blocks) == 1 {
		return fmt.Errorf("%d bytes in %d blocks of %d", p.Size, len(p.Blocks), p.BlockSize)
	}
	if len(p.Profile) > 32 || p.Profile != "" && !plain(p.Profile, "._-", false) {
		return fmt.Errorf("profile %.40q", p.Profile)
	}
	if p.Memory < 0 || p.Work < 0 {
		return fmt.Errorf("memory %d, work %d", p.Memory, p.Work)
	}
	return nil
}
