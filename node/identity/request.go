package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

const requestContext = "updraft request 1\n"

// Request asks the fleet for a certificate for a key that the device made. It
// proves possession of the key and holds nothing secret.
type Request struct {
	Peer peer.ID
	Name string // wished for; the fleet decides
	Type string
}

type requestWire struct {
	Key  []byte `cbor:"1,keyasint"`
	Name string `cbor:"2,keyasint"`
	Type string `cbor:"3,keyasint"`
}

// NewKey makes a device's key. It returns the libp2p encoding of the private key.
func NewKey() ([]byte, error) {
	priv, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	return crypto.MarshalPrivateKey(priv)
}

// ParseKey decodes what NewKey made and gives the peer ID of it.
func ParseKey(key []byte) (crypto.PrivKey, peer.ID, error) {
	if len(key) > 256 {
		return nil, "", fmt.Errorf("%w: private key of %d bytes", ErrMalformed, len(key))
	}
	priv, err := crypto.UnmarshalPrivateKey(key)
	if err != nil {
		return nil, "", fmt.Errorf("%w: private key: %w", ErrMalformed, err)
	}
	if priv.Type() != crypto.Ed25519 {
		return nil, "", fmt.Errorf("%w: not an Ed25519 key", ErrMalformed)
	}
	id, err := peer.IDFromPrivateKey(priv)
	return priv, id, err
}

// NewRequest makes a key on the device and the request for it.
func NewRequest(name, typ string) (key, request []byte, err error) {
	if key, err = NewKey(); err != nil {
		return nil, nil, err
	}
	request, err = SignRequest(key, name, typ)
	return key, request, err
}

// SignRequest makes a request for a key that exists, as to renew a certificate.
func SignRequest(key []byte, name, typ string) ([]byte, error) {
	for _, s := range []string{name, typ} {
		if err := CheckName(s); err != nil {
			return nil, err
		}
	}
	priv, id, err := ParseKey(key)
	if err != nil {
		return nil, err
	}
	pub, err := rawKey(id)
	if err != nil {
		return nil, err
	}
	raw, err := priv.Raw()
	if err != nil {
		return nil, err
	}
	body, err := encoding.Marshal(requestWire{pub, name, typ})
	if err != nil {
		return nil, err
	}
	return seal(requestContext, body, ed25519.PrivateKey(raw))
}

// ParseRequest decodes a request and checks that it was signed by its own key.
func ParseRequest(b []byte) (*Request, error) {
	if len(b) > MaxRequest {
		return nil, fmt.Errorf("%w: request of %d bytes", ErrMalformed, len(b))
	}
	body, sig, err := unseal(b)
	if err != nil {
		return nil, err
	}
	var w requestWire
	if err := decoding.Unmarshal(body, &w); err != nil {
		return nil, fmt.Errorf("%w: request: %w", ErrMalformed, err)
	}
	if again, err := encoding.Marshal(w); err != nil || !bytes.Equal(again, body) {
		return nil, fmt.Errorf("%w: request is not in canonical encoding", ErrMalformed)
	}
	id, err := idFromRaw(w.Key)
	if err != nil {
		return nil, err
	}
	if !ed25519.Verify(w.Key, append([]byte(requestContext), body...), sig) {
		return nil, fmt.Errorf("%w: request is not signed by its key", ErrKey)
	}
	for _, s := range []string{w.Name, w.Type} {
		if err := CheckName(s); err != nil {
			return nil, err
		}
	}
	return &Request{Peer: id, Name: w.Name, Type: w.Type}, nil
}
