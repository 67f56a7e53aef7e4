package node

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Limits of a profile that comes from a member.
const (
	profileVersion = 1
	maxBases       = 256
	maxPlan        = 256
	maxFailed      = 64
	maxShort       = 256      // bytes of a text
	maxProfile     = 15 << 10 // bytes of the whole; the swarm takes 16 KiB
)

// How far a device gets to the origin.
const (
	uplinkUnknown = iota
	uplinkOK
	uplinkBad
)

// profile is what a device tells the members of its site about itself, as the
// opaque part of its swarm profile: CBOR with integer keys.
type profile struct {
	V        int         `cbor:"1,keyasint"`
	Meta     int64       `cbor:"2,keyasint"`           // version of the newest timestamp of which it has everything
	Target   [32]byte    `cbor:"3,keyasint"`           // digest of the manifest it wants or runs
	Bases    [][32]byte  `cbor:"4,keyasint,omitempty"` // complete artifacts it holds, as bases of patches
	Plan     []planEntry `cbor:"5,keyasint,omitempty"` // for Target
	Epoch    uint64      `cbor:"6,keyasint,omitempty"` // of the lease under which Plan was made
	Version  string      `cbor:"7,keyasint,omitempty"` // in service
	State    string      `cbor:"8,keyasint,omitempty"`
	Rebuilt  int64       `cbor:"9,keyasint,omitempty"` // bytes rebuilt of what is being rebuilt; grows while it works
	Working  bool        `cbor:"10,keyasint,omitempty"`
	Uplink   int         `cbor:"11,keyasint,omitempty"`
	Progress int         `cbor:"12,keyasint,omitempty"` // per mille of Target
	Speed    int         `cbor:"13,keyasint,omitempty"` // class as one that rebuilds; one more is twice as fast
	Memory   int64       `cbor:"14,keyasint,omitempty"` // bytes that a patch decoder may take; 0: any
	Failed   [][32]byte  `cbor:"15,keyasint,omitempty"` // patches on the way to Target that failed here
	Room     int64       `cbor:"16,keyasint,omitempty"` // bytes free for what a chain of patches makes on its way; 0: goes no chain
}

// planEntry says how an artifact is brought to the site.
type planEntry struct {
	_        struct{} `cbor:",toarray"`
	Artifact [32]byte
	Way      [32]byte // its name, which is the digest of its first patch; zero: by chunks
}

var errProfile = errors.New("node: malformed profile")

var (
	cborEnc = mustEnc()
	cborDec = mustDec()
)

func mustEnc() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // options are constants
	}
	return m
}

func mustDec() cbor.DecMode {
	m, err := cbor.DecOptions{MaxArrayElements: 1024, MaxMapPairs: 64, MaxNestedLevels: 6, DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		panic(err) // options are constants
	}
	return m
}

func (p *profile) encode() ([]byte, error) {
	p.V = profileVersion
	b, err := cborEnc.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("node: encode profile: %w", err)
	}
	return b, nil
}

// decodeProfile reads a member's profile. Fields of later versions are ignored.
func decodeProfile(b []byte) (*profile, error) {
	p := new(profile)
	if len(b) == 0 {
		return p, nil
	}
	if err := cborDec.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("%w: %w", errProfile, err)
	}
	if p.V < 1 || len(p.Bases) > maxBases || len(p.Plan) > maxPlan || len(p.Failed) > maxFailed || len(p.Version) > maxShort || len(p.State) > maxShort {
		return nil, fmt.Errorf("%w: outside its limits", errProfile)
	}
	return p, nil
}
