package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"updraft/delta/release"
	"updraft/node/identity"
	"updraft/node/report"
	"updraft/swarm"
)

// expiryNotice is how long before its end a certificate is a problem.
const expiryNotice = 30 * 24 * time.Hour

// What a device of the site was shunned for.
var (
	errLiar   = errors.New("node: the device sent wrong bytes")
	errBreach = errors.New("node: the device breaks the protocol")
)

// errEnding reports a certificate that is valid no longer than expiryNotice.
var errEnding = errors.New("node: certificate will expire")

// errRole reports a device that is configured as a gateway and not certified as one.
var errRole = errors.New("node: its certificate does not allow the role of a gateway: it works as a device")

// strangerNotice is how long a stranger is remembered as a problem.
const strangerNotice = time.Hour

// admit decides whether a peer is a device of this site. What keeps a device of the
// site out is shown as a problem under its name; all strangers are one problem, of
// which the newest is told, so that many of them hide nothing else.
func (n *Node) admit(id peer.ID, credential []byte) (swarm.Identity, error) {
	c, err := n.certify(id, credential)
	if c == nil || errors.Is(err, identity.ErrForeign) {
		n.log.Debug("stranger", "peer", id, "err", err)
		n.status.problems.Add(report.Problem{Code: problemStranger, Subject: "this site", Text: fmt.Sprintf("%v (peer %s)", err, id),
			Hint: "it was not let in; if it belongs here, enroll it for this site"})
		return swarm.Identity{}, err
	}
	n.problem(problemRefused, c.Name, err)
	if err != nil {
		return swarm.Identity{}, err
	}
	return swarm.Identity{Name: c.Name, Type: c.Type, Roles: c.Roles, Gateway: c.Has(identity.RoleGateway)}, nil
}

// certify decides whether a certificate makes the peer a device of this site, and
// notes it if it does. It is returned also with an error, unless it is malformed or of
// another fleet.
func (n *Node) certify(id peer.ID, credential []byte) (*identity.Cert, error) {
	c, err := identity.Verify(credential, n.enr.CA, n.certTime())
	switch {
	case c == nil:
		return nil, err
	case c.Peer != id:
		return c, fmt.Errorf("%w: certificate of %s with the key of another peer", identity.ErrForeign, c.Name)
	case c.Site != n.enr.Site:
		return c, fmt.Errorf("%w: %s is a device of site %q", identity.ErrForeign, c.Name, c.Site)
	case err != nil:
		return c, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.revoked.Check(c); err != nil {
		return c, err
	}
	n.certs[id] = c
	return c, nil
}

// certTime is the time by which certificates are judged. A clock is late if it is before the
// enrollment: who signs renewals tells no device that has one what time it is.
func (n *Node) certTime() time.Time {
	return n.trust.CertificateTime(time.Now(), n.enrolled, time.Unix(n.own().NotAfter, 0))
}

// blamed shows which device sent what it should not have, or has the key of another. It is
// over when that device is admitted again.
func (n *Node) blamed(_ peer.ID, ident swarm.Identity, why error, shunned time.Duration) {
	if errors.Is(why, swarm.ErrTwin) {
		n.problem(problemRefused, ident.Name, why)
		return
	}
	what := errBreach
	if errors.Is(why, swarm.ErrWrongBlob) {
		what = errLiar
	}
	n.problem(problemRefused, ident.Name, fmt.Errorf("%w; not admitted for %v", what, shunned))
}

// loadRevocations takes over the list that was learnt before.
func (n *Node) loadRevocations() error {
	b, err := n.trust.KnownRevocations()
	if err == nil {
		err = n.revoke(b)
	}
	if errors.Is(err, release.ErrNotFound) || errors.Is(err, identity.ErrMalformed) {
		n.log.Warn("list of revoked devices lost", "err", err)
		return nil
	}
	return err
}

// syncRevocations brings the list up to date; trustMu is held.
func (n *Node) syncRevocations(ctx context.Context, g *gathered) error {
	b, err := n.trust.Revocations(ctx, g.fetch, identity.CheckRevocations)
	if err = g.inForce(err); err != nil {
		return err
	}
	return n.revoke(b)
}

// revoke makes b the list of revoked devices, closes the connections with those on
// it, and judges this device's own certificate.
func (n *Node) revoke(b []byte) error {
	var list identity.Revocations
	if b != nil {
		var err error
		if list, err = identity.ParseRevocations(b); err != nil {
			return err
		}
	}
	n.mu.Lock()
	before := n.revoked
	n.revoked = list
	n.mu.Unlock()
	for _, r := range before {
		if _, still := list.Find(r.Name); !still {
			n.problem(problemRefused, r.Name, nil)
		}
	}
	n.expel()
	n.judgeSelf(list)
	return nil
}

// expel closes the connections with devices that are revoked. It runs with each look
// and when members change: one may have been admitted just before.
func (n *Node) expel() {
	if n.sw == nil {
		return // New has not got as far
	}
	for _, m := range n.sw.Members() {
		n.mu.Lock()
		c, list := n.certs[m.ID], n.revoked
		n.mu.Unlock()
		if c == nil {
			continue
		}
		if err := list.Check(c); err != nil {
			n.problem(problemRefused, c.Name, err)
			n.sw.Evict(m.ID)
		}
	}
}

// expelEnded closes the connections with devices whose certificate has ended, and who
// have no other when they are asked.
func (n *Node) expelEnded(ctx context.Context) {
	for _, m := range n.sw.Members() {
		c := n.certOf(m.ID)
		if c == nil {
			continue
		}
		end := time.Unix(c.NotAfter, 0)
		if !n.certTime().After(end) {
			continue
		}
		if err := n.askCertificate(ctx, m.ID, nil); err == nil || ctx.Err() != nil {
			continue
		}
		n.problem(problemRefused, c.Name, fmt.Errorf("%w: %s, on %s", identity.ErrExpired, c.Name, end.UTC().Format(time.RFC3339)))
		n.sw.Evict(m.ID)
	}
}

// judgeSelf shows what is wrong with this device's own certificate.
func (n *Node) judgeSelf(list identity.Revocations) {
	now := n.certTime()
	c, err := identity.Verify(n.own().raw, n.enr.CA, now)
	switch {
	case c == nil:
		return // checked when it was read
	case err == nil && list.Check(c) != nil:
		err = list.Check(c)
	case err == nil && now.Add(expiryNotice).After(time.Unix(c.NotAfter, 0)):
		err = fmt.Errorf("%w: on %s", errEnding, time.Unix(c.NotAfter, 0).UTC().Format(time.DateOnly))
	}
	n.problem(problemCertificate, "this device", err)
}

// judgeRole decides whether this device is a gateway: it must be configured as one,
// and its certificate must allow it, or the others would not believe it.
func (n *Node) judgeRole() {
	n.gw = n.cfg.Gateway && n.cert.Has(identity.RoleGateway)
	if n.cfg.Gateway && !n.gw {
		n.problem(problemRole, "this device", errRole)
	}
}
