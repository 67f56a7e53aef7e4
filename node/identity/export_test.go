package identity

// ParseCert decodes the signed part of a certificate.
func ParseCert(body []byte) (*Cert, error) { return parseCert(body) }
