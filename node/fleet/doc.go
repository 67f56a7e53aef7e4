// Package fleet is the publisher's side: the directory that holds a fleet's keys,
// its origin tree and what was published and enrolled.
//
//	fleet.json                    name, format
//	keys/                         mode 0700, files 0600
//	  root.key targets.key        keep offline; needed to rotate keys and open channels
//	  root.2.key targets.2.key …  where several of a role's keys must sign
//	  snapshot.key timestamp.key  sign every release
//	  channel-<channel>.key       one for each channel
//	  channel-revoked.key         signs the list of revoked devices
//	  ca.key                      signs device certificates
//	  site.secret                 site keys are derived from it
//	                              any of them may be sealed with a passphrase
//	origin/                       what a web server serves: see package release
//	origin/renewals/              renewed certificates, under keyed names
//	releases/<channel>/<sequence>-<version>.manifest
//	devices/<name>.json           certificates given out
//	revoked.json                  why devices were revoked and what was before, which is not published
//	tokens/<id>.json              tokens that devices may join with, and those that did
//	staging/                      a publish at work, or what one left that did not end; mode 0700
//	lock                          held while publishing
//
// A publish builds into staging, moves the finished objects into the origin, where
// nothing refers to them yet, and signs: the release appears with the rename of
// timestamp.json or not at all. What one that was interrupted, or failed, moved there is
// back in staging after the next has begun, at the latest; that may use what it left, and
// removes it when it succeeds. Only one process publishes at a time.
package fleet

import "errors"

var (
	// ErrNotFleet reports a directory that Init did not make, or did not finish.
	ErrNotFleet = errors.New("fleet: not a fleet directory")
	// ErrNotEmpty reports a directory that Init will not use.
	ErrNotEmpty = errors.New("fleet: directory is not empty")
	// ErrBusy reports that another process is publishing.
	ErrBusy = errors.New("fleet: another process is at work in this fleet")
	// ErrExists reports a version or a device that is there already.
	ErrExists = errors.New("fleet: exists already")
	// ErrOtherName reports a key that is or was a device's of another name. It is ErrExists
	// as well, or identity.ErrRevoked if that device is revoked.
	ErrOtherName = errors.New("fleet: the key is another device's")
	// ErrStaged reports a build that does not hold what its manifest names.
	ErrStaged = errors.New("fleet: the build does not match its manifest")
	// ErrUnknown reports a device that was never enrolled.
	ErrUnknown = errors.New("fleet: no such device")
	// ErrReplaced reports a revocation that is not of the certificate that the device has,
	// but keeps out the ones before.
	ErrReplaced = errors.New("fleet: enrolled again since it was revoked; the revocation is of the certificates before")
	// ErrTokenUnknown reports a request without a token that this fleet gave out and
	// has not revoked.
	ErrTokenUnknown = errors.New("fleet: no such token")
	// ErrTokenExpired reports a token past its time.
	ErrTokenExpired = errors.New("fleet: token has expired")
	// ErrTokenUsed reports a token that as many devices came with as it is for.
	ErrTokenUsed = errors.New("fleet: token is used up")
	// ErrTokenType reports a device of another type than the token is for.
	ErrTokenType = errors.New("fleet: token is for another device type")
	// ErrOptions reports options that cannot be used.
	ErrOptions = errors.New("fleet: unusable options")
)
