package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
	"updraft/node/identity"
)

const (
	callCertificate = "certificate"   // offers a renewal, or nothing, and is answered the certificate in use
	certTimeout     = 5 * time.Second // of such a call
	renewalAgain    = 24 * time.Hour  // a renewal that was not there is looked for again, unless something was published
	renewalAhead    = 24 * time.Hour  // how far in the future one may begin: clocks differ
)

// errAhead reports a renewal that begins later than renewalAhead from now.
var errAhead = errors.New("node: the renewed certificate begins too far in the future")

// certificate is that of this device: the one in its enrollment, or a renewal.
type certificate struct {
	*identity.Cert
	raw []byte
}

// own returns the certificate in use.
func (n *Node) own() certificate {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cert
}

// checkBegin reports a renewal that begins far in the future. Whoever had the authority's key
// for a minute, or the publisher while its clock was ahead, signs one that would be kept for
// good, for no later one is valid for longer.
func (n *Node) checkBegin(c *identity.Cert) error {
	begin := time.Unix(c.NotBefore, 0)
	if begin.After(n.trust.Now(time.Now()).Add(renewalAhead)) {
		return fmt.Errorf("%w: on %s", errAhead, begin.UTC().Format(time.RFC3339))
	}
	return nil
}

// loadCertificate takes up the renewal that was kept, if it is one of the certificate
// in the enrollment, which may have been made anew since. When it begins counts only where
// the clock is not late: one that is set later, on a device that has lost its metadata,
// would cost it a good renewal. An earlier program may have kept one that is not.
func (n *Node) loadCertificate() error {
	c, err := n.enr.Certificate(time.Time{})
	if err != nil {
		return err
	}
	n.cert, n.enrolled = certificate{c, n.enr.Cert}, time.Unix(c.NotBefore, 0)
	b, err := identity.ReadSecret(n.paths.certificate(), identity.MaxCert)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var next *identity.Cert
	if err == nil {
		if next, err = identity.Verify(b, n.enr.CA, time.Time{}); err == nil {
			err = next.Renews(c)
		}
	}
	if err == nil && !time.Now().Before(n.enrolled) {
		err = n.checkBegin(next)
	}
	if err != nil {
		n.log.Info("the certificate of the enrollment is used", "kept", n.paths.certificate(), "err", err)
		return nil
	}
	n.cert = certificate{next, b}
	return nil
}

// renew takes a renewal of this device's certificate into use: on disk first, then for
// whomever it meets. Connections that are up stay: see expelEnded for how the others
// learn of it.
func (n *Node) renew(b []byte) error {
	next, err := identity.Verify(b, n.enr.CA, n.certTime())
	if err != nil {
		return err
	}
	n.renewMu.Lock()
	defer n.renewMu.Unlock()
	if err := next.Renews(n.own().Cert); err != nil {
		return err
	}
	if err := n.checkBegin(next); err != nil {
		return err
	}
	if err := identity.WriteSecret(n.paths.certificate(), b); err != nil {
		return fmt.Errorf("node: keeping a renewed certificate: %w", err)
	}
	n.mu.Lock()
	n.cert = certificate{next, b}
	list := n.revoked
	n.mu.Unlock()
	if err := n.sw.SetCredential(b); err != nil {
		return err
	}
	n.log.Info("certificate renewed", "until", time.Unix(next.NotAfter, 0).UTC())
	n.judgeSelf(list)
	return nil
}

// bringRenewals looks at the origin for the certificate of each device here, this one
// and its members, that is due to be renewed, and brings it there. It is part of a look,
// of which there is one at a time. What it does not find is looked for again when
// something is published: the publisher sees to it that a renewal comes with that.
func (n *Node) bringRenewals(ctx context.Context, fetch release.Fetcher) {
	now := n.certTime()
	certs := map[peer.ID]*identity.Cert{n.id: n.own().Cert}
	for _, m := range n.sw.Members() {
		if c := n.certOf(m.ID); c != nil {
			certs[m.ID] = c
		}
	}
	tried := make(map[peer.ID]claim)
	for id, c := range certs {
		if now.Before(c.Due()) {
			continue
		}
		last := n.renewals[id]
		if last.meta == n.trust.Version() && time.Since(last.at) < renewalAgain {
			tried[id] = last
			continue
		}
		b, err := fetch(ctx, identity.RenewalName(n.enr.SiteKey, id), identity.MaxCert)
		if err == nil || errors.Is(err, release.ErrNotFound) {
			tried[id] = claim{n.trust.Version(), time.Now()}
		}
		if err == nil {
			err = n.bringRenewal(ctx, id, c, b)
		}
		if err != nil && !errors.Is(err, release.ErrNotFound) && ctx.Err() == nil {
			n.log.Warn("certificate not renewed", "device", c.Name, "err", err)
		}
	}
	n.renewals = tried
}

// bringRenewal brings a device, whose certificate is old, what the origin has for it.
func (n *Node) bringRenewal(ctx context.Context, id peer.ID, old *identity.Cert, b []byte) error {
	next, err := identity.Verify(b, n.enr.CA, n.certTime())
	if err == nil {
		err = next.Renews(old)
	}
	switch {
	case errors.Is(err, identity.ErrRenewal) && next.Peer == old.Peer:
		return nil // it has that one, or a later one
	case err != nil:
		return err
	case id == n.id:
		return n.renew(b)
	}
	return n.askCertificate(ctx, id, b)
}

// askCertificate offers a member a renewal, if there is one, and takes the certificate
// that it then uses in the place of the one it was admitted with.
func (n *Node) askCertificate(ctx context.Context, id peer.ID, renewal []byte) error {
	ctx, cancel := context.WithTimeout(ctx, certTimeout)
	defer cancel()
	b, err := n.sw.Invoke(ctx, id, callCertificate, renewal)
	if err != nil {
		return err
	}
	_, err = n.certify(id, b)
	return err
}

// answerCertificate takes up a renewal that a member offers, and says which certificate
// is in use.
func (n *Node) answerCertificate(renewal []byte) []byte {
	if len(renewal) > 0 {
		if err := n.renew(renewal); err != nil {
			n.log.Debug("offered certificate not taken", "err", err)
		}
	}
	return n.own().raw
}

func (n *Node) certOf(id peer.ID) *identity.Cert {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.certs[id]
}
