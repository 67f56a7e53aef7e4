package release

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

var (
	// ErrNotFound reports a file that the source does not have. It is a
	// fs.ErrNotExist. A Fetcher may return either.
	ErrNotFound = fmt.Errorf("release: %w", fs.ErrNotExist)
	// ErrLater is what a Fetcher returns for a file that it will have when the workflow is
	// run again: it ends that as an error does, with everything as before.
	ErrLater = errors.New("release: not fetched yet")
	// ErrNotKept reports that what was accepted is in force, and is not on disk, which may be
	// full. Each Refresh tries to write it again; a restart falls back to what was written.
	ErrNotKept = errors.New("release: accepted, but not kept on disk")
	// ErrNoRelease reports that nothing is published on the channel for the type.
	ErrNoRelease = errors.New("release: nothing is published there")
	// ErrRollback reports metadata or a manifest older than what was accepted before.
	ErrRollback = errors.New("release: older than what this device has accepted")
	// ErrExpired reports metadata past its expiry: the origin is frozen, by neglect
	// or by an attacker, or the clock is wrong. The error is an *ExpiredError.
	ErrExpired = errors.New("release: metadata has expired")
	// ErrClock reports a clock that is years after everything that was ever signed;
	// such an error is ErrExpired as well. For a publisher it reports a clock before
	// its own last signature.
	ErrClock = errors.New("release: the clock is wrong")
	// ErrSignature reports metadata without enough valid signatures.
	ErrSignature = errors.New("release: signature does not verify")
	// ErrMixAndMatch reports files that were not published together.
	ErrMixAndMatch = errors.New("release: files of different publications")
	// ErrCorrupt reports bytes that are not what they should be, or not what was
	// signed.
	ErrCorrupt = errors.New("release: corrupt")
	// ErrTooLarge reports a file longer than what may be sent under its name.
	ErrTooLarge = errors.New("release: endless data")
	// ErrWrongChannel reports a manifest made for another channel.
	ErrWrongChannel = errors.New("release: manifest of another channel")
	// ErrWrongType reports a manifest made for other device types.
	ErrWrongType = errors.New("release: manifest for another device type")
	// ErrSequence reports a release whose sequence number is not above those of the
	// channel.
	ErrSequence = errors.New("release: sequence is not above the channel's")
	// ErrNoKey reports a signing key that is not at hand.
	ErrNoKey = errors.New("release: signing key missing")
	// ErrSealed reports a key file that is not opened: there is no passphrase, or a
	// wrong one.
	ErrSealed = errors.New("release: key file is sealed")
	// ErrRoot reports a root that is not the one to follow the repository's.
	ErrRoot = errors.New("release: not the next root")
	// ErrQuorum reports a number of keys or a threshold that cannot be.
	ErrQuorum = errors.New("release: impossible number of keys")
	// ErrKeyFile reports a key file that others can read, or that holds no key.
	ErrKeyFile = errors.New("release: unusable key file")
)

// tooLate is how far the clock may be after the newest signed time before the
// clock is blamed: the longest life of any metadata.
const tooLate = 2 * 365 * 24 * time.Hour

// JudgedError is what Release finds wrong with a manifest that is here as it was signed:
// nobody has a better one for this metadata, and who sent it has kept nothing back.
type JudgedError struct{ Err error }

func (e *JudgedError) Error() string { return e.Err.Error() }
func (e *JudgedError) Unwrap() error { return e.Err }

// ExpiredError says which metadata has expired, by which clock.
type ExpiredError struct {
	File    string
	Expires time.Time
	Now     time.Time // the device's clock, or the signed time when that is later
	Signed  time.Time // newest signed time ever seen; zero: none
}

// Error names the file, its expiry and the clock.
func (e *ExpiredError) Error() string {
	s := fmt.Sprintf("%v: %s expired on %s, this device's clock says %s", ErrExpired, e.File,
		e.Expires.UTC().Format(time.RFC3339), e.Now.UTC().Format(time.RFC3339))
	if !e.Signed.IsZero() {
		s += fmt.Sprintf(", the newest signature is of %s", e.Signed.UTC().Format(time.RFC3339))
	}
	if e.clock() {
		return s + ": the clock is wrong"
	}
	return s + ": nobody has signed since, or the clock is wrong"
}

// Is makes the error ErrExpired, and ErrClock when the clock is years late.
func (e *ExpiredError) Is(target error) bool {
	return target == ErrExpired || target == ErrClock && e.clock()
}

func (e *ExpiredError) clock() bool {
	return !e.Signed.IsZero() && e.Now.Sub(e.Signed) > tooLate
}
