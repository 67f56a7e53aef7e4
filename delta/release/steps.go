package release

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"

	"github.com/fxamacker/cbor/v2"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Limits of the steps of a release.
const (
	MaxSteps     = 64       // of all its artifacts
	MaxStepBytes = 16 << 10 // encoded: every site gets them with the channel's metadata
)

// ErrSteps reports steps that are outside their limits, or bytes that are no steps.
var ErrSteps = errors.New("release: malformed steps")

// stepsVersion begins the encoding. A program that does not know the number goes
// without steps, as one does that knows of none.
const stepsVersion = 1

// fieldSteps is our own signed field of a channel's metadata: the steps of each release
// on offer, by the digest of its manifest. They are no part of the manifest, which has
// no room for fields that a device may ignore.
const fieldSteps = "steps"

type stepsWire struct {
	_       struct{} `cbor:",toarray"`
	Version int
	Steps   []stepWire
}

type stepWire struct {
	_           struct{} `cbor:",toarray"`
	Base        []byte
	BaseVersion string
	Target      []byte
	TargetSize  int64
	Sum         []byte
	Size        int64
	BlockSize   int
	Blocks      []byte
	Profile     string
	Memory      int64
	Work        int64
}

// EncodeSteps returns the bytes of steps, in their order. It fails with ErrSteps when
// they are outside the limits.
func EncodeSteps(steps []Step) ([]byte, error) {
	if err := validateSteps(steps); err != nil {
		return nil, err
	}
	w := stepsWire{Version: stepsVersion, Steps: make([]stepWire, len(steps))}
	for i := range steps {
		s := &steps[i]
		w.Steps[i] = stepWire{Base: s.Base[:], BaseVersion: s.BaseVersion, Target: s.Target[:], TargetSize: s.TargetSize,
			Sum: s.Sum[:], Size: s.Size, BlockSize: s.BlockSize, Blocks: append([]byte{}, join(s.Blocks)...), Profile: s.Profile, Memory: s.Memory, Work: s.Work}
	}
	b, err := encoding.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSteps, err)
	}
	if len(b) > MaxStepBytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrSteps, len(b))
	}
	return b, nil
}

// DecodeSteps undoes EncodeSteps and validates all of it. Errors wrap ErrSteps.
func DecodeSteps(b []byte) ([]Step, error) {
	if len(b) > MaxStepBytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrSteps, len(b))
	}
	var head []cbor.RawMessage
	if err := decoding.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSteps, err)
	}
	var version int
	if len(head) == 0 || decoding.Unmarshal(head[0], &version) != nil || version != stepsVersion {
		return nil, fmt.Errorf("%w: version %d", ErrSteps, version)
	}
	var w stepsWire
	if err := decoding.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSteps, err)
	}
	steps := make([]Step, len(w.Steps))
	d := digests{}
	for i, s := range w.Steps {
		steps[i] = Step{Target: d.one(s.Target), TargetSize: s.TargetSize, Patch: Patch{Base: d.one(s.Base), BaseVersion: s.BaseVersion,
			Sum: d.one(s.Sum), Size: s.Size, BlockSize: s.BlockSize, Blocks: d.row(s.Blocks), Profile: s.Profile, Memory: s.Memory, Work: s.Work}}
	}
	if d.bad {
		return nil, fmt.Errorf("%w: digest of a wrong length", ErrSteps)
	}
	return steps, validateSteps(steps)
}

// validateSteps reports the first thing that is outside the limits. Steps may lead
// nowhere or in circles: Ways follows none that does.
func validateSteps(steps []Step) error {
	if len(steps) > MaxSteps {
		return fmt.Errorf("%w: %d of them", ErrSteps, len(steps))
	}
	seen := make(map[[32]byte]bool, len(steps))
	for i := range steps {
		s := &steps[i]
		if err := s.validate(s.Target); err != nil {
			return fmt.Errorf("%w: step %d: %w", ErrSteps, i, err)
		}
		if s.TargetSize < 0 || s.TargetSize > MaxArtifact {
			return fmt.Errorf("%w: step %d makes %d bytes", ErrSteps, i, s.TargetSize)
		}
		if seen[s.Sum] {
			return fmt.Errorf("%w: step %d is there twice", ErrSteps, i)
		}
		seen[s.Sum] = true
	}
	return nil
}

// stepsOf returns the steps that a channel's metadata has for a manifest. What cannot
// be read is like none: the release is whole without.
func stepsOf(m *targetsMeta, manifest [32]byte) []Step {
	if m == nil {
		return nil
	}
	all, _ := m.Signed.UnrecognizedFields[fieldSteps].(map[string]any)
	text, _ := all[hex.EncodeToString(manifest[:])].(string)
	if text == "" || len(text) > base64.StdEncoding.EncodedLen(MaxStepBytes) {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	steps, err := DecodeSteps(b)
	if err != nil {
		return nil
	}
	return steps
}

// setSteps gives next the steps of manifest, and those that old has for what next
// offers as well; old may be nil.
func setSteps(next, old *targetsMeta, manifest [32]byte, steps []Step) error {
	all := make(map[string]any)
	if old != nil {
		before, _ := old.Signed.UnrecognizedFields[fieldSteps].(map[string]any)
		for _, info := range next.Signed.Targets {
			if text, ok := before[info.Hashes["sha256"].String()]; ok {
				all[info.Hashes["sha256"].String()] = text
			}
		}
	}
	if len(steps) > 0 {
		b, err := EncodeSteps(steps)
		if err != nil {
			return err
		}
		all[hex.EncodeToString(manifest[:])] = base64.StdEncoding.EncodeToString(b)
	}
	fields := maps.Clone(next.Signed.UnrecognizedFields)
	if delete(fields, fieldSteps); len(all) > 0 {
		if fields == nil {
			fields = make(map[string]any)
		}
		fields[fieldSteps] = all
	}
	next.Signed.UnrecognizedFields = fields
	return nil
}

// heldSteps is stepsOf for a channel's metadata as it is kept.
func (h *held) heldSteps(role string, manifest [32]byte) []Step {
	m, err := parse[metadata.TargetsType](h.raw[role])
	if err != nil {
		return nil
	}
	return stepsOf(m, manifest)
}
