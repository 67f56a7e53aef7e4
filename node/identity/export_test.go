package identity

// ParseCert decodes the signed part of a certificate.
func ParseCert(body []byte) (*Cert, error) { return parseCert(body) }

// Seed is what must stay secret of a token.
func (t *Token) Seed() []byte { return t.key.Seed() }

// Transplant signs a request for a key with the token's proof out of another's request.
func Transplant(key []byte, name, typ string, other []byte) (*Request, error) {
	body, _, err := unseal(other)
	if err != nil {
		return nil, err
	}
	var w requestWire
	if err := decoding.Unmarshal(body, &w); err != nil {
		return nil, err
	}
	priv, id, err := ParseKey(key)
	if err != nil {
		return nil, err
	}
	if w.Key, err = rawKey(id); err != nil {
		return nil, err
	}
	w.Name, w.Type = name, typ
	raw, err := priv.Raw()
	if err != nil {
		return nil, err
	}
	if body, err = encoding.Marshal(w); err != nil {
		return nil, err
	}
	b, err := seal(requestContext, body, raw)
	if err != nil {
		return nil, err
	}
	return ParseRequest(b)
}
