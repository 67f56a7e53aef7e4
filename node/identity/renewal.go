package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const renewalContext = "updraft renewal 1\n"

// Due is when a certificate is to be renewed: a third of its validity is left.
func (c *Cert) Due() time.Time {
	return time.Unix(c.NotAfter-(c.NotAfter-c.NotBefore)/3, 0)
}

// Renews reports whether c may take the place of the certificate old: it says the
// same of the same key, was signed later and is valid for longer. Otherwise the error
// is ErrRenewal.
func (c *Cert) Renews(old *Cert) error {
	switch {
	case c.Peer != old.Peer || c.Name != old.Name || c.Type != old.Type || c.Site != old.Site || !slices.Equal(c.Roles, old.Roles):
		return fmt.Errorf("%w of %s: it is for %s (%s) at %s, %v", ErrRenewal, old.Name, c.Name, c.Type, c.Site, c.Roles)
	case c.NotBefore <= old.NotBefore || c.NotAfter <= old.NotAfter:
		return fmt.Errorf("%w of %s: it is not newer", ErrRenewal, old.Name)
	}
	return nil
}

// RenewalName is the name at the origin of the renewed certificate of a device. Only
// who has the site's key can tell whose it is.
func RenewalName(siteKey [32]byte, id peer.ID) string {
	mac := hmac.New(sha256.New, siteKey[:])
	mac.Write([]byte(renewalContext))
	mac.Write([]byte(id))
	return RenewalDir + "/" + hex.EncodeToString(mac.Sum(nil))
}
