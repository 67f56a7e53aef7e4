package node

import (
	"fmt"
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
