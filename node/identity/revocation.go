package identity

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Limits of a list of revocations.
const (
	MaxRevocations = 1 << 14
	maxReason      = 256 // bytes
)

// Revocation takes back all certificates of a device that were signed up to a time.
// A certificate signed later, for the same name, is good again.
type Revocation struct {
	Name   string `cbor:"1,keyasint"`           // of the device, see CheckName
	At     int64  `cbor:"2,keyasint"`           // unix seconds, 1 or more
	Reason string `cbor:"3,keyasint,omitempty"` // for people, at most 256 bytes
}

// Revocations is a list by name, each name once. The zero value is empty.
type Revocations []Revocation

type revocationsWire struct {
	Format int         `cbor:"1,keyasint"` // 1
	List   Revocations `cbor:"2,keyasint"`
}

var decodingList = must(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	IndefLength:       cbor.IndefLengthForbidden,
	TagsMd:            cbor.TagsForbidden,
	ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	MaxNestedLevels:   4,
	MaxArrayElements:  MaxRevocations,
	MaxMapPairs:       16,
}.DecMode())

// Encode returns the list as canonical CBOR. It is not signed by itself: package
// release publishes it.
func (l Revocations) Encode() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	return encoding.Marshal(revocationsWire{1, l})
}

// CheckRevocations reports as ErrMalformed what ParseRevocations does not read.
func CheckRevocations(b []byte) error {
	_, err := ParseRevocations(b)
	return err
}

// ParseRevocations reads what Encode wrote; anything else is ErrMalformed.
func ParseRevocations(b []byte) (Revocations, error) {
	var w revocationsWire
	if err := decodingList.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: revocations: %w", ErrMalformed, err)
	}
	if w.Format != 1 {
		return nil, fmt.Errorf("%w: revocations of format %d, this program knows 1", ErrMalformed, w.Format)
	}
	if again, err := encoding.Marshal(w); err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: revocations are not in canonical encoding", ErrMalformed)
	}
	return w.List, w.List.check()
}

func (l Revocations) check() error {
	if len(l) > MaxRevocations {
		return fmt.Errorf("%w: %d revocations, at most %d", ErrMalformed, len(l), MaxRevocations)
	}
	for i, r := range l {
		if err := CheckName(r.Name); err != nil {
			return err
		}
		if i > 0 && l[i-1].Name >= r.Name {
			return fmt.Errorf("%w: revocations out of order at %s", ErrMalformed, r.Name)
		}
		if r.At < 1 || r.At > 1<<40 || len(r.Reason) > maxReason {
			return fmt.Errorf("%w: revocation of %s at %d, reason of %d bytes", ErrMalformed, r.Name, r.At, len(r.Reason))
		}
	}
	return nil
}

// Find returns the revocation of a name.
func (l Revocations) Find(name string) (Revocation, bool) {
	i, ok := slices.BinarySearchFunc(l, name, func(r Revocation, name string) int { return cmp.Compare(r.Name, name) })
	if !ok {
		return Revocation{}, false
	}
	return l[i], true
}

// With returns the list with r added, in place of one of the same name.
func (l Revocations) With(r Revocation) Revocations {
	out := append(l.Without(r.Name), r)
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Without returns the list without a name.
func (l Revocations) Without(name string) Revocations {
	return slices.DeleteFunc(slices.Clone(l), func(r Revocation) bool { return r.Name == name })
}

// Check returns an error that wraps ErrRevoked if the certificate is taken back.
func (l Revocations) Check(c *Cert) error {
	r, ok := l.Find(c.Name)
	if !ok || c.NotBefore > r.At {
		return nil
	}
	return r.Err()
}

// Err is the error that reports it; it wraps ErrRevoked.
func (r Revocation) Err() error {
	why := ""
	if r.Reason != "" {
		why = ": " + r.Reason
	}
	return fmt.Errorf("%w: %s, on %s%s", ErrRevoked, r.Name, time.Unix(r.At, 0).UTC().Format(time.RFC3339), why)
}
