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

	Token ed25519.PublicKey // half of the token that it was signed with as well; nil: none
}

type requestWire struct {
	Key   []byte `cbor:"1,keyasint"`
	Name  string `cbor:"2,keyasint"`
	Type  string `cbor:"3,keyasint"`
	Token []byte `cbor:"4,keyasint,omitempty"`
	Proof []byte `cbor:"5,keyasint,omitempty"` // signature by the token, of the fields before
}

// proven is what a token signs.
func (w requestWire) proven() ([]byte, error) {
	w.Proof = nil
	b, err := encoding.Marshal(w)
	return append([]byte(tokenContext), b...), err
}

func (w *requestWire) prove(t *Token) error {
	w.Token = t.Public()
	b, err := w.proven()
	w.Proof = ed25519.Sign(t.key, b)
	return err
}

func (w *requestWire) checkProof() error {
	if len(w.Token) == 0 && len(w.Proof) == 0 {
		return nil
	}
	b, err := w.proven()
	if err != nil || len(w.Token) != ed25519.PublicKeySize || !ed25519.Verify(w.Token, b, w.Proof) {
		return fmt.Errorf("%w: request is not signed by its token", ErrKey)
	}
	return nil
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

// NewRequest makes a key on the device and the request for it, with a token unless it
// is nil.
func NewRequest(name, typ string, token *Token) (key, request []byte, err error) {
	if key, err = NewKey(); err != nil {
		return nil, nil, err
	}
	request, err = SignRequest(key, name, typ, token)
	return key, request, err
}

// SignRequest makes a request for a key that exists.
func SignRequest(key []byte, name, typ string, token *Token) ([]byte, error) {
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
	w := requestWire{Key: pub, Name: name, Type: typ}
	if token != nil {
		if err := w.prove(token); err != nil {
			return nil, err
		}
	}
	body, err := encoding.Marshal(w)
	if err != nil {
		return nil, err
	}
	return seal(requestContext, body, ed25519.PrivateKey(raw))
}

// ParseRequest decodes a request and checks that it was signed by its own key, and by
// the token that it names.
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
	if err := w.checkProof(); err != nil {
		return nil, err
	}
	return &Request{Peer: id, Name: w.Name, Type: w.Type, Token: w.Token}, nil
}
