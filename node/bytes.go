package node

import "sync/atomic"

// counter counts bytes; it is safe for concurrent use.
type counter struct{ atomic.Int64 }
