package release

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"sort"

	"github.com/fxamacker/cbor/v2"
)

// The encoded forms. Digests in a row are one byte string; what can be computed
// is left out: the index digest of an artifact with at most one page, the blocks
// of a patch that has one.
type manifestWire struct {
	Format    int            `cbor:"1,keyasint"`
	Channel   string         `cbor:"2,keyasint"`
	Version   string         `cbor:"3,keyasint"`
	Sequence  uint64         `cbor:"4,keyasint"`
	Types     []string       `cbor:"5,keyasint,omitempty"`
	Created   int64          `cbor:"6,keyasint"`
	Artifacts []artifactWire `cbor:"7,keyasint"`
	Packs     []packWire     `cbor:"8,keyasint,omitempty"`
}

type artifactWire struct {
	Name        string      `cbor:"1,keyasint"`
	Kind        Kind        `cbor:"2,keyasint"`
	Mode        uint32      `cbor:"3,keyasint,omitempty"`
	Size        int64       `cbor:"4,keyasint"`
	ListingSize int64       `cbor:"5,keyasint,omitempty"`
	Sum         []byte      `cbor:"6,keyasint"`
	Index       []byte      `cbor:"7,keyasint,omitempty"`
	Pages       []byte      `cbor:"8,keyasint,omitempty"`
	LastPage    int         `cbor:"9,keyasint,omitempty"`
	Map         []byte      `cbor:"10,keyasint"`
	MapSize     int64       `cbor:"11,keyasint"`
	Patches     []patchWire `cbor:"12,keyasint,omitempty"`
}

type patchWire struct {
	Base        []byte `cbor:"1,keyasint"`
	BaseVersion string `cbor:"2,keyasint"`
	Sum         []byte `cbor:"3,keyasint"`
	Size        int64  `cbor:"4,keyasint"`
	BlockSize   int    `cbor:"5,keyasint"`
	Blocks      []byte `cbor:"6,keyasint,omitempty"`
	Profile     string `cbor:"7,keyasint,omitempty"`
	Memory      int64  `cbor:"8,keyasint,omitempty"`
	Work        int64  `cbor:"9,keyasint,omitempty"`
}

type packWire struct {
	_    struct{} `cbor:",toarray"`
	Sum  []byte
	Size int64
}

// encoding and decoding are the strict modes: deterministic output; no
// duplicates, tags, indefinite lengths or unknown keys in input.
var (
	encoding = must(cbor.CoreDetEncOptions().EncMode())
	decoding = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   8,
		MaxArrayElements:  MaxPacks,
		MaxMapPairs:       16,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options above are constant
	}
	return v
}

// Encode returns the canonical bytes of m. It fails with ErrManifest when m is
// outside the limits.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	w := manifestWire{Format: m.Format, Channel: m.Channel, Version: m.Version, Sequence: m.Sequence,
		Types: slices.Clone(m.Types), Created: m.Created}
	sort.Strings(w.Types)
	for i := range m.Artifacts {
		w.Artifacts = append(w.Artifacts, m.Artifacts[i].wire())
	}
	for _, p := range m.Packs {
		w.Packs = append(w.Packs, packWire{Sum: p.Sum[:], Size: p.Size})
	}
	b, err := encoding.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("%w: %d bytes", ErrManifest, len(b))
	}
	return b, nil
}

func (a *Artifact) wire() artifactWire {
	w := artifactWire{Name: a.Name, Kind: a.Kind, Mode: a.Mode, Size: a.Size, ListingSize: a.ListingSize,
		Sum: a.Sum[:], Pages: join(a.Pages), LastPage: a.LastPage, Map: a.Map[:], MapSize: a.MapSize}
	if len(a.Pages) > 1 {
		w.Index = a.Index[:]
	}
	for i := range a.Patches {
		p := &a.Patches[i]
		w.Patches = append(w.Patches, patchWire{Base: p.Base[:], BaseVersion: p.BaseVersion, Sum: p.Sum[:], Size: p.Size,
			BlockSize: p.BlockSize, Blocks: join(p.Blocks), Profile: p.Profile, Memory: p.Memory, Work: p.Work})
	}
	return w
}

// Decode parses a manifest of at most MaxManifest bytes and validates all of it.
// Only the bytes that Encode would write are accepted. Errors wrap ErrManifest or
// ErrFormat.
func Decode(b []byte) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("%w: %d bytes", ErrManifest, len(b))
	}
	if err := decodableFormat(b); err != nil {
		return nil, err
	}
	var w manifestWire
	if err := decoding.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	m, err := w.manifest()
	if err != nil {
		return nil, err
	}
	again, err := m.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: not the canonical encoding", ErrManifest)
	}
	return m, nil
}

// decodableFormat looks at the format alone, so that a later one is called by its
// name although its keys are unknown. Format is the first key: the map's head is
// one byte, then key 1, then the number.
func decodableFormat(b []byte) error {
	if len(b) < 3 || b[0]>>5 != 5 || b[1] != 1 {
		return fmt.Errorf("%w: no format", ErrManifest)
	}
	if b[2] != Format {
		if b[2] > Format && b[2] < 24 {
			return fmt.Errorf("%w: %d", ErrFormat, b[2])
		}
		return fmt.Errorf("%w: format", ErrManifest)
	}
	return nil
}

func (w *manifestWire) manifest() (*Manifest, error) {
	m := &Manifest{Format: w.Format, Channel: w.Channel, Version: w.Version, Sequence: w.Sequence,
		Types: w.Types, Created: w.Created}
	d := digests{}
	for i := range w.Artifacts {
		m.Artifacts = append(m.Artifacts, w.Artifacts[i].artifact(&d))
	}
	for _, p := range w.Packs {
		m.Packs = append(m.Packs, Pack{Sum: d.one(p.Sum), Size: p.Size})
	}
	if d.bad {
		return nil, fmt.Errorf("%w: digest of a wrong length", ErrManifest)
	}
	return m, nil
}

func (w *artifactWire) artifact(d *digests) Artifact {
	a := Artifact{Name: w.Name, Kind: w.Kind, Mode: w.Mode, Size: w.Size, ListingSize: w.ListingSize,
		Sum: d.one(w.Sum), Pages: d.row(w.Pages), LastPage: w.LastPage, Map: d.one(w.Map), MapSize: w.MapSize}
	switch len(a.Pages) {
	case 0:
		a.Index = sha256.Sum256(nil)
	case 1:
		a.Index = a.Pages[0]
	default:
		a.Index = d.one(w.Index)
	}
	for _, p := range w.Patches {
		a.Patches = append(a.Patches, Patch{Base: d.one(p.Base), BaseVersion: p.BaseVersion, Sum: d.one(p.Sum), Size: p.Size,
			BlockSize: p.BlockSize, Blocks: d.row(p.Blocks), Profile: p.Profile, Memory: p.Memory, Work: p.Work})
	}
	return a
}

// digests turns byte strings into digests and remembers a wrong length.
type digests struct{ bad bool }

func (d *digests) one(b []byte) (sum [32]byte) {
	d.bad = d.bad || len(b) != len(sum)
	copy(sum[:], b)
	return sum
}

func (d *digests) row(b []byte) [][32]byte {
	if len(b)%32 != 0 {
		d.bad = true
		return nil
	}
	var row [][32]byte
	for ; len(b) > 0; b = b[32:] {
		row = append(row, [32]byte(b))
	}
	return row
}

func join(row [][32]byte) []byte {
	var b []byte
	for i := range row {
		b = append(b, row[i][:]...)
	}
	return b
}
