package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	tokenContext = "updraft token 1\n"
	tokenMark    = "updraft-token-"
)

var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token lets devices ask for certificates that nobody has to look at. It is a key: a
// request is signed with it as well, and the fleet keeps its public half only, so that
// neither a request nor the fleet's directory gives it away.
type Token struct{ key ed25519.PrivateKey }

// NewToken makes a token.
func NewToken() (*Token, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return &Token{key}, err
}

// ParseToken reads what Secret wrote.
func ParseToken(secret string) (*Token, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(secret), tokenMark)
	seed, err := tokenEncoding.DecodeString(text)
	if !ok || err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%w: not a token", ErrMalformed)
	}
	return &Token{ed25519.NewKeyFromSeed(seed)}, nil
}

// Secret is the token as text, for whoever makes requests.
func (t *Token) Secret() string { return tokenMark + tokenEncoding.EncodeToString(t.key.Seed()) }

// Public is the half that the fleet keeps.
func (t *Token) Public() ed25519.PublicKey {
	return t.key.Public().(ed25519.PublicKey) //nolint:forcetypeassert // of an Ed25519 key it is one
}

// TokenID names a token by its public half.
func TokenID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:8])
}
