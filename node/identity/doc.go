// Package identity says who a device is, and proves it to the fleet.
//
// Every device has an Ed25519 key, which is its libp2p identity, and a certificate
// that the fleet's authority signed: it binds the key to a name, a device type, a
// site, roles and a time. A certificate is CBOR: an array of the signed part (a map
// with integer keys, in deterministic encoding) and a signature over
// "updraft certificate 1\n" and that part. Two sites, two fleets or two kinds of
// message can never be mistaken for each other.
//
// An enrollment file gives a device all it needs to join: certificate, key, root of
// trust, site key and where to look. It holds secrets: it is written with mode 0600
// and refused with any other that lets group or others in. The key can also be made
// on the device: NewRequest makes a key and a request, the fleet signs it, and
// Complete joins the answer and the key, which has never left the device. A request can
// also be signed with a Token, of which the fleet knows the public half and what it is
// good for: it is approved without anybody looking at it.
//
// A certificate is renewed for the key it has, from the last third of its validity on:
// the fleet signs a new one that differs in serial and times alone, and puts it at the
// origin under a keyed name (RenewalName). Whoever brings it to the device is trusted
// in nothing: the device checks it against the one in use (Renews).
//
// Everything that is decoded is bounded and checked. Values are not safe for
// concurrent change.
package identity

import "errors"

// Limits, in bytes.
const (
	MaxCert       = 4 << 10
	MaxRequest    = 4 << 10
	MaxEnrollment = 512 << 10
	maxName       = 64
)

// RenewalDir holds renewed certificates, below the origin.
const RenewalDir = "renewals"

// Roles of a device.
const (
	RoleDevice   = "device"
	RoleGateway  = "gateway"  // always on, prefers to hold the uplink
	RoleOperator = "operator" // may ask the site's devices for their status
)

var (
	// ErrMalformed reports bytes that are not what they should be.
	ErrMalformed = errors.New("identity: malformed")
	// ErrForeign reports a certificate that this fleet did not sign.
	ErrForeign = errors.New("identity: signed by another fleet")
	// ErrExpired reports a certificate past its validity.
	ErrExpired = errors.New("identity: certificate has expired")
	// ErrRevoked reports a certificate that the fleet has taken back.
	ErrRevoked = errors.New("identity: certificate is revoked")
	// ErrRenewal reports a certificate that is no renewal of the one in use.
	ErrRenewal = errors.New("identity: no renewal of the certificate")
	// ErrKey reports a private key that the certificate is not for.
	ErrKey = errors.New("identity: key and certificate do not belong together")
	// ErrPermissions reports a secret file that others can read.
	ErrPermissions = errors.New("identity: file is readable by others")
)
