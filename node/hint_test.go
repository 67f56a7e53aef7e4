package node

import (
	"fmt"
	"strings"
	"testing"

	"updraft/delta/release"
	"updraft/delta/tree"
	"updraft/node/identity"
	"updraft/swarm"
	"updraft/swarm/origin"
)

// TestEveryRefusalHasAHint: status says what to do about each kind of attack on metadata.
func TestEveryRefusalHasAHint(t *testing.T) {
	for _, err := range []error{release.ErrSignature, release.ErrCorrupt, release.ErrTooLarge, release.ErrRollback, release.ErrExpired,
		release.ErrClock, release.ErrMixAndMatch, release.ErrWrongChannel, release.ErrWrongType, release.ErrManifest,
		identity.ErrRevoked, identity.ErrExpired, origin.ErrChanged, origin.ErrNoRanges, errOrigin, errLiar, errBreach, swarm.ErrTwin, tree.ErrCollision} {
		if hint(fmt.Errorf("a look: %w", err)) == "" {
			t.Errorf("no hint for %v", err)
		}
	}
}

// TestHintsEndTheOldCertificate: who is told to enroll a device anew learns that this leaves the
// certificate before as good as it was, where that matters, and what ends it.
func TestHintsEndTheOldCertificate(t *testing.T) {
	for _, err := range []error{swarm.ErrTwin, errRole} {
		if h := hint(err); !strings.Contains(h, "updraft revoke") || !strings.Contains(h, "first") {
			t.Errorf("hint for %v: %s", err, h)
		}
	}
}
