package identity

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

const certContext = "updraft certificate 1\n"

// Cert binds a key to a device of the fleet.
type Cert struct {
	Serial    uint64
	Peer      peer.ID // of an Ed25519 key
	Name      string  // see CheckName
	Type      string  // device type, see CheckName
	Site      string  // see CheckName
	Roles     []string
	NotBefore int64 // unix seconds; when it was signed. Not enforced: a device's clock may be early
	NotAfter  int64 // unix seconds
}

type certWire struct {
	Serial    uint64   `cbor:"1,keyasint"`
	Key       []byte   `cbor:"2,keyasint"`
	Name      string   `cbor:"3,keyasint"`
	Type      string   `cbor:"4,keyasint"`
	Site      string   `cbor:"5,keyasint"`
	Roles     []string `cbor:"6,keyasint"`
	NotBefore int64    `cbor:"7,keyasint"`
	NotAfter  int64    `cbor:"8,keyasint"`
}

// signedWire is a message and its signature, for certificates and requests.
type signedWire struct {
	_         struct{} `cbor:",toarray"`
	Body      []byte
	Signature []byte
}

var (
	encoding = must(cbor.CoreDetEncOptions().EncMode())
	decoding = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   4,
		MaxArrayElements:  16,
		MaxMapPairs:       16,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options above are constant
	}
	return v
}

// CheckName reports whether s may name a device, a type, a site or a role: 1 to 64
// bytes from A-Z a-z 0-9 . _ - that begin with a letter or digit.
func CheckName(s string) error {
	ok := s != "" && len(s) <= maxName
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		ok = alnum || i > 0 && (c == '.' || c == '_' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%w: name %.80q: use A-Z a-z 0-9 . _ -, at most %d bytes", ErrMalformed, s, maxName)
	}
	return nil
}

func (c *Cert) check() error {
	for _, s := range append([]string{c.Name, c.Type, c.Site}, c.Roles...) {
		if err := CheckName(s); err != nil {
			return err
		}
	}
	if len(c.Roles) < 1 || len(c.Roles) > 8 || c.NotBefore < 0 || c.NotAfter <= c.NotBefore || c.NotAfter > 1<<40 {
		return fmt.Errorf("%w: certificate with %d roles, valid from %d to %d", ErrMalformed, len(c.Roles), c.NotBefore, c.NotAfter)
	}
	return nil
}

// Has reports whether the certificate gives a role.
func (c *Cert) Has(role string) bool { return slices.Contains(c.Roles, role) }

// Sign returns the certificate's bytes, at most MaxCert, signed by ca.
func (c *Cert) Sign(ca ed25519.PrivateKey) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	key, err := rawKey(c.Peer)
	if err != nil {
		return nil, err
	}
	body, err := encoding.Marshal(certWire{c.Serial, key, c.Name, c.Type, c.Site, c.Roles, c.NotBefore, c.NotAfter})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	b, err := seal(certContext, body, ca)
	if err == nil && len(b) > MaxCert {
		err = fmt.Errorf("%w: certificate of %d bytes", ErrMalformed, len(b))
	}
	return b, err
}

// Verify checks a certificate against the fleet's authority. floor is a time that
// is known to have passed: the clock, or the newest signed time if that is later; a
// zero floor leaves validity out. The errors are ErrMalformed, ErrForeign and
// ErrExpired; with ErrExpired the certificate is returned as well.
func Verify(b []byte, ca ed25519.PublicKey, floor time.Time) (*Cert, error) {
	if len(b) > MaxCert {
		return nil, fmt.Errorf("%w: certificate of %d bytes", ErrMalformed, len(b))
	}
	if len(ca) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: authority's key of %d bytes", ErrMalformed, len(ca))
	}
	body, sig, err := unseal(b)
	if err != nil {
		return nil, err
	}
	if !ed25519.Verify(ca, append([]byte(certContext), body...), sig) {
		return nil, ErrForeign
	}
	c, err := parseCert(body)
	if err != nil {
		return nil, err
	}
	if end := time.Unix(c.NotAfter, 0); floor.After(end) {
		return c, fmt.Errorf("%w: %s, on %s", ErrExpired, c.Name, end.UTC().Format(time.RFC3339))
	}
	return c, nil
}

func parseCert(body []byte) (*Cert, error) {
	var w certWire
	if err := decoding.Unmarshal(body, &w); err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", ErrMalformed, err)
	}
	if again, err := encoding.Marshal(w); err != nil || !bytes.Equal(again, body) {
		return nil, fmt.Errorf("%w: certificate is not in canonical encoding", ErrMalformed)
	}
	id, err := idFromRaw(w.Key)
	if err != nil {
		return nil, err
	}
	c := &Cert{w.Serial, id, w.Name, w.Type, w.Site, w.Roles, w.NotBefore, w.NotAfter}
	return c, c.check()
}

// seal signs a body within a context and returns both.
func seal(context string, body []byte, key ed25519.PrivateKey) ([]byte, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%w: private key of %d bytes", ErrMalformed, len(key))
	}
	return encoding.Marshal(signedWire{Body: body, Signature: ed25519.Sign(key, append([]byte(context), body...))})
}

func unseal(b []byte) (body, sig []byte, err error) {
	var w signedWire
	if err := decoding.Unmarshal(b, &w); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if again, err := encoding.Marshal(w); err != nil || !bytes.Equal(again, b) || len(w.Signature) != ed25519.SignatureSize {
		return nil, nil, fmt.Errorf("%w: not in canonical encoding", ErrMalformed)
	}
	return w.Body, w.Signature, nil
}

// rawKey is the Ed25519 public key that a peer ID stands for.
func rawKey(id peer.ID) (ed25519.PublicKey, error) {
	pub, err := id.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("%w: peer ID: %w", ErrMalformed, err)
	}
	if pub.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("%w: peer ID is not of an Ed25519 key", ErrMalformed)
	}
	return pub.Raw()
}

func idFromRaw(key []byte) (peer.ID, error) {
	pub, err := crypto.UnmarshalEd25519PublicKey(key)
	if err != nil {
		return "", fmt.Errorf("%w: public key: %w", ErrMalformed, err)
	}
	return peer.IDFromPublicKey(pub)
}
